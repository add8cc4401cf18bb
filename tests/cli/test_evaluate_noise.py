"""``contraverse evaluate --noise``: table, JSON, report, and mistakes."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contraverse.data import load_splits
from contraverse.evaluation import NoiseSettings, noise_robustness
from contraverse.models import TextModel
from contraverse.noise import KINDS


def test_a_classifier_is_measured_under_noise(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    flags = ("--noise", "keyboard,upper", "--noise-strengths", "1,5", "--noise-draws", 2, "--positive", "yes")
    result = invoke("evaluate", classifier, "--task", "text", "--data", rows, *flags, "--output", tmp_path / "e.json")
    evaluation = json.loads((tmp_path / "e.json").read_text())
    assert "robustness" not in evaluation
    data = load_splits("text", {"test": rows}).need("test")
    settings = NoiseSettings(("keyboard", "upper"), (1, 5), draws=2, seed=42)
    expected = noise_robustness(TextModel.load(classifier), data, settings, positive="yes")
    assert evaluation["noise"] == json.loads(json.dumps(expected.to_dict()))
    assert evaluation["metrics"]["accuracy@noise"] == expected.mean.value
    assert f"clean {expected.clean:.1f}" in result.stdout
    assert "mean of all" in result.stdout
    assert "recall of yes" in result.stdout
    assert "upper: 100 %" in " ".join(result.stderr.split())
    assert "Measuring under noise: 2 kinds, 8 passes" in result.stderr


def test_all_kinds_and_an_attack_together(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    flags = ("--noise", "all", "--noise-strengths", "5", "--eps", ".5", "--steps", 1, "--rows", 6, "--no-diagnostics")
    invoke("evaluate", classifier, "--task", "text", "--data", rows, *flags, "--output", tmp_path / "e.json")
    evaluation = json.loads((tmp_path / "e.json").read_text())
    assert set(evaluation["noise"]["by_kind"]) == set(KINDS)
    assert evaluation["noise"]["rows"] == 6
    assert {"accuracy", "accuracy@apgd-0.5", "accuracy@noise"} <= set(evaluation["metrics"])


def test_a_sentence_encoder_is_measured_on_pairs(invoke: Any, encoder: Path, tmp_path: Path) -> None:
    pairs = pd.DataFrame(
        {"a": ["the good way", "very long", "my own", "work"], "b": ["the way", "long", "own my", "new"]}
    )
    pairs["score"] = [4.0, 3.5, 2.0, 0.0]
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    flags = ("--sts", tmp_path / "pairs.csv", "--noise", "drop-space", "--noise-side", "second")
    result = invoke("evaluate", encoder, *flags, "--output", tmp_path / "e.json")
    evaluation = json.loads((tmp_path / "e.json").read_text())
    assert evaluation["noise"]["side"] == "second"
    assert evaluation["noise"]["clean"] == pytest.approx(evaluation["metrics"]["pairs"])
    assert "Spearman under noise by strength, 4 rows" in result.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--noise", "keybord"), 'no kind of noise is called "keybord"\ndid you mean "keyboard"'),  # codespell:ignore
        (("--noise", "leet", "--noise-strengths", "6"), "'6' is not possible"),
        (("--noise", "leet", "--noise-strengths", ""), "strengths are 1 to 5"),
        (("--noise-strengths", "1"), "--noise-strengths: there is no noise for it"),
        (("--noise", "leet", "--positive", "maybe"), '--positive: no class is called "maybe"'),
        (("--noise", "leet", "--anli", "x"), "leave --anli out"),
    ],
)
def test_mistakes_are_told_in_one_message(
    invoke: Any, classifier: Path, rows: Path, flags: tuple[str, ...], says: str
) -> None:
    result = invoke("evaluate", classifier, "--task", "text", "--data", rows, *flags, code=2)
    assert says in result.stderr
    assert result.stdout == ""


def test_an_encoder_without_pairs_is_refused(invoke: Any, encoder: Path) -> None:
    result = invoke("evaluate", encoder, "--noise", "leet", code=2)
    assert "name pairs with --sts" in result.stderr


def test_rows_in_chinese_or_emoji_alone_have_a_right_result(invoke: Any, classifier: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n你好世界,yes\n世界,no\n🎉🎊,yes\n👩\u200d👧,no\n", encoding="utf-8")
    result = invoke("evaluate", classifier, "--task", "text", "--data", file, "--noise", "keyboard,leet,append")
    assert "touches no row" in result.stdout
    assert "no row has a place for keyboard, leet" in " ".join(result.stderr.split())


def test_a_run_that_measures_noise_has_it_in_its_files(
    invoke: Any, rows: Path, tiny_folder: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = ("evaluation.noise=[keyboard,drop-space]", "evaluation.noise_strengths=[5]", "evaluation.epsilons=[]")
    flags = [
        word
        for setting in (*settings, f"model.name={tiny_folder()}", "train.max_steps=2")
        for word in ("--set", setting)
    ]
    invoke("train", "ce", "--task", "text", "--data", rows, "--output", run, *flags)
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [cell["kind"] for cell in evaluation["noise"]["cells"]] == ["keyboard", "drop-space"]
    assert "accuracy@noise" in evaluation["metrics"]
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Under noise" in report
    assert "mean of all" in report
    assert "<svg" in report


def test_noise_on_images_is_refused(invoke: Any, folder: Path, tmp_path: Path) -> None:
    setting = ("--set", "evaluation.noise=[leet]")
    result = invoke("train", "ce", "--task", "images", "--data", folder, "--output", tmp_path / "run", *setting, code=2)
    assert "noise is for texts" in result.stderr
