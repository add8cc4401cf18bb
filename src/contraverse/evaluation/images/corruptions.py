"""Accuracy under common corruptions (Hendrycks and Dietterich, 2019): CIFAR-10-C's files, or made on the fly.

Made on the fly, images of 32 x 32 are corrupted with the strengths of CIFAR-10-C, and all others with those of
ImageNet-C, which on small images are harder: these figures have names of their own.

ACL (Fig. 2) calls the 19 corruptions of CIFAR-10-C "unforeseen attacks"; leaderboards average the first 15 of them. The
attacks that Kang et al. call unforeseen are in `contraverse.evaluation.images.unforeseen`.
"""

import contextlib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images import cifar_corruptions
from contraverse.evaluation.images.pixels import as_classifier, labels_of, right
from contraverse.evaluation.predict import Progress
from contraverse.functional import all_parts, by_itself, my_share
from contraverse.types import BNBranch

COMMON_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 corruptions that benchmarks average: noise, blur, weather, digital."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that were held out."""

ALL_CORRUPTIONS = COMMON_CORRUPTIONS + EXTRA_CORRUPTIONS
"""All 19, ACL's "unforeseen attacks"."""

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST, PADDED_FROM = 32, 28
"""Sides that the corruptions take, and those that are padded for them: MNIST's."""

FILES, CIFAR_C, IMAGENET_C = "cifar-c", "cifar-c-parameters", "imagenet-c-parameters"
MADE_WITH = {
    CIFAR_C: "corruptions were made here with CIFAR-10-C's published parameters, and are not drawn as its files are",
    IMAGENET_C: "corruptions were made here with ImageNet-C's parameters for 224 x 224, on smaller images harder than "
    "CIFAR-10-C's: not to be compared with figures on either benchmark",
}
"""Note on figures on images that were made."""


@dataclass(frozen=True)
class CorruptionReport:
    """Accuracy in percent.

    Attributes:
        accuracy: by corruption, then by severity.
        n: how many images each of them is measured on.
        source: ``"cifar-c"``, from files; ``"cifar-c-parameters"``, made with the strengths of CIFAR-10-C; or
            ``"imagenet-c-parameters"``, made with ImageNet-C's.
        seed: of the corruptions; None for files.
        notes: remarks for a reader of the figures, a sentence each.
    """

    accuracy: dict[str, dict[int, float]] = field(repr=False)
    n: int
    source: str
    seed: int | None
    notes: list[str] = field(default_factory=list)

    @property
    def by_corruption(self) -> dict[str, float]:
        """Mean over the severities that were measured."""
        return {name: float(np.mean(list(by_severity.values()))) for name, by_severity in self.accuracy.items()}

    def mean(self, corruptions: Sequence[str]) -> float | None:
        """Mean over these corruptions at all five severities; None unless each of them was measured."""
        if any(set(self.accuracy.get(name, ())) != set(SEVERITIES) for name in corruptions):
            return None
        return float(np.mean([self.by_corruption[name] for name in corruptions]))

    @property
    def mean_common(self) -> float | None:
        """Mean over the 15 of `COMMON_CORRUPTIONS`: what benchmarks call corruption accuracy."""
        return self.mean(COMMON_CORRUPTIONS)

    @property
    def mean_all(self) -> float | None:
        """Mean over all 19: what ACL averages in Fig. 2."""
        return self.mean(ALL_CORRUPTIONS)

    @property
    def metrics(self) -> dict[str, float]:
        """``accuracy@<corruption>``, and ``accuracy@15_corruptions`` (and 19) where all of them were measured.

        With ImageNet-C's strengths they are called ``accuracy@imagenet_c_<corruption>``.
        """
        values = self.by_corruption | {"15_corruptions": self.mean_common, "19_corruptions": self.mean_all}
        before = "imagenet_c_" if self.source == IMAGENET_C else ""
        return {f"accuracy@{before}{name}": value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "n": self.n,
            "seed": self.seed,
            "accuracy": {
                name: {str(s): value for s, value in by_severity.items()} for name, by_severity in self.accuracy.items()
            },
            "mean_15": self.mean_common,
            "mean_19": self.mean_all,
            "notes": self.notes,
        }


