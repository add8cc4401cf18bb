"""``contraverse harden``: figures before and after, the copy, and mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from contraverse.cli.harden import CARD
from contraverse.models import TextModel
from contraverse.models.normalizing import is_hardened


def test_a_copy_is_hardened_and_measured(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    before = (classifier / "tokenizer.json").read_bytes()
    output = tmp_path / "hard"
    flags = ("--task", "text", "--data", rows, "--attack-rows", 3, "--output", output)
    done = invoke("harden", classifier, *flags)
    assert "before" in done.stdout
    assert "after" in done.stdout
    assert "unicode, at most 4 (3 rows)" in done.stdout
    assert "Tokens of 0 of 20 clean rows (0.0 %)" in done.stderr
    assert (classifier / "tokenizer.json").read_bytes() == before
    assert CARD in (output / "README.md").read_text()
    assert json.loads((output / "contraverse.json").read_text())["normalize"] == "unicode"
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer("g\u043eod w\u200bork")["input_ids"] == tokenizer("good work")["input_ids"]
    texts = ["good work", "the way back"]
    assert TextModel.load(output).predict(texts) == TextModel.load(classifier).predict(texts)
    invoke("harden", classifier, *flags, code=2)
    invoke("harden", output, "--output", tmp_path / "twice", code=2)
    assert not (tmp_path / "twice").exists()


def test_a_strangers_folder_without_rows(invoke: Any, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "hard"
    done = invoke("harden", tiny_folder("distilbert"), "--output", output)
    assert "Nothing is measured" in done.stderr
    assert is_hardened(TextModel.load(output).tokenizer)
