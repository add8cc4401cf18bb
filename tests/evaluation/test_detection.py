"""Measures of a detector against scikit-learn and loops, and the threshold's promise."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import beta
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from contraverse.errors import UserError
from contraverse.evaluation.bootstrap import Bootstrap
from contraverse.evaluation.detection import (
    RECALLS,
    Share,
    calibration_error,
    choose_threshold,
    conformal_threshold,
    detection,
    ranked_metrics,
)
from contraverse.models.detector import Detector, log_odds

NAMES = ("ham", "spam", "news")


def rows(count: int, seed: int = 0, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 3) and labels (N,) with one in five rows of class 1."""
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2], count, p=[0.5, 0.2, 0.3])
    logits = random.normal(size=(count, 3)).astype(np.float32)
    logits[np.arange(count), labels] += apart
    return logits, labels


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40),
)
def test_ranked_metrics_are_scikit_learns_with_ties_and_counts(drawn: list[tuple[int, bool, int]]) -> None:
    scores, hits, counts = (np.array(column) for column in zip(*drawn, strict=True))
    result = ranked_metrics(scores.astype(float), hits, counts[None].astype(np.float32))[0]
    if not counts[hits].sum() or not counts[~hits].sum():
        assert np.isnan(result).all()
        return
    false_alarms, tpr, _ = roc_curve(hits, scores, sample_weight=counts, drop_intermediate=False)
    expected = [
        roc_auc_score(hits, scores, sample_weight=counts),
        average_precision_score(hits, scores, sample_weight=counts),
        *(max(tpr[false_alarms <= rate / 100 + 1e-12]) for rate in RECALLS.values()),
    ]
    assert result == pytest.approx(100 * np.array(expected), abs=1e-6)


def test_resamples_are_the_resampled_rows() -> None:
    logits, labels = rows(60)
    scores, hits = log_odds(logits, 1), labels == 1
    counts = next(Bootstrap(60, 8).counts())
    result = ranked_metrics(scores, hits, counts)
    for i in range(8):
        drawn = np.repeat(np.arange(60), counts[i].astype(int))
        assert result[i, 0] == pytest.approx(100 * roc_auc_score(hits[drawn], scores[drawn]))
        assert result[i, 1] == pytest.approx(100 * average_precision_score(hits[drawn], scores[drawn]))


def test_the_calibration_error_is_that_of_a_loop_over_bins() -> None:
    random = np.random.default_rng(0)
    p = np.append(random.random(200), [0.0, 1.0, 1 / 15])
    hits, counts = random.random(203) < p**2, random.integers(0, 4, 203)
    total = 0.0
    for low in range(15):
        inside = [
            i
            for i in range(203)
            for _ in range(counts[i])
            if low <= p[i] * 15 < low + 1 or (low == 14 == p[i] * 15 - 1)
        ]
        if inside:
            total += len(inside) / counts.sum() * abs(np.mean(p[inside]) - np.mean(hits[inside]))
    assert calibration_error(p, hits, counts[None])[0] == pytest.approx(100 * total)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True]), np.ones((1, 2)))[0] == 0


def test_log_odds_are_those_of_the_softmax_and_have_no_ties_where_it_has() -> None:
    logits, _ = rows(50)
    p = softmax(logits.astype(np.float64), axis=1)[:, 1]
    assert log_odds(logits, 1) == pytest.approx(np.log(p / (1 - p)))
    assert np.diff(log_odds(np.array([[0.0, 800.0], [0.0, 900.0]]), 1)) == 100


@given(st.integers(1, 300), st.sampled_from([0.5, 1.0, 5.0, 10.0, 20.0, 50.0]))
def test_the_threshold_is_the_conformal_quantile(count: int, rate: float) -> None:
    from fractions import Fraction

    scores, share = np.random.default_rng(count).permutation(count).astype(float), Fraction(str(rate)) / 100
    rank = math.ceil((count + 1) * (1 - share))
    if rank > count:
        with pytest.raises(UserError, match=f"that takes {math.ceil((1 - share) / share)} of them"):
            conformal_threshold(scores, rate)
        return
    threshold = conformal_threshold(scores, rate)
    assert sorted(scores)[rank - 1] == np.nextafter(threshold, -np.inf)
    assert np.mean(scores >= threshold) <= share


def test_the_rate_of_false_positives_is_kept_over_draws() -> None:
    random, wanted = np.random.default_rng(1), 5.0
    rates = []
    for _ in range(400):
        threshold = conformal_threshold(random.normal(size=99), wanted)
        rates.append(np.mean(random.normal(size=200) >= threshold))
    assert 100 * np.mean(rates) == pytest.approx(wanted, abs=0.4)  # (99 + 1) * 0.95 is whole: exactly 5 % expected


def test_a_report_has_every_figure_and_the_realised_rate() -> None:
    validation, test = rows(2000, 1), rows(900, 2)
    detector = choose_threshold(*validation, NAMES, "spam", 5.0)
    report = detection(*test, NAMES, "spam", detector=detector, resamples=200)
    scores, hits = log_odds(test[0], 1), test[1] == 1
    assert detector.benign_rows == (validation[1] != 1).sum()
    assert report.metrics["auroc"].value == pytest.approx(100 * roc_auc_score(hits, scores))
    for figure in report.metrics.values():
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value + 1 >= figure.low
        assert figure.low < figure.high
    flagged = softmax(test[0].astype(np.float64), axis=1)[:, 1] >= detector.threshold * (1 - 1e-12)
    assert report.values["recall"] == pytest.approx(100 * flagged[hits].mean())
    assert report.values["false_positive_rate"] == pytest.approx(100 * flagged[~hits].mean())
    assert report.values["false_positive_rate"] == pytest.approx(5, abs=2)
    assert (detector.decide(test[0], NAMES) == 1).tolist() == flagged.tolist()
    assert not (detector.decide(test[0], NAMES)[~flagged] == 1).any()
    assert report.to_dict()["threshold"]["realised"]["n"] == (~hits).sum()


def test_a_share_has_its_exact_interval() -> None:
    share = Share(0, 300).interval
    assert share is not None
    assert share.high == pytest.approx(100 * beta.ppf(0.975, 1, 300))  # Clopper and Pearson
    assert share.low == 0
    assert Share(0, 0).interval is None


def test_a_class_without_rows_leaves_what_is_undefined_out() -> None:
    logits, labels = rows(50)
    report = detection(logits, np.zeros(50, int), NAMES, "spam", resamples=20)
    assert list(report.metrics) == ["ece"]
    assert "no row is of the class spam" in report.warnings[0]
    only = detection(logits[labels == 1], labels[labels == 1], NAMES, "spam", resamples=20)
    assert "of another class than spam" in only.warnings[0]
    rare = np.zeros(50, int)
    rare[0] = 1  # most resamples hold no positive row, or it alone
    assert "auroc" in detection(logits, rare, NAMES, "spam", resamples=50).metrics


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: detection(x, y, NAMES, "spma"), 'did you mean "spam"'),
        (lambda x, y: detection(x, y, ["score"], "spam"), "no classes"),
        (lambda x, y: choose_threshold(x, y, NAMES, "spam", 0.01), "hold no threshold"),
        (lambda x, y: choose_threshold(x, y, NAMES, "spam", 100.0), "between 0 and 100"),
        (
            lambda x, y: detection(
                x, y, NAMES, "spam", detector=Detector(positive="ham", log_odds=0, false_positive_rate=1, benign_rows=9)
            ),
            "one for ham",
        ),
    ],
)
def test_mistakes_are_told(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(*rows(40))
