"""`ImageData.from_folder`, `from_arrays` and `from_dataset`: images as Python takes them."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.types import UNLABELLED

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
PICTURES = [Image.fromarray(one) for one in PIXELS]


def folder(root: Path, classes: list[str]) -> Path:
    for i, (name, picture) in enumerate(zip(classes, PICTURES, strict=False)):
        (root / name).mkdir(parents=True, exist_ok=True)
        picture.save(root / name / f"{i}.png")
    return root


def hub(labels: list[Any], names: list[str] | None = None) -> datasets.Dataset:
    rows = datasets.Dataset.from_dict({"image": PICTURES[: len(labels)], "label": labels})
    return rows if names is None else rows.cast_column("label", datasets.ClassLabel(names=names))


def shown(data: ImageData) -> np.ndarray:
    return data.pixels.permute(0, 2, 3, 1).numpy()


def test_a_folder_of_classes(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path, ["class10", "class2", "class10"]))
    assert data.label_names == ("class2", "class10")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    assert np.array_equal(shown(data), PIXELS[[1, 0, 2]])
    named = ImageData.from_folder(tmp_path, label_names=["class10", "none", "class2"])
    assert named.labels is not None
    assert named.labels.tolist() == [2, 0, 0]
    assert ImageData.from_folder(tmp_path, size=4).pixels.shape == (3, 3, 4, 4)


def test_a_folder_of_splits_is_not_one_set(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder(tmp_path / split, ["a", "b"])
    with pytest.raises(UserError, match="holds the splits train, test"):
        ImageData.from_folder(tmp_path)
    assert len(ImageData.from_folder(tmp_path / "test")) == 2


def test_what_cannot_be_read_in_a_folder_is_named(tmp_path: Path) -> None:
    folder(tmp_path, ["a", "b", "a"])
    (tmp_path / "a" / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"torn\.png: is no image") as error:
        ImageData.from_folder(tmp_path)
    assert error.value.hint == 'Mend them, or leave them out with on_bad_row="skip".'
    data = ImageData.from_folder(tmp_path, on_bad_row="skip")
    assert len(data) == 3
    assert any("torn.png" in note for note in data.notes)
    with pytest.raises(UserError, match="there is no such file or folder"):
        ImageData.from_folder(tmp_path / "none")
    Image.new("RGB", (4, 4)).save(tmp_path / "b" / "small.png")
    with pytest.raises(UserError, match="size=32"):
        ImageData.from_folder(tmp_path, on_bad_row="skip")


@pytest.mark.parametrize("names", [None, ["z", "b", "a"]])
def test_a_dataset_of_pillow_images(names: list[str] | None) -> None:
    data = ImageData.from_dataset(hub([1, 0, -1, 2], names))
    assert data.label_names == (tuple(names) if names else ("0", "1", "2"))
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, UNLABELLED, 2]
    assert np.array_equal(shown(data), PIXELS[:4])


def test_a_dataset_of_strings_and_of_no_labels() -> None:
    named = ImageData.from_dataset(hub(["dog", "cat"]))
    assert named.label_names == ("cat", "dog")
    assert named.labels is not None
    assert named.labels.tolist() == [1, 0]
    assert ImageData.from_dataset(hub([-1, -1], ["a", "b"])).labels is None
    assert ImageData.from_dataset(hub([0, 1]).remove_columns("label")).labels is None


def test_a_dataset_of_arrays_and_columns_of_other_names() -> None:
    rows = datasets.Dataset.from_dict({"pic": PIXELS[:2].tolist(), "kind": ["a", "b"]})
    data = ImageData.from_dataset(rows, image="pic", label="kind")
    assert np.array_equal(shown(data), PIXELS[:2])
    with pytest.raises(UserError, match="no column is called image") as error:
        ImageData.from_dataset(rows)
    assert "--" not in str(error.value)


def test_files_that_datasets_found_are_read(tmp_path: Path) -> None:
    folder(tmp_path / "images", ["a", "b", "a"])
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), split="train", cache_dir=str(tmp_path / "cache")
    )
    data = ImageData.from_dataset(rows)
    assert data.label_names == ("a", "b")
    assert np.array_equal(shown(data), PIXELS[[0, 2, 1]])


def test_a_dataset_dict_becomes_splits() -> None:
    splits = ImageData.from_dataset(
        datasets.DatasetDict({"train": hub([1, 0], ["x", "y"]), "test": hub([0], ["x", "y"])})
    )
    assert splits.need("test").label_names == ("x", "y")
    assert splits.task.labels == ("x", "y")
    with pytest.raises(UserError, match="a Dataset or DatasetDict of datasets is wanted, not a list"):
        ImageData.from_dataset([])


def test_arrays_with_names_of_classes() -> None:
    data = ImageData.from_arrays(PIXELS[:3], ["c10", "c2", "c10"])
    assert data.label_names == ("c2", "c10")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1]
    assert torch.equal(ImageData.from_arrays(PICTURES).pixels, ImageData.from_arrays(PIXELS).pixels)
    with pytest.raises(UserError, match="image 1: label 'c2' is none of the 1 classes"):
        ImageData.from_arrays(PIXELS[:3], ["c10", "c2", "c10"], ["c10"])


def test_it_shows_itself_in_one_line() -> None:
    assert repr(ImageData.from_arrays(PIXELS, [0] * 6)) == "ImageData(6 images of 3 x 8 x 8, 1 classes, from memory)"
