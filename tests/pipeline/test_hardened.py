"""``evaluation.hardened``: noise and look-alikes are measured twice, and the model stays as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contraverse.evaluation.keys import MetricKey, named_metrics
from contraverse.evaluation.paired import unpack_rows
from contraverse.models import TextModel
from contraverse.models.normalizing import is_hardened
from contraverse.pipeline.result import silent, uncounted
from contraverse.pipeline.text import TextSteps
from contraverse.recipes import RunConfig, configure
from contraverse.reporting.names import heading


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Callable[..., Path]) -> RunConfig:
    rows = "".join(f"{'good work' if i % 2 else 'no house'} {i},{i % 2}\n" for i in range(12))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows, encoding="utf-8")
    settings = {
        "task": "text",
        "data.source": str(tmp_path / "rows.csv"),
        "model.name": str(tiny_folder()),
        "evaluation.epsilons": [],
        "evaluation.diagnostics": False,
        "evaluation.noise": ["homoglyph"],
        "evaluation.noise_strengths": [5],
        "evaluation.evasion": ["unicode", "append"],
        "evaluation.evasion_budgets": [1, 2],
        "evaluation.hardened": True,
    }
    return configure("ce", settings=settings)


def test_noise_and_the_unicode_attack_are_measured_once_more(config: RunConfig) -> None:
    steps = TextSteps(config)
    splits = steps.load_and_prepare(test=True)
    model, _ = steps.init_model(splits)
    assert isinstance(model, TextModel)
    measured = steps.measure(splits, model.eval(), say=silent, counting=uncounted, test=True)
    assert not is_hardened(model.tokenizer)
    assert set(measured["hardened"]["evasion"]) == {"unicode"}
    metrics = named_metrics(measured)
    expected = {"accuracy@noise", "accuracy@unicode-2", "accuracy@append-2"}
    expected |= {"accuracy@hardened-noise", "accuracy@hardened-unicode-1", "accuracy@hardened-unicode-2"}
    assert expected <= metrics.keys()
    for name in ("accuracy@unicode-1", "accuracy@append-2"):
        assert 100 * unpack_rows(measured["right"][name]).mean() == pytest.approx(metrics[name])
    # Look-alikes are undone: under them the hardened model is as good as on clean text.
    assert metrics["accuracy@hardened-noise"] == pytest.approx(metrics["accuracy"])


def test_a_hardened_figure_has_a_name_for_readers() -> None:
    key = MetricKey.read("accuracy@hardened-unicode-4")
    assert key == ("accuracy", "hardened-unicode", 4.0)
    assert heading(key) == "Accuracy, unicode 4, hardened"
    assert heading("accuracy@hardened-noise") == "Accuracy, noise, hardened"
