from pathlib import Path

import pytest

from contraverse.data import get_task
from contraverse.data.sources import find_files, match_names
from contraverse.errors import UserError

USUAL = get_task("text").splits


def found(folder: Path, names: str, splits: object = USUAL) -> tuple[dict[str, list[str]], list[str]]:
    for name in names.split():
        (folder / name).touch()
    files, notes = find_files(folder, splits)  # type: ignore[arg-type]
    return {split: [path.name for path in paths] for split, paths in files.items()}, notes


@pytest.mark.parametrize(
    ("names", "train", "validation", "test"),
    [
        ("train.csv validation.csv test.csv", "train.csv", "validation.csv", "test.csv"),
        ("train.tsv dev.tsv", "train.tsv", "dev.tsv", None),
        ("Train.CSV valid.csv", "Train.CSV", "valid.csv", None),
        ("train.csv val.csv dev.csv", "train.csv", "val.csv", None),
        ("train.csv train_sentences.csv", "train.csv", None, None),
        ("train_description_only.csv train_part.csv test.csv", "train_part.csv", None, "test.csv"),
        ("train_b.csv train_a.csv", "train_a.csv", None, None),
        ("train.csv train.parquet train.jsonl", "train.parquet", None, None),
        ("train.csv.gz train.csv", "train.csv", None, None),
        ("train.csv.gz test_1000.csv", "train.csv.gz", None, "test_1000.csv"),
        ("reviews.csv", "reviews.csv", None, None),
        ("devices.csv", "devices.csv", None, None),
        ("trainset.csv testset.csv testimonials.csv", "trainset.csv", None, "testset.csv"),
        ("reviews.csv test.csv", None, None, "test.csv"),
        ("validation.csv test.csv", None, "validation.csv", "test.csv"),
        ("train.csv .train.jsonl train.py", "train.csv", None, None),
    ],
)
def test_which_file_is_which_split(tmp_path: Path, names: str, train: str, validation: str, test: str) -> None:
    expected = {"train": train, "validation": validation, "test": test}
    files, _ = found(tmp_path, names)
    assert files == {split: [name] for split, name in expected.items() if name}


def test_shards_belong_together(tmp_path: Path) -> None:
    files, notes = found(
        tmp_path, "train-00001-of-00002.parquet train-00000-of-00002.parquet test-00000-of-00001.parquet"
    )
    assert files["train"] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert files["test"] == ["test-00000-of-00001.parquet"]
    assert notes == []


@pytest.mark.parametrize(("task", "genre"), [("mnli", "matched"), ("mnli-mm", "mismatched")])
@pytest.mark.parametrize("spelling", ["validation", "dev"])
def test_a_tasks_own_split_names_win(tmp_path: Path, task: str, genre: str, spelling: str) -> None:
    names = f"train.tsv {spelling}_matched.tsv {spelling}_mismatched.tsv test_matched.tsv test_mismatched.tsv"
    files, _ = found(tmp_path, names, get_task(task).splits)
    assert files["validation"] == [f"{spelling}_{genre}.tsv"]
    assert files["test"] == [f"test_{genre}.tsv"]


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    _, notes = found(tmp_path, "train.csv train_sentences.csv dev.csv notes.txt")
    assert notes == [f"{tmp_path}: left out notes.txt, train_sentences.csv"]


def test_a_folder_without_a_readable_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no file that can be read") as error:
        find_files(tmp_path, USUAL)
    assert "Found: nothing" in str(error.value)
    with pytest.raises(UserError, match=r"Found: data\.xlsx"):
        found(tmp_path, "data.xlsx")


def test_a_folder_whose_files_name_no_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is called train: a\.csv, b\.csv") as error:
        found(tmp_path, "b.csv a.csv")
    assert "--set data.source='{train: FILE, test: FILE}'" in str(error.value)


def test_split_names_of_the_hub() -> None:
    names = ["train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"]
    assert match_names(names, get_task("mnli-mm").splits)["validation"] == ("validation_mismatched",)
    assert match_names(["train", "dev", "test"], USUAL) == {
        "train": ("train",),
        "validation": ("dev",),
        "test": ("test",),
    }
    assert match_names(["unsupervised"], USUAL) == {}


def test_rounds_of_one_split() -> None:
    names = [f"{split}_r{i}" for i in (3, 1, 2) for split in ("dev", "train", "test")]
    pooled = match_names(names, get_task("anli").splits)
    assert pooled == {
        "train": ("train_r1", "train_r2", "train_r3"),
        "validation": ("dev_r1", "dev_r2", "dev_r3"),
        "test": ("test_r1", "test_r2", "test_r3"),
    }
    assert match_names(names, get_task("anli_a2").splits)["validation"] == ("dev_r2",)
    assert match_names(["train", "dev_r1", "dev_r3"], get_task("anli").splits) == {
        "train": ("train",),
        "validation": ("dev_r1",),
    }


def test_files_of_the_rounds_are_joined(tmp_path: Path) -> None:
    files, notes = found(tmp_path, "train_r2.csv train_r1.csv train_r3.csv dev.csv", get_task("anli").splits)
    assert files == {"train": ["train_r1.csv", "train_r2.csv", "train_r3.csv"], "validation": ["dev.csv"]}
    assert notes == []
