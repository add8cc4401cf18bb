"""Texts that are cut, and words that the tokenizer does not know, are said wherever texts are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contraverse.models import TextModel

LONG = "the a of to and in is was for on that with"
"""Twelve words that the tiny tokenizer knows."""


@pytest.fixture
def long_rows(tmp_path: Path) -> Path:
    texts = [LONG if i % 4 else "of the" for i in range(20)]
    file = tmp_path / "long.csv"
    file.write_text("text,label\n" + "".join(f"{text},{'yes' if i % 2 else 'no'}\n" for i, text in enumerate(texts)))
    return file


def expected(folder: Path, texts: list[str], max_length: int) -> str:
    """The note, counted row by row."""
    tokenizer = TextModel.load(folder).tokenizer if (folder / "contraverse.json").is_file() else None
    if tokenizer is None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    cut = sum(length > max_length for length in lengths)
    assert cut
    return f"{cut} of {len(texts)} rows are cut at {max_length} tokens (median {int(np.median(lengths))}"


def texts_of(file: Path) -> list[str]:
    return [line.rpartition(",")[0] for line in file.read_text().splitlines()[1:]]


def test_training_says_how_many_rows_are_cut(
    invoke: Any, tiny_folder: Callable[..., Path], long_rows: Path, tmp_path: Path
) -> None:
    args = ["train", "ce", "--model", tiny_folder(), "--task", "text", "--output", tmp_path / "run"]
    args += ["--set", f"data.source={{train: {long_rows}, test: {long_rows}}}", "--set", "model.max_length=8"]
    args += ["--set", "train.max_steps=1", "--set", "evaluation.epsilons=[]"]
    note = "test: " + expected(tiny_folder(), texts_of(long_rows), 8)
    assert note in invoke(*args, "--dry-run").stderr
    assert note in invoke(*args).stderr
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert any(line.startswith(note) for line in evaluation["notes"])
    assert any(line.startswith("train: ") and "are cut at 8 tokens" in line for line in evaluation["notes"])
    assert note in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_classifier_says_how_many_rows_are_cut(
    invoke: Any, tiny_model: Callable[..., Any], long_rows: Path, tmp_path: Path, command: str
) -> None:
    folder = tiny_model(labels=("no", "yes"), max_length=8).save(tmp_path / "classifier")
    if command == "predict":
        args = ["predict", folder, long_rows, "--output", tmp_path / "p.csv"]
    else:
        args = ["evaluate", folder, "--data", long_rows, "--task", "text", "--eps", "none"]
    note = expected(folder, texts_of(long_rows), 8)
    assert note in invoke(*args).stderr


def test_what_is_not_cut_is_not_spoken_of(invoke: Any, tiny_model: Any, long_rows: Path, tmp_path: Path) -> None:
    folder = tiny_model(labels=("no", "yes"), max_length=32).save(tmp_path / "classifier")
    result = invoke("predict", folder, long_rows, "--output", tmp_path / "p.csv")
    assert "are cut" not in result.stderr
    assert "unknown" not in result.stderr


def test_unknown_words_are_counted(invoke: Any, classifier: Path, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("今天天气很好\n退款\n🙂 🙃\n", encoding="utf-8")
    result = invoke("predict", classifier, tmp_path / "other.txt", "--output", tmp_path / "p.csv")
    assert "% of the tokens are unknown to the tokenizer" in result.stderr
    result = invoke("encode", encoder, tmp_path / "other.txt", "--output", tmp_path / "x.npy")
    assert "% of the tokens are unknown to the tokenizer" in result.stderr


def test_of_many_rows_a_sample_is_looked_at(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from contraverse.data import TextData
    from contraverse.pipeline import text

    monkeypatch.setattr(text, "_TOKENIZED", 10)
    data = TextData.from_rows([LONG] * 50 + ["of"] * 50)
    (note,) = text.token_notes(tiny_model(max_length=8), data, name="train")
    assert note.startswith("train, a sample of 100: 5 of 10 rows are cut at 8 tokens")


def test_the_three_texts_of_a_triplet_are_counted_apart(tiny_model: Any) -> None:
    from contraverse.data import TextData
    from contraverse.pipeline.text import token_notes

    data = TextData.from_rows([(LONG, LONG, LONG), (LONG, "of", "of")])
    assert token_notes(tiny_model(max_length=8), data)[0].startswith("4 of 6 rows are cut at 8 tokens")