def corruption_accuracy(
    model: nn.Module,
    data: ImageData | str | Path,
    *,
    corruptions: Sequence[str] = COMMON_CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    rows: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    bn_branch: BNBranch = "adversarial",
    progress: Progress | None = None,
) -> CorruptionReport:
    """Accuracy on corrupted images, by corruption and severity.

    Args:
        model: an `ImageModel`, or any module from pixels in [0, 1] to logits; left as it was.
        data: labelled images, which are corrupted here, see `corrupted`; or a folder of CIFAR-10-C's (CIFAR-100-C's)
            ``.npy`` files. `CorruptionReport.source` says which strengths they have.
        corruptions: names of `ALL_CORRUPTIONS`.
        severities: 1 (weak) to 5.
        rows: number of images, the same ones for every corruption, drawn by ``seed``; None for all.
        seed: of the corruptions made here.
        batch_size: images a batch; the result does not depend on it.
        bn_branch: which set of a dual model's batch norms.
        progress: called with the number of classified images; in all, images x corruptions x severities.

    Raises:
        UserError: no such corruption or severity, no labels, a file that is missing or is no CIFAR-10-C, images too
            small to corrupt, or imagecorruptions-imaug is not installed.
    """
    names, levels = _checked(corruptions, severities)
    accuracy: dict[str, dict[int, float]] = {name: {} for name in names}
    notes = check_corruptible(data, names)
    if isinstance(data, ImageData):
        labels_of(data)
        data = data.sample(rows, seed) if rows is not None else data
    kinds = list(itertools.product(names, levels))
    # Whole corruptions are shared out over processes: making one takes longer than classifying it.
    shares, parts = my_share(kinds), []
    with as_classifier(model, bn_branch, seed) as classifier, by_itself():
        for name, severity in shares:
            if isinstance(data, ImageData):
                images = corrupted(data, name, severity, seed)
            else:
                images = load_cifar_c(data, name, severity)
                images = images.sample(rows, seed) if rows is not None else images
            correct = right(classifier, images.pixels, labels_of(images), batch_size, progress)
            parts.append((name, severity, len(images), 100 * float(correct.mean())))
    parts = sorted(all_parts(parts), key=lambda part: kinds.index(part[:2]))
    for name, severity, _, percent in parts:
        accuracy[name][severity] = percent
    n = parts[-1][2]
    if progress and len(shares) < len(kinds):
        progress(n * (len(kinds) - len(shares)))
    if not isinstance(data, ImageData):
        return CorruptionReport(accuracy, n, FILES, None, notes)
    return CorruptionReport(accuracy, n, strengths_of(data), seed, notes)


def check_corruptible(data: ImageData | str | Path, corruptions: Sequence[str] = ALL_CORRUPTIONS) -> list[str]:
    """Check at once that `corruption_accuracy` can run, and return notes for a reader of its figures.

    Raises:
        UserError: images too small, a file of ``corruptions`` that is missing, or imagecorruptions-imaug is.
    """
    names, _ = _checked(corruptions, SEVERITIES)
    if not isinstance(data, ImageData):
        for name in (*names, "labels"):
            _array(Path(data) / f"{name}.npy")
        return []
    height, width = data.pixels.shape[2:]
    if min(height, width) < PADDED_FROM:
        raise UserError(
            f"images of {height} x {width} are too small to corrupt",
            where=data.source,
            hint=f"each side needs {PADDED_FROM} pixels or more",
        )
    _package()
    notes = [MADE_WITH[strengths_of(data)]]
    if min(height, width) < SMALLEST:
        notes.append(f"images of {height} x {width} were padded to {SMALLEST} for the corruptions, and cut back")
    return notes


def strengths_of(data: ImageData) -> str:
    """The parameters that images are corrupted with: CIFAR-10-C's up to 32 x 32, ImageNet-C's beyond."""
    return CIFAR_C if max(data.pixels.shape[2:]) <= SMALLEST else IMAGENET_C


