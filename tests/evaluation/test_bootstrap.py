"""Bootstrap over rows: metrics of confusion matrices, resamples, intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from contraverse.evaluation.bootstrap import CLASS_METRICS, Bootstrap, confusions, correlations, interval
from contraverse.evaluation.metrics import METRICS, compute


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 99))
def test_metrics_of_resamples_are_those_of_the_resampled_rows(rows: list[tuple[int, int]], seed: int) -> None:
    labels, predicted = (np.array(column) for column in zip(*rows, strict=True))
    drawn = np.random.default_rng(seed).integers(0, len(rows), len(rows))
    counts = np.bincount(drawn, minlength=len(rows)).astype(np.float32)[None]
    for classes in (4, 2):
        true, chosen = labels % classes, predicted % classes
        matrix = confusions(true, chosen, classes, counts)
        assert matrix.sum() == len(rows)
        for name, metric in CLASS_METRICS.items():
            if name == "f1" and classes > 2:
                continue
            expected = compute([name], np.eye(classes)[chosen[drawn]], true[drawn])[name]
            assert metric(matrix)[0] == pytest.approx(expected, abs=1e-9), name


def test_every_metric_of_classes_can_be_resampled() -> None:
    assert set(METRICS) == set(CLASS_METRICS) | {"pearson", "spearman"}


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlations_are_those_of_the_resampled_rows(metric: str) -> None:
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=40).round(1), random.integers(0, 5, 40).astype(float)
    drawn = random.integers(0, 40, (6, 40))
    counts = np.stack([np.bincount(row, minlength=40) for row in drawn]).astype(np.float32)
    expected = [compute([metric], scores[row], labels[row])[metric] for row in drawn]
    assert correlations(metric, scores, labels, counts) == pytest.approx(expected)
    assert correlations(metric, np.ones(40), labels, counts) == pytest.approx(np.zeros(6))


def test_resamples_are_multinomial_and_decided_by_the_seed() -> None:
    counts = np.concatenate(list(Bootstrap(50, 2000, 3).counts()))
    assert counts.shape == (2000, 50)
    assert (counts.sum(1) == 50).all()
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.03)  # of Binomial(50, 1/50)
    assert (counts == np.concatenate(list(Bootstrap(50, 2000, 3).counts()))).all()
    assert not (counts == np.concatenate(list(Bootstrap(50, 2000, 4).counts()))).all()


def test_the_interval_of_a_share_is_that_of_its_standard_error() -> None:
    right = (np.arange(400) % 4 > 0).astype(np.float64)
    resampled = Bootstrap(400, 4000).resample(lambda counts: 100 * counts @ right / 400)
    value, low, high = interval(75.0, resampled, 400)
    error = 100 * np.sqrt(0.75 * 0.25 / 400)
    assert (value, low, high) == pytest.approx((75, 75 - 1.96 * error, 75 + 1.96 * error), abs=0.35)
    assert abs(stats.skew(resampled)) < 0.3


def test_a_single_row_says_nothing_of_others() -> None:
    assert interval(5.0, np.full(10, 5.0), 1) == (5.0, None, None)
