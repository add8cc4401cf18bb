"""Corruptions: repeatable image by image, equal to what simple formulas give, and CIFAR-10-C's files."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images.corruptions import (
    ALL_CORRUPTIONS,
    COMMON_CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    CorruptionReport,
    check_corruptible,
    corrupted,
    corruption_accuracy,
    load_cifar_c,
)

COMPILED = "glass_blur"  # compiled on first use, for seconds
RANDOM = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    *("glass_blur", "motion_blur", "snow", "frost", "fog", "spatter", "elastic_transform"),
}


def smooth(rows: int = 3, size: int = 32) -> ImageData:
    """Bright waves of colour."""
    y, x = np.mgrid[0:size, 0:size] / size
    images = [
        np.stack([np.sin(5 * x + k), np.cos(4 * y + k + row), np.sin(3 * (x + y))], -1)
        for row, k in enumerate(np.linspace(0, 2, rows))
    ]
    pixels = (127 + 90 * np.stack(images)).astype(np.uint8)
    return ImageData.from_arrays(pixels, [row % 2 for row in range(rows)])


class Bright(nn.Module):
    """Class 1 where the image is brighter than half."""

    def forward(self, pixels: Tensor) -> Tensor:
        mean = pixels.mean((1, 2, 3))
        return torch.stack([1 - mean, mean], 1)


SIZED = [
    pytest.param(name, size, marks=pytest.mark.slow) if (name, size) == (COMPILED, 48) else (name, size)
    for name in ALL_CORRUPTIONS
    for size in (32, 48)
]


@pytest.mark.parametrize(("name", "size"), SIZED)
def test_each_image_is_drawn_by_its_number_alone(name: str, size: int) -> None:
    pytest.importorskip("imagecorruptions")
    data, state = smooth(size=size), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    twins = data.select([0, 0, 2])
    found = corrupted(twins, name, 3, seed=7)
    assert found.pixels.shape == data.pixels.shape
    assert found.pixels.dtype == torch.uint8
    assert not torch.equal(found.pixels, twins.pixels)
    assert torch.equal(found.pixels, corrupted(twins, name, 3, seed=7).pixels)
    assert torch.equal(found.pixels[:1], corrupted(twins.select([0]), name, 3, seed=7).pixels)
    assert torch.equal(found.pixels[0], found.pixels[1]) is (name not in RANDOM)
    assert torch.equal(found.pixels, corrupted(twins, name, 3, seed=8).pixels) is (name not in RANDOM)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # type: ignore[arg-type]


def test_beyond_32_pixels_the_strengths_are_imagenet_c_s() -> None:
    pytest.importorskip("imagecorruptions")
    data = smooth(1, 64)
    x = data.pixels[0].permute(1, 2, 0).numpy()
    mean = (x / 255).mean((0, 1), keepdims=True)
    contrast = np.uint8(np.clip((x / 255 - mean) * 0.2 + mean, 0, 1) * 255)
    np.testing.assert_array_equal(corrupted(data, "contrast", 3).pixels[0].permute(1, 2, 0).numpy(), contrast)
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "JPEG", quality=18)
    expected = np.asarray(Image.open(buffer))
    np.testing.assert_array_equal(corrupted(data, "jpeg_compression", 2).pixels[0].permute(1, 2, 0).numpy(), expected)
    noise = corrupted(smooth(3, 64), "gaussian_noise", 1).pixels.float() - smooth(3, 64).pixels.float()
    assert float(noise.std()) == pytest.approx(255 * 0.08, rel=0.03)


def test_higher_severities_are_further_away() -> None:
    pytest.importorskip("imagecorruptions")
    data = smooth()
    for name in ("gaussian_noise", "gaussian_blur", "contrast", "shot_noise"):
        away = [(corrupted(data, name, s).pixels.float() - data.pixels).abs().mean().item() for s in SEVERITIES]
        assert away == sorted(away), name


def cifar_c(folder: Path, names: tuple[str, ...], n: int = 4) -> np.ndarray:
    """A folder like CIFAR-10-C's: at severity s every image is as bright as 50 s, and 0 for the last corruption."""
    levels = np.repeat(np.arange(1, 6), n)
    for name in names:
        shade = (50 * levels if name != names[-1] else 0 * levels).astype(np.uint8)
        np.save(folder / f"{name}.npy", np.broadcast_to(shade[:, None, None, None], (5 * n, 32, 32, 3)).copy())
    labels = np.tile([1, 1, 1, 0], 5 * n // 4).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    return labels


def test_accuracy_from_cifar_10_c_s_files(tmp_path: Path) -> None:
    cifar_c(tmp_path, ALL_CORRUPTIONS)
    told: list[int] = []
    report = corruption_accuracy(Bright(), tmp_path, corruptions=ALL_CORRUPTIONS, batch_size=3, progress=told.append)
    # Darker than half up to severity 2, where only the last of four rows is right; brighter from 3 on.
    assert report.accuracy["fog"] == {1: 25.0, 2: 25.0, 3: 75.0, 4: 75.0, 5: 75.0}
    assert report.accuracy["saturate"] == dict.fromkeys(SEVERITIES, 25.0)
    assert report.mean_common == pytest.approx(55.0)
    assert report.mean_all == pytest.approx((18 * 55 + 25) / 19)
    assert (report.n, report.source, report.seed, sum(told)) == (4, "cifar-c", None, 19 * 5 * 4)
    assert report.metrics["accuracy@19_corruptions"] == report.mean_all
    assert json.loads(json.dumps(report.to_dict()))["accuracy"]["fog"]["3"] == 75.0


def test_a_severity_is_its_part_of_the_file(tmp_path: Path) -> None:
    cifar_c(tmp_path, ("fog", "snow"))
    found = load_cifar_c(tmp_path, "fog", 4)
    assert found.pixels.shape == (4, 3, 32, 32)
    assert found.pixels.unique().tolist() == [200]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 1, 1, 0]


