"""Recall and false positives at a detector's threshold under noise, against rows counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from reference.tiny import rows

from contraverse.evaluation.bootstrap import Bootstrap
from contraverse.evaluation.noise import NoiseSettings, noise_robustness
from contraverse.evaluation.noise.detected import noisy_rates
from contraverse.models import TextModel
from contraverse.models.detector import Detector


def test_rates_are_counted_over_rows_draws_and_cells() -> None:
    random = np.random.default_rng(0)
    hits, clean = random.random(40) < 0.4, random.random(40) < 0.7
    draws = [[random.random(40) < 0.5 for _ in range(2)] for _ in range(3)]
    rates = noisy_rates(hits, clean, draws, [True, False, True], Bootstrap(40, 200))
    for name, chosen in (("recall", hits), ("false_positive_rate", ~hits)):
        of_cell = [100 * np.mean([draw[i] for draw in cell for i in np.flatnonzero(chosen)]) for cell in draws]
        rate = rates[name]
        assert rate.cells == pytest.approx(of_cell)
        assert rate.clean == pytest.approx(100 * clean[chosen].mean())
        assert rate.mean.value == pytest.approx((of_cell[0] + of_cell[2]) / 2)
        assert rate.difference.value == pytest.approx(rate.mean.value - rate.clean)
        assert rate.mean.low is not None
        assert rate.mean.high is not None
        assert rate.mean.low <= rate.mean.value <= rate.mean.high
    only = noisy_rates(np.ones(40, bool), clean, draws, [True] * 3, Bootstrap(40, 50))
    assert list(only) == ["recall"]  # without benign rows there are no false positives


def test_a_model_with_a_threshold_is_measured_at_it(tiny_model: Callable[..., TextModel]) -> None:
    model, settings = tiny_model(dropout=0.0), NoiseSettings(["upper"], [1])
    assert not noise_robustness(model, rows(), settings, positive="red").at_threshold
    model.detector = Detector(positive="red", log_odds=-1e6)  # detects every row
    report = noise_robustness(model, rows(), settings, positive="red")
    assert report.metrics["recall@noise"] == report.metrics["false_positive_rate@noise"] == 100
    assert report.to_dict()["cells"][0]["threshold"] == {"recall": 100, "false_positive_rate": 100}
    assert not noise_robustness(model, rows(), settings, positive="blue").at_threshold  # it is a threshold of another
