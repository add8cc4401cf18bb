"""``contraverse harden``: figures before and after, the copy, and mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from contraverse.cli.harden import CARD, _difference
from contraverse.data import TextData
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
    assert "accuracy on clean rows, after less before, with its 95 % interval over rows: +0.0 [+0.0, +0.0]" in " ".join(
        done.stderr.split()
    )
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


def test_the_difference_is_paired_over_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    before = np.eye(2)[np.where(rng.random(200) < 0.9, labels, 1 - labels)]
    after = before.copy()
    after[:4] = 1 - before[:4]
    rows = TextData.from_rows([f"row {i}" for i in range(200)], labels.tolist(), ["no", "yes"])
    change = _difference("accuracy", before, after, rows, 0)
    right = [(logits.argmax(1) == labels).astype(float) for logits in (after, before)]
    assert change.value == pytest.approx(100 * (right[0] - right[1]).mean())
    draws = np.random.default_rng(1).integers(0, 200, (2000, 200))
    ends = np.quantile(100 * (right[0] - right[1])[draws].mean(1), [0.025, 0.975])
    assert (change.low, change.high) == pytest.approx(ends, abs=0.6)
    assert _difference("accuracy", before, before, rows, 0) == (0.0, 0.0, 0.0)


def test_a_run_is_hardened_and_measured_on_its_own_rows(
    invoke: Any, rows: Path, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = (f"model.name={tiny_folder()}", "train.max_steps=2", "evaluation.epsilons=[]")
    flags = [word for setting in settings for word in ("--set", setting)]
    invoke("train", "ce", "--task", "text", "--data", rows, "--output", run, *flags)
    done = invoke("harden", run, "--attack-rows", 0)
    assert "after less before" in " ".join(done.stderr.split())
    assert is_hardened(TextModel.load(run / "hardened").tokenizer)


def test_a_strangers_folder_without_rows(invoke: Any, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "hard"
    done = invoke("harden", tiny_folder("distilbert"), "--output", output)
    assert "Nothing is measured" in done.stderr
    assert is_hardened(TextModel.load(output).tokenizer)
