"""``--delimiter`` and ``--encoding`` of the commands that read texts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

TEXTS = ["café of the", "naïve and to", "the a of", "in is was"] * 3


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    file = tmp_path / "foreign.csv"
    rows = "".join(f"{text}^{'yes' if i % 3 else 'no'}\n" for i, text in enumerate(TEXTS))
    file.write_bytes(("text^label\n" + rows).encode("windows-1252"))
    return file


FORM = ("--delimiter", "^", "--encoding", "windows-1252")


def test_encode_reads_the_form(invoke: Any, encoder: Path, foreign: Path, tmp_path: Path) -> None:
    invoke("encode", encoder, foreign, "--text", "text", "--output", tmp_path / "x.parquet", *FORM)
    assert pd.read_parquet(tmp_path / "x.parquet")["text"].to_list() == TEXTS


def test_predict_evaluate_and_train_read_the_form(
    invoke: Any, classifier: Path, foreign: Path, tmp_path: Path, tiny_folder: Any
) -> None:
    result = invoke("predict", classifier, foreign, "--text", "text", "--output", tmp_path / "p.csv", *FORM)
    assert "12 predictions" in result.stderr
    result = invoke("evaluate", classifier, "--task", "text", "--data", foreign, "--eps", "none", *FORM)
    assert "12 rows" in result.stderr
    args = ["train", "ce", "--task", "text", "--data", foreign, "--model", tiny_folder(), "--dry-run", *FORM]
    result = invoke(*args)
    assert "encoding: windows-1252" in result.stdout
    assert "no 3, yes 7" in result.stderr or "no 4, yes 7" in result.stderr or "no 3, yes 8" in result.stderr


def test_a_hint_at_the_encoding_reaches_whoever_predicts(invoke: Any, classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("text\ncafé\nfür 5 €\n".encode("windows-1252"))
    result = invoke("predict", classifier, tmp_path / "x.csv", "--output", tmp_path / "p.csv", code=2)
    assert "--encoding windows-1252" in result.stderr
    assert "--on-bad-row" not in result.stderr