def test_the_means_are_of_all_or_none(tmp_path: Path) -> None:
    cifar_c(tmp_path, ALL_CORRUPTIONS)
    report = corruption_accuracy(Bright(), tmp_path, corruptions=COMMON_CORRUPTIONS, severities=(1, 3))
    assert (report.mean_common, report.mean_all) == (None, None)
    assert report.by_corruption["fog"] == 50.0
    assert "accuracy@15_corruptions" not in report.metrics
    assert (len(COMMON_CORRUPTIONS), len(EXTRA_CORRUPTIONS), len(set(ALL_CORRUPTIONS))) == (15, 4, 19)
    assert isinstance(report, CorruptionReport)


def test_accuracy_on_images_that_are_corrupted_here_does_not_depend_on_the_batch() -> None:
    pytest.importorskip("imagecorruptions")
    data, names = smooth(6), ("shot_noise", "fog")
    one = corruption_accuracy(Bright(), data, corruptions=names, severities=(2, 5), batch_size=1)
    all_at_once = corruption_accuracy(Bright(), data, corruptions=names, severities=(5, 2))
    assert one == all_at_once
    assert (one.source, one.seed) == ("cifar-c-parameters", 0)


@pytest.mark.parametrize(
    ("size", "source", "before", "says"),
    [(32, "cifar-c-parameters", "", "CIFAR-10-C's"), (48, "imagenet-c-parameters", "imagenet_c_", "ImageNet-C's")],
)
def test_figures_of_other_strengths_have_another_name(size: int, source: str, before: str, says: str) -> None:
    pytest.importorskip("imagecorruptions")
    report = corruption_accuracy(Bright(), smooth(2, size), corruptions=["contrast"])
    assert (report.source, list(report.metrics)) == (source, [f"accuracy@{before}contrast"])
    assert says in report.notes[0]
    assert report.to_dict()["source"] == source
    whole = CorruptionReport({name: dict.fromkeys(SEVERITIES, 1.0) for name in ALL_CORRUPTIONS}, 2, source, 0)
    assert {f"accuracy@{before}{n}_corruptions" for n in (15, 19)} <= whole.metrics.keys()


