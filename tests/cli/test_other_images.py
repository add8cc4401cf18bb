"""A run on images of another folder, or of another size, than it was trained on."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference.image_files import FEW, encoded, read

from contraverse.models import ImageModel

SHADES = {"dark": 20, "light": 200}


def write(folder: Path, counts: dict[str, int], size: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    """``{"dark": 3}``: three images ``dark/0.png``, ... of ``size``, height and width."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = SHADES.get(name, 100) + random.integers(0, 40, (*size, 3))
            (folder / name / f"{i}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without splits."""
    return write(tmp_path_factory.mktemp("data") / "photos", {"dark": 10, "light": 10})


@pytest.fixture
def run(invoke: Any, data: Path, tmp_path: Path) -> Path:
    args = ("--task", "images", "--data", data, "--model", "resnet8", "--set", "evaluation.epsilons=[]")
    invoke("train", "ce", *args, *FEW, "--output", tmp_path / "run")
    return tmp_path / "run"


def rows_of(invoke: Any, run: Path, *args: object) -> tuple[int, str]:
    """How many images were measured, and what was said."""
    output = run.parent / "e.json"
    done = invoke("evaluate", run, "--eps", "none", "--output", output, "--force", *args)
    return read(output)["rows"], done.stderr


def test_a_folder_without_splits_is_the_split_that_was_asked_for(
    invoke: Any, run: Path, data: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", {"dark": 7, "light": 5}, seed=1)
    for split in ("test", "validation", "train"):
        rows, said = rows_of(invoke, run, "--data", other, "--split", split)
        assert rows == 12
        assert "set aside" not in said
        assert "no labelled test split" not in said
    assert rows_of(invoke, run / "model", "--data", other)[0] == 12  # a model without its run
    # One class, and one that comes first in another order, keep the numbers that the model gives them.
    write(tmp_path / "lights", {"light": 4}, seed=2)
    invoke("evaluate", run, "--data", tmp_path / "lights", "--eps", "none", "--output", tmp_path / "l.json")
    by_model = ImageModel.load(run / "model").plain()
    pixels = np.stack([np.array(Image.open(file)) for file in sorted((tmp_path / "lights").rglob("*.png"))])
    import torch

    right = by_model(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).argmax(1) == 1
    assert read(tmp_path / "l.json")["metrics"]["accuracy"] == pytest.approx(100 * right.float().mean().item())
    # Its own folder is split as it was for training, however the path is written.
    assert rows_of(invoke, run, "--split", "validation")[0] == 2
    assert rows_of(invoke, run, "--data", f"{data}/../photos/", "--split", "validation")[0] == 2
    refused = invoke("evaluate", run, "--data", data, "--eps", "none", code=2)
    assert "no test images with labels" in refused.stderr


def test_a_folder_with_splits_keeps_them(invoke: Any, run: Path, tmp_path: Path) -> None:
    write(tmp_path / "two" / "train", {"dark": 4, "light": 4})
    write(tmp_path / "two" / "test", {"dark": 2, "light": 1}, seed=3)
    assert rows_of(invoke, run, "--data", tmp_path / "two")[0] == 3
    write(tmp_path / "one" / "test", {"dark": 2, "light": 3}, seed=3)  # and nothing but test images
    assert rows_of(invoke, run, "--data", tmp_path / "one")[0] == 5
    refused = invoke("evaluate", run, "--data", tmp_path / "one", "--split", "validation", "--eps", "none", code=2)
    assert "take --split test" in refused.stderr


def test_a_folder_in_a_folder_is_named(invoke: Any, run: Path, tmp_path: Path) -> None:
    inner = write(tmp_path / "zip" / "photos", {"dark": 5, "light": 5})
    args = ("--task", "images", "--data", tmp_path / "zip", "--model", "resnet8", "--dry-run")
    for command in (("train", "ce", *args), ("evaluate", run, "--data", tmp_path / "zip", "--eps", "none")):
        assert f"give --data {inner}?" in invoke(*command, code=2).stderr
    write(tmp_path / "single", {"dark": 5})
    said = invoke("train", "ce", "--task", "images", "--data", tmp_path / "single", "--dry-run", code=2).stderr
    assert "at least two classes" in said


def test_images_of_another_size_are_scaled_to_the_trained_one(invoke: Any, run: Path, tmp_path: Path) -> None:
    assert read(run / "model" / "contraverse.json")["image_size"] == [16, 16]
    big = write(tmp_path / "big", {"dark": 3, "light": 3}, size=(60, 90))
    normalize_grad = tmp_path / "scaled"
    for file in big.rglob("*.png"):
        target = normalize_grad / file.relative_to(big)
        target.parent.mkdir(parents=True, exist_ok=True)
        middle = Image.open(file).crop((15, 0, 75, 60))
        middle.resize((16, 16), Image.Resampling.BILINEAR).save(target)
    for command, suffix in (("predict", "csv"), ("encode", "npy")):
        for folder in (big, normalize_grad):
            done = invoke(command, run, folder, "--output", tmp_path / f"{folder.name}.{suffix}")
            assert ("scaled to that" in done.stderr) == (folder == big)
    found, expected = (
        [(row["label"], row["probability"]) for row in csv.DictReader((tmp_path / f"{name}.csv").open())]
        for name in ("big", "scaled")
    )
    assert [label for label, _ in found] == [label for label, _ in expected]
    np.testing.assert_allclose(np.load(tmp_path / "big.npy"), np.load(tmp_path / "scaled.npy"), atol=0.02)
    rows, said = rows_of(invoke, run, "--data", big)
    assert rows == 6
    assert "The model was trained on images of 16 x 16, and these were scaled to that" in said
    mixed = write(tmp_path / "mixed", {"dark": 2, "light": 2}, size=(16, 16))
    Image.new("RGB", (40, 20)).save(mixed / "dark" / "wide.png")
    assert rows_of(invoke, run, "--data", mixed)[0] == 5
    # Another size that is asked for is taken, and warned of.
    done = invoke("predict", run, big, "--size", 24, "--output", tmp_path / "asked.csv")
    assert "trained on images of 16 x 16, and these are 24 x 24" in done.stderr
