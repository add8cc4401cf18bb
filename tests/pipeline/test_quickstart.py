"""The quick start on a tiny encoder: both runs, their rows and the page that compares them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contraverse.errors import UserError
from contraverse.pipeline import quickstart, run
from contraverse.recipes import configure


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[..., Path]) -> None:
    module = sys.modules["contraverse.pipeline.quickstart"]
    settings = {
        "data.train_rows": 40,
        "model.name": str(tiny_folder()),
        "train.num_train_epochs": 1,
        "evaluation.epsilons": [0.1, 0.3],
        "evaluation.attack": "pgd",
        "evaluation.steps": 1,
    }
    monkeypatch.setattr(module, "SETTINGS", settings)


@pytest.mark.usefixtures("small")
def test_both_methods_are_trained_attacked_and_compared(tmp_path: Path) -> None:
    done = quickstart(tmp_path / "quick")
    assert list(done.runs) == ["ce", "scal"]
    assert all("accuracy@pgd-0.3" in result.metrics for result in done.runs.values())
    page = done.report.read_text(encoding="utf-8")
    for name, result in (("cross-entropy", done.runs["ce"]), ("SCAL", done.runs["scal"])):
        assert name in page
        assert f"{result.metrics['accuracy@pgd-0.3']:.1f}" in page
    # Each is an ordinary run, which its configuration repeats.
    again = run(configure(file=tmp_path / "quick" / "scal" / "config.yaml"), tmp_path / "again")
    assert again.metrics == done.runs["scal"].metrics
    with pytest.raises(UserError, match="not empty"):
        quickstart(tmp_path / "quick")
