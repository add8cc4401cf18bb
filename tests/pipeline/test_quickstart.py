"""The quick start on a tiny encoder: both runs, their rows and the page that compares them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        "evaluation.rows": 8,
        "evaluation.diagnostics": False,
        "evaluation.noise": ["swap"],
        "evaluation.noise_strengths": [1],
        "evaluation.evasion": ["edits"],
        "evaluation.evasion_budgets": [1],
        "evaluation.evasion_rows": 4,
    }
    monkeypatch.setattr(module, "SETTINGS", settings)


@pytest.mark.usefixtures("small")
def test_both_methods_are_trained_attacked_and_compared(tmp_path: Path) -> None:
    bars: list[str] = []

    @contextmanager
    def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done_rows: list[int] = []
        bars.append(what)
        yield done_rows.append
        assert sum(done_rows) == total, what

    done = quickstart(tmp_path / "quick", counting=counting)
    assert bars == ["Measuring", "Noise", "Attacking"] * 2
    for metric in ("accuracy@noise", "accuracy@edits-1"):
        assert all(metric in result.metrics for result in done.runs.values())
    assert list(done.runs) == ["ce", "scal"]
    assert all("accuracy@pgd-0.3" in result.metrics for result in done.runs.values())
    page = done.report.read_text(encoding="utf-8")
    for name, result in (("cross-entropy", done.runs["ce"]), ("SCAL", done.runs["scal"])):
        assert name in page
        assert f"{result.metrics['accuracy@pgd-0.3']:.1f}" in page
    assert "Under noise" in page
    assert "Attacks on texts as texts" in page
    assert "SCAL, edits" in page
    # Each is an ordinary run, which its configuration repeats.
    again = run(configure(file=tmp_path / "quick" / "scal" / "config.yaml"), tmp_path / "again")
    assert again.metrics == done.runs["scal"].metrics
    with pytest.raises(UserError, match="not empty"):
        quickstart(tmp_path / "quick")
