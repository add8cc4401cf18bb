"""The columns that a run was trained on are those that its model reads afterwards, or the user is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contraverse.data import TextData
from contraverse.evaluation import predict
from contraverse.models import TextModel

SUBJECTS = ["good work", "no good", "the way back", "very long years", "my own house", "many years of work"] * 4
BODIES = [f"{'the same and not the same ' * 4}{i}" for i in range(len(SUBJECTS))]
TOPICS = ["yes" if i % 2 else "no" for i in range(len(SUBJECTS))]


def table(file: Path, **columns: list[str]) -> Path:
    pd.DataFrame(columns).to_csv(file, index=False)
    return file


@pytest.fixture
def run(invoke: Any, tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished run on ``subject`` and ``topic``, beside columns that other readers would prefer."""
    rows = table(tmp_path / "mail.csv", subject=SUBJECTS, body=BODIES, topic=TOPICS, label=["a", "b", "c"] * 8)
    settings = ["train.max_steps=1", "train.per_device_train_batch_size=4", "evaluation.epsilons=[]"]
    args = ["train", "ce", "--model", tiny_folder(), "--task", "text", "--data", rows, "--output", tmp_path / "run"]
    invoke(*args, "--text", "subject", "--label", "topic", *(part for one in settings for part in ("--set", one)))
    return tmp_path / "run"


def predicted(run: Path, texts: list[str]) -> np.ndarray:
    logits = predict(TextModel.load(run / "model"), TextData.from_rows(texts)).astype(np.float64)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray((exponents / exponents.sum(1, keepdims=True)).max(1))


def test_a_run_notes_the_columns_that_it_read(run: Path) -> None:
    assert json.loads((run / "evaluation.json").read_text())["read_from"] == {"texts": ["subject"], "label": "topic"}


@pytest.mark.parametrize("other", ["body", "text", "sentence"])
@pytest.mark.parametrize("model", [".", "model"])
def test_predict_reads_the_column_of_training(invoke: Any, run: Path, tmp_path: Path, other: str, model: str) -> None:
    rows = table(tmp_path / "new.csv", **{other: BODIES, "Subject": SUBJECTS})
    result = invoke("predict", run / model, rows, "--output", tmp_path / "p.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["probability"], predicted(run, SUBJECTS), atol=1e-5)
    assert "text from 'Subject' (as in training)" in result.stderr


def test_encode_reads_the_column_of_training(invoke: Any, run: Path, tmp_path: Path) -> None:
    rows = table(tmp_path / "new.csv", text=BODIES, subject=SUBJECTS)
    invoke("encode", run, rows, "--output", tmp_path / "x.parquet")
    assert pd.read_parquet(tmp_path / "x.parquet")["text"].to_list() == SUBJECTS


def test_evaluate_reads_the_columns_of_training(invoke: Any, run: Path, tmp_path: Path) -> None:
    wrong = ["no" if topic == "yes" else "yes" for topic in TOPICS]
    there = table(tmp_path / "other.csv", text=BODIES, subject=SUBJECTS, label=wrong, topic=TOPICS)
    own = table(tmp_path / "own.csv", text=SUBJECTS, label=TOPICS)
    figures = []
    for file in (there, own):
        invoke("evaluate", run, "--data", file, "--eps", "none", "--output", tmp_path / f"{file.stem}.json")
        figures.append(json.loads((tmp_path / f"{file.stem}.json").read_text())["metrics"]["accuracy"])
    assert figures[0] == figures[1]


def test_a_column_that_is_missing_is_named(invoke: Any, run: Path, tmp_path: Path) -> None:
    rows = table(tmp_path / "new.csv", text=SUBJECTS, number=[str(i) for i in range(24)])
    result = invoke("predict", run, rows, "--output", tmp_path / "p.csv")
    assert "there is no column 'subject', which training used: text from 'text'" in result.stderr
    assert "--label" not in result.stderr
    rows = table(tmp_path / "label.csv", subject=SUBJECTS, label=TOPICS)
    result = invoke("evaluate", run, "--data", rows, "--eps", "none")
    assert "there is no column 'topic', which training used" in result.stderr
    assert "label from 'label'" in result.stderr


def test_where_several_columns_may_be_meant_none_is_guessed(invoke: Any, run: Path, tmp_path: Path) -> None:
    rows = table(tmp_path / "new.csv", body=BODIES, title=SUBJECTS)
    result = invoke("predict", run, rows, "--output", tmp_path / "p.csv", code=2)
    assert "there is no column 'subject', which training used" in result.stderr
    assert "--text" in result.stderr
    invoke("predict", run, rows, "--text", "title", "--output", tmp_path / "p.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["probability"], predicted(run, SUBJECTS), atol=1e-5)


def test_lines_without_columns_are_read_without_a_word(invoke: Any, run: Path, tmp_path: Path) -> None:
    result = invoke("predict", run, "-", "--output", tmp_path / "p.csv", stdin="good work\nno good\n")
    assert "subject" not in result.stderr
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["probability"], predicted(run, SUBJECTS[:2]), atol=1e-5)


def test_a_test_file_of_other_columns_is_noted(invoke: Any, tiny_folder: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table(tmp_path / "data" / "train.csv", subject=SUBJECTS, label=TOPICS)
    table(tmp_path / "data" / "test.csv", text=SUBJECTS, label=TOPICS)
    args = ["train", "ce", "--model", tiny_folder(), "--task", "text", "--data", tmp_path / "data", "--dry-run"]
    assert "there is no column 'subject', which training used: text from 'text'" in invoke(*args).stderr
