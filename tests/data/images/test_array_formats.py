import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.image_files import PIXELS, idx, planar, python2_pickle

from contraverse.data import load_images
from contraverse.data.images.arrays import unpickle_arrays
from contraverse.data.images.tasks import CIFAR10, CIFAR100
from contraverse.errors import UserError

LABELS = [i % 10 for i in range(60)]


def expected(rows: slice) -> torch.Tensor:
    return torch.from_numpy(PIXELS[rows].transpose(0, 3, 1, 2).copy())


def cifar10(folder: Path, batches: int = 5) -> Path:
    for i in range(batches):
        part = slice(10 * i, 10 * i + 10)
        batch = {b"data": planar(PIXELS[part]), b"labels": LABELS[part], b"filenames": [b"a.png"] * 10}
        (folder / f"data_batch_{i + 1}").write_bytes(python2_pickle(batch))
    test = {b"data": planar(PIXELS[50:]), b"labels": LABELS[50:]}
    (folder / "test_batch").write_bytes(python2_pickle(test))
    names = {b"label_names": [name.encode() for name in CIFAR10]}
    (folder / "batches.meta").write_bytes(python2_pickle(names))
    return folder


def load(task: str, folder: Any, **arguments: Any) -> Any:
    return load_images(task, folder, validation_fraction=0, **arguments)


def refused(task: str, folder: Any) -> str:
    with pytest.raises(UserError) as error:
        load(task, folder)
    return str(error.value)


@pytest.mark.parametrize("task", ["cifar10", "images"])
def test_cifar10_as_python_batches(tmp_path: Path, task: str) -> None:
    splits = load(task, cifar10(tmp_path))
    assert splits.skipped == 0
    assert torch.equal(splits.need("train").pixels, expected(slice(50)))
    assert splits.need("train").labels.tolist() == LABELS[:50]
    assert torch.equal(splits.need("test").pixels, expected(slice(50, None)))
    assert splits.task.labels == splits.need("test").label_names == CIFAR10


def test_the_unpacked_archive_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    cifar10(tmp_path / "cifar-10-batches-py")
    assert len(load("cifar10", tmp_path).need("train")) == 50


def test_batches_that_are_not_there_are_named(tmp_path: Path) -> None:
    cifar10(tmp_path, batches=2)
    (tmp_path / "test_batch").unlink()
    splits = load("cifar10", tmp_path)
    assert len(splits.need("train")) == 20
    assert splits.test is None
    assert any("there is no data_batch_3, data_batch_4, data_batch_5, test_batch" in note for note in splits.notes)


def test_python3_pickles_are_read_too(tmp_path: Path) -> None:
    for protocol in (2, 4):
        batch = {"data": planar(PIXELS[:10]), "labels": LABELS[:10], b"more": b"\xff"}
        (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
        read = unpickle_arrays(tmp_path / "batch")
        assert np.array_equal(read[b"data"], batch["data"])
        assert read[b"labels"] == LABELS[:10]
        assert read[b"more"] == b"\xff"


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    for name, part in (("train", slice(50)), ("test", slice(50, None))):
        labels = [(7 * i) % 100 for i in range(60)][part]
        batch = {b"data": planar(PIXELS[part]), b"fine_labels": labels, b"coarse_labels": [0] * len(labels)}
        (tmp_path / name).write_bytes(python2_pickle(batch))
    names = {b"fine_label_names": [name.encode() for name in CIFAR100], b"coarse_label_names": [b"x"] * 20}
    (tmp_path / "meta").write_bytes(python2_pickle(names))
    splits = load("cifar100", tmp_path)
    assert splits.need("train").labels.tolist() == [(7 * i) % 100 for i in range(50)]
    assert load("images", tmp_path).task.labels == CIFAR100


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_binary_batches(tmp_path: Path, label_bytes: int) -> None:
    def rows(part: slice) -> bytes:
        pairs = zip(planar(PIXELS[part]), LABELS[part], strict=True)
        return b"".join(bytes([19, label][-label_bytes:]) + pixels.tobytes() for pixels, label in pairs)

    train, test = ("data_batch_1.bin", "test_batch.bin") if label_bytes == 1 else ("train.bin", "test.bin")
    (tmp_path / train).write_bytes(rows(slice(50)))
    (tmp_path / test).write_bytes(rows(slice(50, None)))
    splits = load("cifar10" if label_bytes == 1 else "cifar100", tmp_path)
    assert torch.equal(splits.need("train").pixels, expected(slice(50)))
    assert splits.need("test").labels.tolist() == LABELS[50:]
    (tmp_path / train).write_bytes(rows(slice(50))[:-1])
    assert f"{train}: has" in refused("cifar10", tmp_path)
    assert "no multiple of" in refused("cifar10", tmp_path)


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_something_is_refused_before_it_does(tmp_path: Path, protocol: int) -> None:
    cifar10(tmp_path)
    made = tmp_path / "made"
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({b"data": Touch(made), b"labels": []}, protocol=protocol))
    said = refused("cifar10", tmp_path)
    assert "data_batch_2: is no batch" in said
    assert "it asks for" in said
    assert "mkdir" in said
    assert not made.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "os system", "numpy load", "numpy fromfile", "numpy.core.multiarray scalar"]
)
def test_only_what_an_array_needs_is_looked_up(tmp_path: Path, name: str) -> None:
    (tmp_path / "batch").write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(UserError, match="it asks for"):
        unpickle_arrays(tmp_path / "batch")