def load_cifar_c(folder: str | Path, corruption: str, severity: int) -> ImageData:
    """One corruption at one severity from CIFAR-10-C's or CIFAR-100-C's files.

    ``<corruption>.npy`` holds five severities of the whole test part after one another, (5 N, 32, 32, 3) of bytes,
    ``labels.npy`` their classes.

    Raises:
        UserError: a file is missing or holds something else.
    """
    (name,), (level,) = _checked([corruption], [severity])
    images, labels = _array(Path(folder) / f"{name}.npy"), _array(Path(folder) / "labels.npy")
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) % 5 or labels.shape != (len(images),):
        raise UserError(
            f"{name}.npy has shape {images.shape} and type {images.dtype}, labels.npy {labels.shape}",
            where=str(folder),
            hint="CIFAR-10-C has five severities of 10,000 images of bytes and a label for each",
        )
    n = len(images) // 5
    part = slice((level - 1) * n, level * n)
    names = [str(i) for i in range(int(labels.max()) + 1)]
    return ImageData.from_arrays(np.array(images[part]), np.array(labels[part]), names)


def corrupted(data: ImageData, corruption: str, severity: int, seed: int = 0) -> ImageData:
    """``data`` with one corruption.

    Images of 32 x 32 are corrupted as CIFAR-10-C's were (`contraverse.evaluation.images.cifar_corruptions`). Larger
    ones are by the package imagecorruptions-imaug, with ImageNet-C's strengths, which were set for images of 224
    pixels. Random numbers depend on ``seed``, corruption, severity and the image's number alone. From 28 pixels on
    (MNIST) an image is padded to 32 by its edge, and cut back.

    Args:
        data: images of at least 28 x 28.
        corruption: of `ALL_CORRUPTIONS`.
        severity: 1 to 5.
        seed: >= 0.

    Raises:
        UserError: no such corruption or severity, images too small, or the package is not installed.
    """
    (name,), (level,) = _checked([corruption], [severity])
    check_corruptible(data, [name])
    height, width = data.pixels.shape[2:]
    top, left = (max(0, SMALLEST - side) // 2 for side in (height, width))
    bottom, beside = (max(0, SMALLEST - side) - before for side, before in ((height, top), (width, left)))
    images = data.pixels.permute(0, 2, 3, 1).numpy()
    images = np.pad(images, ((0, 0), (top, bottom), (left, beside), (0, 0)), mode="edge")
    made_by = _by_cifar_c if strengths_of(data) == CIFAR_C else _by_imagenet_c
    made = [
        made_by(image, name, level, np.random.SeedSequence([seed, ALL_CORRUPTIONS.index(name), level, row]))
        for row, image in enumerate(images)
    ]
    cut = np.stack(made)[:, top : top + height, left : left + width]
    pixels = torch.from_numpy(cut).permute(0, 3, 1, 2).contiguous()
    return ImageData(pixels, data.labels, data.label_names, data.source)


def _by_cifar_c(image: np.ndarray, name: str, severity: int, seed: np.random.SeedSequence) -> np.ndarray:
    return cifar_corruptions.corrupt(image, name, severity, np.random.default_rng(seed))


def _by_imagenet_c(image: np.ndarray, name: str, severity: int, seed: np.random.SeedSequence) -> np.ndarray:
    drawn = int(seed.generate_state(1)[0])
    own = {"seed": drawn} if name in ("glass_blur", "impulse_noise") else {}
    with _quiet():
        np.random.seed(drawn)
        image = np.ascontiguousarray(image)
        made: np.ndarray = _package().corrupt(image, severity=severity, corruption_name=name, **own)
    return made


def _checked(corruptions: Sequence[str], severities: Sequence[int]) -> tuple[list[str], list[int]]:
    if not corruptions or (unknown := set(corruptions) - set(ALL_CORRUPTIONS)):
        raise UserError(
            f"no corruption is called {sorted(unknown)[0]!r}" if corruptions else "no corruption is named",
            hint=f"choose from {', '.join(ALL_CORRUPTIONS)}",
        )
    if not severities or not set(severities) <= set(SEVERITIES):
        raise UserError(f"severities are 1 to 5, not {list(severities)}")
    return list(dict.fromkeys(corruptions)), sorted(set(severities))


def _array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"cannot be read: {error}", where=str(path), hint="unpack CIFAR-10-C.tar and name its folder"
        ) from error
    return array


def _package() -> Any:
    try:
        import imagecorruptions
    except ImportError as error:
        raise UserError(
            "corruptions are made by the package imagecorruptions-imaug",
            hint="pip install 'contraverse[images]', or name a folder of CIFAR-10-C's files",
        ) from error
    return imagecorruptions


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package draws from NumPy's global state, which is put back, and prints when it pads a blur."""
    state = np.random.get_state()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        np.random.set_state(state)
