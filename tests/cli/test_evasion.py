"""``contraverse evaluate --attack edits ...``: figures, texts that evade, gates."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from contraverse.cli.evasion import TEXT_ATTACKS, figures_of
from contraverse.evasion import BUDGETS

QUICK = ("--rows", 6, "--width", 6, "--beam", 2, "--no-diagnostics")


def test_the_attacks_of_the_command_line_are_those_of_the_package() -> None:
    assert list(TEXT_ATTACKS) == [*BUDGETS, "standard"]


def test_the_worst_of_all_attacks_and_gates(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    output, found = tmp_path / "out.json", tmp_path / "found.jsonl"
    shown = invoke(
        "evaluate", classifier, "--task", "text", "--data", rows, "--attack", "standard", "--budget", "1,2",
        *QUICK, "--output", output, "--adversaries", found, "--gate", "accuracy[attack]>=0",
        "--gate", "flip_rate[edits@1]<=100",
    )  # fmt: skip
    assert "standard: " in shown.output
    evasion = json.loads(output.read_text())["evasion"]
    assert list(evasion) == list(TEXT_ATTACKS)
    worst = evasion["standard"]["at"][0]["accuracy"]
    assert worst["hits"] <= min(evasion[name]["at"][-1]["accuracy"]["hits"] for name in BUDGETS)
    for line in found.read_text().splitlines():
        success = json.loads(line)
        assert success["rewritten"] != success["original"]
        assert success["prediction_original"] == success["label"] != success["prediction_rewritten"]


def test_a_gate_that_fails_ends_with_3(invoke: Any, classifier: Path, rows: Path) -> None:
    command = ("evaluate", classifier, "--task", "text", "--data", rows, "--attack", "append", "--phrase", "so", *QUICK)
    shown = invoke(*command, "--gate", "accuracy[clean]>=100", "--gate", "accuracy[append@1]<=100", code=3)
    assert "gate failed: accuracy[clean]>=100: it is " in shown.output
    assert "n = 6" in shown.output
    # Nothing is detected at this threshold: the rate is undefined, and fails.
    shown = invoke(*command, "--against", "yes", "--threshold", ".9999", "--gate", "flip_rate[attack]<=100", code=3)
    assert "undefined, of 0 rows" in shown.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attack", "edits", "--budget", "0"), "is no budget"),
        (("--attack", "edits", "--budget", ""), "is no budget"),
        (("--attack", "edits", "--eps", ".1"), "takes no --eps"),
        (("--attack", "edits", "--against", "maybe"), 'no class is called "maybe"'),
        (("--attack", "edits", "--threshold", ".5"), "belongs to a class"),
        (("--attack", "edits", "--scores", "--labels"), "not both"),
        (("--attack", "append", "--phrase", "a", "--pool", "b"), "not both"),
        (("--attack", "append", "--pool", "none.txt"), "cannot be read"),
        (("--attack", "edits", "--gate", "recall[attack]>=80"), "recall is of one class"),
        (("--attack", "edits", "--gate", "accuracy[append]>=80"), "not measured under append"),
        (("--attack", "edits", "--gate", "accuracy>80"), "is no gate"),
        (("--attack", "edits", "--attack-text", "2"), "a row has 1 text"),
        (("--attack", "pgd", "--rules", "pruthi"), "is for attacks on texts"),
        (("--attack", "edits", "--adversaries", "found.csv"), "ends in .jsonl"),
    ],
)
def test_mistakes_are_refused_in_one_message(
    invoke: Any, classifier: Path, rows: Path, options: tuple[str, ...], message: str
) -> None:
    shown = invoke("evaluate", classifier, "--task", "text", "--data", rows, *options, code=2)
    assert message in shown.output
    assert shown.output.count("error:") == 1


def test_a_regression_is_refused(invoke: Any, tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model(labels=("score",)).save(tmp_path / "regression")
    file = tmp_path / "scores.csv"
    file.write_text("text,label\ngood work,1\nno good,0\n")
    shown = invoke("evaluate", model, "--task", "text", "--data", file, "--attack", "edits", code=2)
    assert "regression" in shown.output


def test_a_strangers_classifier_is_attacked(invoke: Any, tiny_folder: Any, rows: Path, tmp_path: Path) -> None:
    folder = strangers(tiny_folder, tmp_path)
    state = tmp_path / "state.jsonl"
    command = ("evaluate", folder, "--task", "text", "--data", rows, "--attack", "unicode", *QUICK, "--state", state)
    first, again = invoke(*command), invoke(*command)
    assert "unicode: " in first.output
    assert "unicode: " in again.output
    assert len(state.read_text().splitlines()) > 1


def test_figures_for_gates() -> None:
    rate = {"percent": 50.0, "hits": 2, "n": 4, "low": 15.0, "high": 85.0}
    report = {
        "against": "yes",
        "clean": {"accuracy": rate, "recall": {"yes": rate}},
        "at": [{"budget": 2, "accuracy": rate, "recall": {"yes": rate}, "flip_rate": rate}],
    }
    figures = figures_of({"evasion": {"edits": report}, "metrics": {"f1": 71.0}, "rows": 9})
    assert set(figures["recall"]) == {"clean", "edits@2", "edits", "attack"}
    assert set(figures["flip_rate"]) == {"edits@2", "edits", "attack"}
    assert figures["f1"]["clean"].value == 71.0
    cell = {"kind": "swap", "strength": 2, "value": 60.0, "threshold": {"recall": 40.0}}
    recall = {"clean": 50.0, "mean": {"value": 40.0, "low": 20.0, "high": 60.0}}
    noise = {"metric": "accuracy", "rows": 9, "mean": {"value": 65.0}, "by_kind": {"swap": 61.0}, "cells": [cell]}
    noise["threshold"] = {"recall": recall}
    values = {name: figure.value for name, figure in figures_of({"noise": noise})["accuracy"].items()}
    assert values == {"noise": 65.0, "noise:swap": 61.0, "noise:swap@2": 60.0}
    recalls = figures_of({"noise": noise})["recall"]
    assert recalls["noise"].interval == (20.0, 60.0)
    assert recalls["noise:swap@2"].value == 40.0


def test_a_strangers_classifier_gets_a_report_of_attack_and_noise(
    invoke: Any, tiny_folder: Any, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/contraverse", "evaluate", "stranger"])
    folder, page = strangers(tiny_folder, tmp_path), tmp_path / "report.html"
    command = ("evaluate", folder, "--task", "text", "--data", rows)
    attack = ("--attack", "edits", "--budget", "1", *QUICK, "--noise", "swap", "--noise-strengths", "1")
    gates = ("--gate", "accuracy[edits@1]>=0", "--gate", "accuracy[noise:swap@1]>=0", "--gate", "accuracy[noise]>=0")
    shown = invoke(*command, *attack, *gates, "--report", page)
    assert "3 gates passed" in shown.output
    html = page.read_text(encoding="utf-8")
    for words in ("Attacks on texts as texts", "Under noise", "1 character edits", "contraverse evaluate stranger"):
        assert words in html, words
    assert "<script" not in html
    assert "is there already" in invoke(*command, *attack, "--report", page, code=2).output
    assert "ends in .html" in invoke(*command, "--report", tmp_path / "r.txt", code=2).output
    embeddings = ("--eps", ".5", "--steps", 1, "--rows", 6, "--no-diagnostics", "--report", page, "--force")
    invoke(*command, *embeddings)
    html = page.read_text(encoding="utf-8")
    assert "ε=0.5" in html
    assert "Attacks on texts as texts" not in html


def test_a_gate_on_noise_that_was_not_asked_for_is_refused_before_the_work(
    invoke: Any, classifier: Path, rows: Path
) -> None:
    command = ("evaluate", classifier, "--task", "text", "--data", rows, "--attack", "edits", "--noise", "swap", *QUICK)
    assert "noise:drop" in invoke(*command, "--gate", "accuracy[noise:drop]>=0", code=2).output


def strangers(tiny_folder: Any, tmp_path: Path) -> Path:
    """Save a classifier as transformers does, without this package."""
    folder = tmp_path / "stranger"
    config = AutoConfig.from_pretrained(tiny_folder("distilbert"))
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder("distilbert")).save_pretrained(folder)
    return folder


def own_function(tmp_path: Path, code: str) -> str:
    file = tmp_path / "own.py"
    file.write_text(code)
    return f"{file}:predict"


SCORES = "import numpy as np\ndef predict(texts):\n    return np.array([[text.count('o'), 1.5] for text in texts])\n"
NAMES = "def predict(texts):\n    return ['no' if text.count('o') > 1 else 'yes' for text in texts]\n"


@pytest.mark.parametrize(("code", "access"), [(SCORES, ()), (SCORES, ("--scores",)), (NAMES, ("--labels",))])
def test_a_function_of_ones_own_is_attacked_and_measured_under_noise(
    invoke: Any, rows: Path, tmp_path: Path, code: str, access: tuple[str, ...]
) -> None:
    spec, output, written = own_function(tmp_path, code), tmp_path / "out.json", tmp_path / "evading.jsonl"
    shown = invoke(
        "evaluate", "--predict", spec, "--data", rows, "--attack", "edits", "--budget", "1,2", *QUICK, *access,
        "--noise", "drop", "--noise-strengths", "5", "--output", output, "--adversaries", written,
        "--gate", "accuracy[noise]>=0",
    )  # fmt: skip
    evaluation = json.loads(output.read_text())
    assert evaluation["model"] == spec
    assert evaluation["evasion"]["edits"]["settings"]["access"] == ("labels" if "--labels" in access else "scores")
    assert evaluation["noise"]["rows"] == 6
    assert ("in the order of the classes no, yes" in " ".join(shown.output.split())) is ("--labels" not in access)
    for line in written.read_text().splitlines():
        success = json.loads(line)
        assert (success["rewritten"].count("o") > 1) is (success["prediction_rewritten"] == "no")


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("x = 1\n", (), "has no function predict"),
        ("def predict(texts):\n    raise ValueError('boom')\n", (), "raised ValueError: boom"),
        ("def predict(texts):\n    return [0.5 for _ in texts]\n", (), "not finite scores of the shape (1, 2)"),
        ("def predict(texts):\n    return ['maybe' for _ in texts]\n", ("--labels",), "'maybe', which is no class"),
        ("def predict(texts):\n    return [[1], [1, 2]]\n", (), "gives nothing that is an array"),
        (SCORES, ("--classes", "no"), "a class 'yes' that is not named"),
        (SCORES, ("--swap-from", "x"), "takes no --swap-from"),
        (SCORES, ("--attack", "pgd"), "attacks on texts as texts"),
        (SCORES, ("--scores", "--labels"), "not both"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(
    invoke: Any, rows: Path, tmp_path: Path, code: str, options: tuple[str, ...], message: str
) -> None:
    spec = own_function(tmp_path, code)
    attack = () if "--attack" in options else ("--attack", "edits")
    shown = invoke("evaluate", "--predict", spec, "--data", rows, *attack, *QUICK, *options, code=2)
    assert message in " ".join(shown.output.split())
    assert shown.output.count("error:") == 1


def test_a_model_and_a_function_are_one_too_many(invoke: Any, classifier: Path) -> None:
    assert "two models" in invoke("evaluate", classifier, "--predict", "own.py:f", code=2).output
    assert "give --predict" in invoke("evaluate", classifier, "--classes", "a,b", code=2).output


def test_words_that_are_to_stay_stay(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    output, written, keep = tmp_path / "out.json", tmp_path / "evading.jsonl", tmp_path / "keep.txt"
    keep.write_text("good\nno\n")
    invoke(
        "evaluate", classifier, "--task", "text", "--data", rows, "--attack", "edits", "--budget", "4", *QUICK,
        "--noise", "upper", "--noise-strengths", "5", "--keep", keep, "--output", output, "--adversaries", written,
    )  # fmt: skip
    assert json.loads(output.read_text())["noise"]["keep"] == ["good", "no"]
    for line in written.read_text().splitlines():
        success = json.loads(line)
        for word in ("good", "no"):
            assert success["original"].split().count(word) == success["rewritten"].split().count(word)
    command = ("evaluate", classifier, "--task", "text", "--data", rows)
    assert "names no word to keep" in invoke(*command, "--noise", "upper", "--keep", ", ", code=2).output
    assert "there is no noise for it" in invoke(*command, "--keep", "good", code=2).output