def test_images_of_mnist_s_size_are_padded_and_cut_back() -> None:
    pytest.importorskip("imagecorruptions")
    data = smooth(2, 28)
    found = corrupted(data, "pixelate", 3)
    assert found.pixels.shape == data.pixels.shape
    by_hand = np.pad(data.pixels.permute(0, 2, 3, 1).numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    whole = corrupted(ImageData.from_arrays(by_hand, data.labels), "pixelate", 3)
    assert torch.equal(found.pixels, whole.pixels[:, :, 2:30, 2:30])
    report = corruption_accuracy(Bright(), data, corruptions=["contrast"], severities=[1])
    assert report.notes[1:] == ["images of 28 x 28 were padded to 32 for the corruptions, and cut back"]
    assert len(corruption_accuracy(Bright(), smooth(2), corruptions=["contrast"], severities=[1]).notes) == 1
    odd = ImageData.from_arrays(np.zeros((1, 40, 29, 3), np.uint8), [0])
    assert corrupted(odd, "contrast", 1).pixels.shape == (1, 3, 40, 29)


def test_only_some_rows_are_corrupted_the_same_ones_each_time(tmp_path: Path) -> None:
    cifar_c(tmp_path, ("fog", "snow"), n=8)
    labels = np.load(tmp_path / "labels.npy")[:8]
    told: list[int] = []
    report = corruption_accuracy(Bright(), tmp_path, corruptions=["fog"], rows=4, seed=1, progress=told.append)
    drawn = ImageData.from_arrays(np.zeros((8, 4, 4, 3), np.uint8), labels).sample(4, 1)
    assert drawn.labels is not None
    ones = 25.0 * int((drawn.labels == 1).sum())
    assert report.accuracy["fog"] == {1: 100 - ones, 2: 100 - ones, 3: ones, 4: ones, 5: ones}
    assert (report.n, sum(told)) == (4, 4 * 5)


def test_files_are_looked_for_before_anything_is_measured(tmp_path: Path) -> None:
    cifar_c(tmp_path, ("fog", "snow"))
    assert check_corruptible(tmp_path, ["fog"]) == []
    told: list[int] = []
    with pytest.raises(UserError, match=r"frost\.npy"):
        corruption_accuracy(Bright(), tmp_path, corruptions=["fog", "frost"], progress=told.append)
    assert told == []


def test_the_names_are_the_package_s() -> None:
    package = pytest.importorskip("imagecorruptions")
    assert tuple(package.get_corruption_names("common")) == COMMON_CORRUPTIONS
    assert tuple(package.get_corruption_names("validation")) == EXTRA_CORRUPTIONS


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = smooth()
    for wrong, says in (
        ({"corruptions": ["rain"]}, "rain"),
        ({"severities": [0]}, "1 to 5"),
        ({"corruptions": []}, "no"),
    ):
        with pytest.raises(UserError, match=says):
            corruption_accuracy(Bright(), data, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="needs labels"):
        corruption_accuracy(Bright(), ImageData(data.pixels, None, None))
    with pytest.raises(UserError, match="too small"):
        corrupted(smooth(size=16), "fog", 1)
    with pytest.raises(UserError, match=r"fog\.npy: cannot be read"):
        load_cifar_c(tmp_path, "fog", 1)
    cifar_c(tmp_path, ("fog", "snow"))
    np.save(tmp_path / "labels.npy", np.zeros(3))
    with pytest.raises(UserError, match="five severities"):
        load_cifar_c(tmp_path, "fog", 1)
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(UserError, match=r"contraverse\[images\]"):
        corrupted(data, "fog", 1)
