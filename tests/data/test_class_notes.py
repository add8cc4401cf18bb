"""Classes in two spellings, classes that validation lacks, and too few rows to set one aside."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contraverse.data import load_images, load_splits
from contraverse.data.splits import part_rows
from contraverse.errors import UserError


def table(file: Path, labels: list[str]) -> Path:
    file.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(labels)), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["TRUE", "True", "FALSE"], "classes that differ in case alone: 'TRUE' and 'True'"),
        (["refund", "REFUND", "late"], "classes that differ in case alone: 'REFUND' and 'refund'"),
        (["straße", "STRASSE", "x"], "classes that differ in case alone: 'STRASSE' and 'straße'"),
        (["caf\u00e9", "cafe\u0301", "x"], "classes that look alike"),
        (["too  late", "too late", "x"], "classes that look alike: 'too  late' and 'too late'"),
    ],
)
def test_one_class_in_two_spellings_is_noted(tmp_path: Path, labels: list[str], says: str) -> None:
    notes = load_splits("text", table(tmp_path / "x.csv", labels * 10)).notes
    assert any(note.startswith(says) for note in notes)


def test_different_classes_are_not(tmp_path: Path) -> None:
    notes = load_splits("text", table(tmp_path / "x.csv", ["a", "b", "ab", "a b"] * 10)).notes
    assert not any("classes that" in note for note in notes)


@pytest.mark.parametrize("rare", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_validated(tmp_path: Path, rare: int, seed: int) -> None:
    splits = load_splits("text", table(tmp_path / "x.csv", ["fraud"] * rare + ["ok"] * (60 - rare)), seed=seed)
    train, validation = splits.need("train"), splits.need("validation")
    assert validation.labels is not None
    assert train.labels is not None
    assert list(validation.labels).count(0) == 1
    assert list(train.labels).count(0) == rare - 1
    assert len(validation) == 6
    assert not any("no validation row" in note for note in splits.notes)


def test_every_class_keeps_its_share_to_within_a_row() -> None:
    random = np.random.default_rng(0)
    for seed in range(200):
        classes = random.choice(int(random.integers(2, 9)), size=int(random.integers(10, 200))).tolist()
        fraction = float(random.uniform(0.05, 0.6))
        rest, part = part_rows(len(classes), classes, fraction, seed, "here")
        assert sorted(rest + part) == list(range(len(classes)))
        for one in set(classes):
            share = classes.count(one) * len(part) / len(classes)
            assert abs(sum(classes[row] == one for row in part) - share) <= 1 + 1e-9


def test_a_class_of_one_row_is_trained_on_and_noted(tmp_path: Path) -> None:
    splits = load_splits("text", table(tmp_path / "x.csv", ["only"] + ["ok", "no"] * 20))
    assert any("no validation row has the label 'only'" in note for note in splits.notes)


def test_a_validation_file_without_a_class_is_noted(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", ["a", "b"] * 10)
    table(tmp_path / "validation.csv", ["b"] * 5)
    notes = load_splits("text", tmp_path).notes
    assert any("no validation row has the label 'a'" in note for note in notes)


@pytest.mark.parametrize("labels", [["a", "b"], ["x", "1"]])
def test_too_few_rows_to_set_one_aside(tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(UserError, match="2 rows are too few to set one aside"):
        load_splits("text", table(tmp_path / "x.csv", labels))
    assert len(load_splits("text", tmp_path / "x.csv", validation_fraction=0).need("train")) == 2


def images(folder: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            random = np.random.default_rng([len(name), i])
            pixels = random.integers(0, 255, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_images_are_looked_at_in_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 images are too few"):
        load_images("images", images(tmp_path / "few", {"a": 1, "b": 1}))
    splits = load_images("images", images(tmp_path / "case", {"Cat": 20, "cat": 20, "dog": 2}))
    assert any("differ in case alone: 'Cat' and 'cat'" in note for note in splits.notes)
    labels = splits.need("validation").labels
    assert labels is not None
    assert set(labels.tolist()) == {0, 1, 2}