def test_no_codec_but_latin1(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(b"c_codecs\nencode\n(VZZ\nVrot13\ntR.")
    with pytest.raises(UserError, match="codec rot13"):
        unpickle_arrays(tmp_path / "batch")


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (b"", "is no batch that can be read"),
        (python2_pickle({b"data": planar(PIXELS[:2]), b"labels": [0, 1]})[:500], "is no batch that can be read"),
        (python2_pickle([1, 2]), "holds a list"),
        (python2_pickle({b"labels": [0, 1]}), "no 'data'"),
        (python2_pickle({b"data": planar(PIXELS[:2])[:, :100], b"labels": [0, 1]}), "no 'data' of 32x32"),
        (python2_pickle({b"data": planar(PIXELS[:2]) / 255, b"labels": [0, 1]}), "no 'data' of 32x32"),
        (python2_pickle({b"data": planar(PIXELS[:2]), b"labels": [0]}), "no 'labels' for each image"),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, batch: bytes, says: str) -> None:
    cifar10(tmp_path)
    (tmp_path / "data_batch_4").write_bytes(batch)
    said = refused("cifar10", tmp_path)
    assert f"{tmp_path / 'data_batch_4'}: " in said
    assert says in said


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files(tmp_path: Path, packed: bool, dot: str) -> None:
    grey, end = PIXELS[:, :28, :28, 0], ".gz" if packed else ""
    for stem, part in (("train", slice(50)), ("t10k", slice(50, None))):
        (tmp_path / f"{stem}-images{dot}idx3-ubyte{end}").write_bytes(idx(grey[part], packed))
        (tmp_path / f"{stem}-labels{dot}idx1-ubyte{end}").write_bytes(idx(np.array(LABELS[part]), packed))
    splits = load("fashion_mnist", tmp_path)
    for channel in range(3):
        assert np.array_equal(splits.need("train").pixels[:, channel], grey[:50])
    assert splits.need("test").labels.tolist() == LABELS[50:]
    assert splits.task.labels[9] == "Ankle boot"
    resized = load("fashion_mnist", tmp_path, size=32)
    assert resized.need("test").pixels.shape == (10, 3, 32, 32)
    assert any("50 images are resized to 32x32" in note for note in resized.notes)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (idx(PIXELS[:3, :, :, 0])[:-1], idx(np.array([0, 1, 2])), "images-idx3-ubyte: has 3,071 bytes"),
        (b"", idx(np.array([0])), "images-idx3-ubyte: is no idx file"),
        (idx(np.array([0, 1])), idx(np.array([0, 1])), "images-idx3-ubyte: is no idx file"),
        (idx(PIXELS[:3, :, :, 0]), idx(np.array([0, 1])), "labels-idx1-ubyte: has 2 labels for 3 images"),
        (idx(PIXELS[:3, :, :, 0]), None, "there is no train-labels"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, images: bytes, labels: bytes | None, says: str) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    if labels is not None:
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    assert says in refused("mnist", tmp_path)


def test_a_gz_that_is_cut_short(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[:, :, :, 0]))[:-20])
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array(LABELS))))
    assert "cannot be unpacked" in refused("mnist", tmp_path)


@pytest.mark.parametrize(
    "names", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"]
)
def test_npz_with_splits(tmp_path: Path, names: str) -> None:
    arrays = (PIXELS[:40], np.array(LABELS[:40])[:, None], PIXELS[40:] / 255, np.array(LABELS[40:]))
    np.savez(tmp_path / "set.npz", **dict(zip(names.split(), arrays, strict=True)))
    splits = load("images", tmp_path / "set.npz")
    assert torch.equal(splits.need("train").pixels, expected(slice(40)))
    assert torch.equal(splits.need("test").pixels, expected(slice(40, None)))
    assert splits.need("test").labels.tolist() == LABELS[40:]


def test_npz_files_by_split(tmp_path: Path) -> None:
    for name, part in (("train", slice(40)), ("val", slice(40, 50)), ("other", slice(50, None))):
        np.savez(tmp_path / f"{name}.npz", images=PIXELS[part], labels=np.array(LABELS[part]))
    splits = load("images", tmp_path)
    assert [len(splits.need("train")), len(splits.need("validation")), splits.test] == [40, 10, None]
    assert any("left out other.npz" in note for note in splits.notes)
    named = load("images", {"train": tmp_path / "train.npz", "test": str(tmp_path / "other.npz")})
    assert [len(named.need("train")), len(named.need("test"))] == [40, 10]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": PIXELS}, "has no images: a"),
        ({"images": PIXELS, "labels": np.eye(10)[LABELS]}, "labels of shape (60, 10)"),
        ({"images": PIXELS[:, 0], "labels": np.array(LABELS[:59])}, "labels of shape (59,)"),
        ({"images": PIXELS * 2.0, "labels": np.array(LABELS)}, "the pixels are float64"),
        ({"images": np.array([None] * 3), "labels": np.array([0, 1, 2])}, "cannot be read as npz"),
    ],
)
def test_an_npz_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    said = refused("images", tmp_path / "set.npz")
    assert "set.npz" in said
    assert says in said


def test_a_damaged_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=PIXELS, labels=np.array(LABELS))
    data = (tmp_path / "set.npz").read_bytes()
    for part in (data[:1000], b"", data[:2000] + b"x" + data[2001:]):
        (tmp_path / "set.npz").write_bytes(part)
        assert "cannot be read as npz" in refused("images", tmp_path / "set.npz")
