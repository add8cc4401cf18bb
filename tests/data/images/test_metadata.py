"""The conventions of `datasets` for folders of images: metadata tables, and the data/ folder of a repository."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from contraverse.data.images import ImageData, load_images
from contraverse.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
LABELS = ["dog", "cat", "dog", "cat"]


def pictures(folder: Path, first: int = 0, count: int = 4) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i}.png" for i in range(first, first + count)]
    for i, name in enumerate(names, start=first):
        Image.fromarray(PIXELS[i]).save(folder / name)
    return names


def table(folder: Path, names: list[str], labels: list[str], kind: str = "csv", column: str = "label") -> None:
    rows = [{"file_name": name, column: label} for name, label in zip(names, labels, strict=True)]
    if kind == "csv":
        lines = [f"file_name,{column}", *(f"{row['file_name']},{row[column]}" for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        datasets.Dataset.from_list(rows).to_parquet(str(folder / "metadata.parquet"))


def shown(data: ImageData) -> np.ndarray:
    return data.pixels.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_beside_the_images_has_their_classes(tmp_path: Path, kind: str) -> None:
    names = pictures(tmp_path)
    table(tmp_path, names[::-1], LABELS[::-1], kind)
    train = load_images("images", tmp_path, validation_fraction=0).need("train")
    assert train.label_names == ("cat", "dog")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert np.array_equal(shown(train), PIXELS[[3, 2, 1, 0]])


def test_each_split_has_a_table_of_its_own(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 4)):
        names = pictures(tmp_path / split, first)
        table(tmp_path / split, names, LABELS)
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert np.array_equal(shown(splits.need("train")), PIXELS[:4])
    assert np.array_equal(shown(splits.need("test")), PIXELS[4:])
    assert splits.need("test").labels is not None


def test_one_table_may_list_the_images_of_all_splits(tmp_path: Path) -> None:
    names = [f"train/{name}" for name in pictures(tmp_path / "train")]
    names += [f"test/{name}" for name in pictures(tmp_path / "test", 4)]
    table(tmp_path, names, LABELS * 2)
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert np.array_equal(shown(splits.need("train")), PIXELS[:4])
    assert np.array_equal(shown(splits.need("test")), PIXELS[4:])


def test_the_column_of_the_classes_can_be_named(tmp_path: Path) -> None:
    table(tmp_path, pictures(tmp_path), LABELS, column="species")
    train = load_images("images", tmp_path, label="species", validation_fraction=0).need("train")
    assert train.label_names == ("cat", "dog")


def test_what_a_table_lacks_is_named(tmp_path: Path) -> None:
    names = pictures(tmp_path)
    table(tmp_path, [*names[:3], "none.png"], LABELS)
    with pytest.raises(UserError, match=r"none\.png: there is no such file"):
        load_images("images", tmp_path)
    splits = load_images("images", tmp_path, on_bad_row="skip", validation_fraction=0)
    assert len(splits.need("train")) == 3
    assert any("left out 1 images that are not in metadata.csv" in note for note in splits.notes)
    table(tmp_path, ["../away.png", *names], ["dog", *LABELS])
    with pytest.raises(UserError, match=r"leads out of the folder: '\.\./away\.png'"):
        load_images("images", tmp_path)
    table(tmp_path, ["", *names], ["dog", *LABELS])
    with pytest.raises(UserError, match="line 2: 'file_name' is missing"):
        load_images("images", tmp_path)


def test_a_table_without_classes_leaves_them_to_the_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pictures(tmp_path / name, 4 * (name == "b"))
    table(tmp_path, ["a/0.png"], ["x"], column="caption")
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert splits.need("train").label_names == ("a", "b")
    assert any("metadata.csv: has no column 'label'" in note for note in splits.notes)


@pytest.mark.parametrize("inner", ["data", "plants"])
def test_parquet_in_the_data_folder_of_a_repository(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("---\n")
    for split, first in (("train", 0), ("test", 4)):
        images = [Image.fromarray(one) for one in PIXELS[first : first + 4]]
        rows = datasets.Dataset.from_dict({"image": images, "label": [1, 0, 1, 0]})
        rows = rows.cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))
        rows.select([0, 1]).to_parquet(str(tmp_path / inner / f"{split}-00000-of-00002.parquet"))
        rows.select([2, 3]).to_parquet(str(tmp_path / inner / f"{split}-00001-of-00002.parquet"))
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert np.array_equal(shown(splits.need("train")), PIXELS[:4])
    assert np.array_equal(shown(splits.need("test")), PIXELS[4:])
    assert splits.need("train").label_names == ("dog", "cat")
    assert any(f"its files are those of {inner}/" in note for note in splits.notes)
