"""Training images without a label: what says that there is none, and where such images may not go."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from reference.image_files import PIXELS, encoded, write_folder

from contraverse.data import ImageData, load_images
from contraverse.errors import UserError
from contraverse.types import UNLABELLED

FILES = [encoded(one[:8, :8]) for one in PIXELS[:40]]


def table(path: Path, labels: Any, rows: slice = slice(40), **more: Any) -> Path:
    parquet.write_table(pa.table({"image": FILES[rows], "label": labels, **more}), path)
    return path


def refused(source: Any, task: str = "images", **arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        load_images(task, source, **arguments)
    return str(error.value)


def numbers(data: ImageData) -> list[int]:
    """Which of `PIXELS` the images are."""
    known = {PIXELS[i, :8, :8].transpose(2, 0, 1).tobytes(): i for i in range(60)}
    return [known[one.numpy().tobytes()] for one in data.pixels]


def numbered(labels: list[int], classes: int) -> ImageData:
    """Images whose first byte is their number."""
    pixels = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(len(labels))
    return ImageData(pixels, torch.tensor(labels), tuple(f"class {i}" for i in range(classes)))


@pytest.mark.parametrize(
    ("given", "cat", "dog"),
    [
        (None, "cat", "dog"),
        ("", "cat", "dog"),
        ("  ", "cat", "dog"),
        ("-1", "cat", "dog"),
        (None, 0, 1),
        (-1, 0, 1),
        (-1.0, 0.0, 1.0),
        (float("nan"), 0.0, 1.0),
    ],
)
def test_what_says_that_there_is_no_label(tmp_path: Path, given: Any, cat: Any, dog: Any) -> None:
    path = table(tmp_path / "heap.parquet", [(cat, dog, given, given)[i % 4] for i in range(40)])
    splits = load_images("images", path, validation_fraction=0)
    train = splits.need("train")
    assert train.label_names == tuple(str(name).removesuffix(".0") for name in (cat, dog))
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, UNLABELLED, UNLABELLED] * 10
    assert splits.skipped == 0
    assert "20 of 40 training images have no label" in splits.notes


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "-1"])
def test_a_folder_of_unlabelled_images_is_no_class(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, {"ant": 3, name: 4, "zebra": 2})
    train = load_images("images", tmp_path, validation_fraction=0).need("train")
    assert train.label_names == ("ant", "zebra")
    assert train.labels is not None
    found = dict(zip(numbers(train), train.labels.tolist(), strict=True))
    assert found == {0: 0, 1: 0, 2: 0, 3: -100, 4: -100, 5: -100, 6: -100, 7: 1, 8: 1}


def test_it_may_lie_beside_the_splits_and_be_empty(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3, "unlabelled": 0})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 1}, start=6)
    write_folder(tmp_path, {"unlabelled": 5}, start=8)
    splits = load_images("images", tmp_path, validation_fraction=0)
    train = splits.need("train")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] + [-100] * 5
    assert sorted(numbers(train)) == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12]
    assert len(splits.need("test")) == 2
    assert not any("left out" in note for note in splits.notes)
    (tmp_path / "unlabelled" / "notes.txt").write_text("x")
    assert "notes.txt: is not an image by its ending" in refused(tmp_path)


def test_the_classes_of_a_task_have_no_minus_one_either(tmp_path: Path) -> None:
    path = table(tmp_path / "heap.parquet", [(3, 8, -1, None)[i % 4] for i in range(40)])
    train = load_images("cifar10", path, size=32, validation_fraction=0).need("train")
    assert train.labels is not None
    assert train.labels.tolist() == [3, 8, -100, -100] * 10


def test_where_no_image_has_a_label_there_are_none(tmp_path: Path) -> None:
    for task in ("images", "cifar10"):
        splits = load_images(task, table(tmp_path / "heap.parquet", [-1] * 40))
        assert splits.need("train").labels is None
        assert splits.validation is None
    write_folder(tmp_path / "heap", {"unlabelled": 5})
    assert load_images("images", tmp_path / "heap").need("train").labels is None


def test_minus_one_is_no_class_beside_a_single_one(tmp_path: Path) -> None:
    said = refused(table(tmp_path / "heap.parquet", [(1, -1)[i % 2] for i in range(40)]))
    assert "every training image that has one has the label '1'" in said
    assert "-1 is none" in said


def test_ids_in_the_place_of_classes_are_counted_among_the_labelled(tmp_path: Path) -> None:
    labels = [f"id {i}" if i < 24 else None for i in range(40)]
    assert "24 different values in 24 images: no classes" in refused(table(tmp_path / "heap.parquet", labels))


@pytest.mark.parametrize("missing", [-1, None])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_missing_labels_of_rows_to_measure_on_are_faults(tmp_path: Path, split: str, missing: int | None) -> None:
    table(tmp_path / "train.parquet", [i % 2 for i in range(20)], slice(20))
    table(tmp_path / f"{split}.parquet", pa.array([0, missing, 1, missing, 1], pa.int64()), slice(20, 25))
    said = refused(tmp_path)
    assert "2 of 25 images cannot be used" in said
    assert f"{split}.parquet, row 2: the label is missing" in said
    kept = load_images("images", tmp_path, on_bad_row="skip")
    assert kept.skipped == 2
    found = kept.need("test" if split == "test" else "validation")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("arguments", [{"validation_fraction": 0.25}, {"validation_rows": 4}])
def test_validation_images_are_drawn_from_those_with_a_label(tmp_path: Path, arguments: Any) -> None:
    labels = [i % 2 if i % 5 < 2 else None for i in range(40)]
    assert sum(label is not None for label in labels) == 16
    for seed in range(5):
        splits = load_images("images", table(tmp_path / "heap.parquet", labels), seed=seed, **arguments)
        validation, train = splits.need("validation"), splits.need("train")
        assert validation.labels is not None
        assert validation.labels.bincount().tolist() == [2, 2]
        assert validation.has_label.all()
        assert int((~train.has_label).sum()) == 24
        assert sorted(numbers(train) + numbers(validation)) == list(range(40))
        for part in (train, validation):
            assert part.labels is not None
            assert part.labels.tolist() == [-100 if (label := labels[i]) is None else label for i in numbers(part)]


def test_no_more_validation_images_than_labels(tmp_path: Path) -> None:
    path = table(tmp_path / "heap.parquet", [i % 2 if i < 8 else None for i in range(40)])
    assert "8 of 8 labelled training images cannot be set aside" in refused(path, validation_rows=8)


def test_a_labelled_fraction_is_of_those_that_have_a_label() -> None:
    labels = [(i % 2 if i % 3 == 0 else -100) for i in range(90)]
    data = numbered(labels, 2)
    for amount, n in (("20%", 6), (0.2, 6), (10, 10), ("100%", 30), (30, 30)):
        drawn = data.labelled_rows(amount, seed=1)
        assert len(drawn) == n
        assert drawn == sorted(set(drawn))
        assert np.bincount([labels[i] for i in drawn]).tolist() == [n // 2, n // 2]
    unlabelled, labelled = data.labelled_fraction(10, seed=1)
    assert (len(unlabelled), len(labelled), unlabelled.labels) == (80, 10, None)
    with pytest.raises(UserError, match="31 labels, and 30 of 90 images have one"):
        data.labelled_rows(31, 0)
    with pytest.raises(UserError, match="leave none unlabelled"):
        data.labelled_rows(90, 0)


def test_draws_of_labelled_images_do_not_know_of_the_others() -> None:
    """The same labelled images are drawn whether others lie among them or not."""
    alone = numbered([i % 3 for i in range(30)], 3)
    among = numbered([(i // 2) % 3 if i % 2 else -100 for i in range(60)], 3)
    places = [2 * i + 1 for i in alone.labelled_rows(6, 4)]
    assert among.labelled_rows(6, 4) == places
    part = alone.split(0.2, 4)[1].pixels[:, 0, 0, 0].tolist()
    assert among.split(0.2, 4)[1].pixels[:, 0, 0, 0].tolist() == [2 * i + 1 for i in part]


def test_the_labelled_ones() -> None:
    data = numbered([0, -100, 1, -100], 2)
    assert data.has_label.tolist() == [True, False, True, False]
    assert data.labelled().pixels[:, 0, 0, 0].tolist() == [0, 2]
    whole, none = numbered([0, 1], 2), ImageData(data.pixels, None, None)
    assert whole.labelled() is whole
    assert none.labelled() is none
    assert not none.has_label.any()


def test_labels_of_another_task_are_told_from_a_few_wrong_ones(tmp_path: Path) -> None:
    write_folder(tmp_path / "all", {"red": 2, "blue": 2})
    assert "--task images" in refused(tmp_path / "all", "cifar10")
    assert "--task images" in refused(tmp_path / "all", "cifar10", on_bad_row="skip")
    write_folder(tmp_path / "some", {"red": 2, "cat": 2})
    said = refused(tmp_path / "some", "cifar10")
    assert "--task images" not in said
    assert "--on-bad-row skip" in said
