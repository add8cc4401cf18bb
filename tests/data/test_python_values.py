"""Values of pandas, numpy, torch and `datasets` get what a file gets; a folder as the Hub has it."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from contraverse.data import TextData, load_splits
from contraverse.errors import UserError
from contraverse.methods import CrossEntropy
from contraverse.training import Trainer

TEXTS = [f"text {i}" for i in range(20)]
IDS = [i % 2 for i in range(20)]
FRAME = pd.DataFrame({"text": TEXTS, "label": IDS})


@pytest.mark.parametrize(
    "labels",
    [
        [float(i) for i in IDS],
        np.asarray(IDS, dtype=np.float32),
        torch.tensor(IDS),
        torch.tensor(IDS, dtype=torch.float16),
        list(torch.tensor(IDS)),
        pd.Series(IDS, index=range(100, 120)),
        FRAME.label.astype("Int64"),
        [bool(i) for i in IDS],
        datasets.Dataset.from_dict({"label": IDS})["label"],
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_whole_numbers_of_any_kind_are_ids(labels: Any) -> None:
    data = TextData.from_rows(pd.Series(TEXTS), labels)
    assert (data.labels, data.label_names) == (IDS, ("0", "1"))


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT, ""], ids=repr)
def test_a_missing_label_names_its_row(missing: Any) -> None:
    for labels in ([*IDS[:3], missing, *IDS[4:]], ["a"] * 3 + [missing] + ["b"] * 16):
        with pytest.raises(UserError, match=r"row 3: the label is missing"):
            TextData.from_rows(TEXTS, labels)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (float("nan"), "is missing"),
        (None, "is missing"),
        (pd.NA, "is missing"),
        (3, "is a int, not text"),
        ("bad \ud83d text", "is not valid UTF-8"),
        ("nul \0", "holds a NUL byte"),
        ("  ", "is empty"),
    ],
    ids=repr,
)
def test_a_text_that_is_none_names_its_row(text: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"row 3: .*{says}"):
        TextData.from_rows([*TEXTS[:3], text, *TEXTS[4:]], IDS)


def test_rows_of_labels_and_tables_get_the_way_out() -> None:
    for one_hot in (np.eye(2)[IDS], torch.eye(2)[IDS], np.eye(2)[IDS].tolist()):
        with pytest.raises(UserError, match="argmax"):
            TextData.from_rows(TEXTS, one_hot)
    for table in (FRAME, datasets.Dataset.from_pandas(FRAME), "text"):
        with pytest.raises(UserError, match="load_splits"):
            TextData.from_rows(table)


@pytest.mark.parametrize("make", [lambda frame: frame, datasets.Dataset.from_pandas], ids=["pandas", "datasets"])
def test_tables_are_sources(make: Any) -> None:
    splits = load_splits("text", make(FRAME), validation_fraction=0)
    assert splits.need("train").texts == [(text,) for text in TEXTS]
    assert splits.need("train").labels == IDS
    splits = load_splits("text", {"train": make(FRAME), "test": make(FRAME[:4])}, validation_fraction=0)
    assert splits.need("test").texts == [(text,) for text in TEXTS[:4]]
    with pytest.raises(UserError, match="row 3: 'text' is missing"):
        load_splits("text", make(FRAME.assign(text=[*TEXTS[:2], None, *TEXTS[3:]])))
    with pytest.raises(UserError, match="row 3: the label is missing"):
        load_splits("text", make(FRAME.assign(label=[0, 1, None, *IDS[3:]])))


def test_a_dataset_dict_is_a_source() -> None:
    data = datasets.Dataset.from_pandas(FRAME)
    splits = load_splits("text", datasets.DatasetDict({"train": data, "validation": data}))
    assert splits.need("validation").labels == IDS


@pytest.mark.parametrize("address", ["hf://datasets/x", "https://x.org/a.csv", "s3://bucket/x.parquet"])
def test_an_address_is_called_so(address: str) -> None:
    with pytest.raises(UserError, match=f"{address}: is an address"):
        load_splits("text", address)


@pytest.mark.parametrize("inner", ["data", "mails"])
def test_a_repository_of_the_hub_is_read(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir()
    (tmp_path / "README.md").write_text("---\n")
    (tmp_path / ".git").mkdir()
    for split, rows in (("train", FRAME), ("test", FRAME[:4])):
        rows[:2].to_parquet(tmp_path / inner / f"{split}-00000-of-00002.parquet")
        rows[2:].to_parquet(tmp_path / inner / f"{split}-00001-of-00002.parquet")
    splits = load_splits("text", tmp_path, validation_fraction=0)
    assert splits.need("train").texts == [(text,) for text in TEXTS]
    assert len(splits.need("test")) == 4
    assert any(f"its files are those of {inner}/" in note for note in splits.notes)


def test_two_folders_with_files_are_not_chosen_between(tmp_path: Path) -> None:
    for inner in ("a", "b"):
        (tmp_path / inner).mkdir()
        FRAME.to_csv(tmp_path / inner / "train.csv")
    with pytest.raises(UserError, match="no file that can be read"):
        load_splits("text", tmp_path)


@pytest.mark.parametrize(
    "table", [FRAME, datasets.Dataset.from_pandas(FRAME), FRAME.to_dict("records")], ids=["pandas", "datasets", "list"]
)
def test_the_trainer_reads_a_table(tiny_model: Any, tmp_path: Path, table: Any) -> None:
    trainer: Any = Trainer(tiny_model(), CrossEntropy(), table, output_dir=tmp_path)
    assert trainer.train_dataset.data.texts == [(text,) for text in TEXTS]
    assert trainer.train_dataset.data.labels == IDS


def test_the_trainer_says_that_a_table_has_no_labels(tiny_model: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the table: ce needs labels, and the rows have none"):
        Trainer(tiny_model(), CrossEntropy(), [{"text": "a"}], output_dir=tmp_path)  # type: ignore[arg-type]
