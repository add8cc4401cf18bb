"""Measures of a detector: one class, the positive, against all others, the benign rows.

All are computed from how often each row is counted: a bootstrap over rows is the same code as the figure itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import binomtest

from contraverse.errors import UserError
from contraverse.evaluation.bootstrap import CONFIDENCE, Bootstrap, Interval, interval
from contraverse.models.detector import Detector, class_id, log_odds

RECALLS = {"recall_fpr1": 1.0, "recall_fpr5": 5.0}
"""Metrics that are the recall at a share of false positives, in percent."""
RANKED = ("auroc", "auprc", *RECALLS)
BINS = 15
"""Bins of equal width of the calibration error, as in Guo et al. 2017."""


def ranked_metrics(scores: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Metrics `RANKED` (b, 4) in percent of resamples; NaN where a resample has no positive or no benign row.

    Rows of equal scores are detected together. AUROC is the area by trapezoids, AUPRC the average precision (the sum of
    precisions weighted by the steps of recall), and a recall that of the lowest threshold whose share of false
    positives among *these* benign rows is at most what it says: 0 where only a threshold above all scores is left.

    Args:
        scores: (N,), larger for the positive class.
        positive: (N,) bool.
        counts: (b, N) of how often each row is counted.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # last row of each run of equal scores
    counted, hits = counts[:, order].astype(np.float64), positive[order]
    tp = np.cumsum(counted * hits, axis=1)[:, ends]  # (b, thresholds)
    fp = np.cumsum(counted * ~hits, axis=1)[:, ends]
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, false_alarms = tp / tp[:, -1:], fp / fp[:, -1:]
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
    steps = np.diff(recall, axis=1, prepend=0.0)
    figures = [
        (np.diff(false_alarms, axis=1, prepend=0.0) * (recall - steps / 2)).sum(1),
        (steps * precision).sum(1),
        *(np.where(false_alarms <= rate / 100 + 1e-12, recall, 0.0).max(1) for rate in RECALLS.values()),
    ]
    both = (tp[:, -1] > 0) & (fp[:, -1] > 0)  # (b,)
    return np.where(both[:, None], 100 * np.stack(figures, axis=1), np.nan)


def calibration_error(probabilities: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Expected calibration error (b,) in percent: |mean probability - share of positives| by bin, weighted by its rows.

    Of the probability of the positive class, in 15 bins of equal width (Naeini et al. 2015).

    Args:
        probabilities: (N,) in [0, 1].
        positive: (N,) bool.
        counts: (b, N) of how often each row is counted.
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = (positive - probabilities)[:, None] * (bins[:, None] == np.arange(BINS))  # (N, bins)
    return np.asarray(100 * np.abs(counts @ gaps).sum(1) / counts.sum(1))


def conformal_threshold(benign: np.ndarray, false_positive_rate: float) -> float:
    """Least threshold at which a new benign row is detected with a chance of at most ``false_positive_rate``.

    The ceil((n + 1)(1 - a))-th smallest of n benign scores, exceeded (split conformal prediction, Vovk et al. 2005).
    The chance is over the draw of these rows and of the new one, from one distribution. The float above it is
    returned, so that ``score >= threshold`` detects what is above the quantile.

    Args:
        benign: (n,) scores of benign rows that the model was not trained on.
        false_positive_rate: a, in percent.

    Raises:
        UserError: n is below (1 - a) / a, so that no threshold has that rate.
    """
    share = false_positive_rate / 100
    rank = math.ceil(round((len(benign) + 1) * (1 - share), 9))  # rounded: (1 - 0.9) * 10 is not 1 in floats
    if rank > len(benign):
        needed = math.ceil(round((1 - share) / share, 9))
        raise UserError(
            f"{len(benign)} benign validation rows hold no threshold for {false_positive_rate:g} % false positives",
            hint=f"that takes {needed} of them, or a larger rate",
        )
    return float(np.nextafter(np.sort(benign.astype(np.float64))[rank - 1], np.inf))


def choose_threshold(
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    positive: str,
    false_positive_rate: float = 1.0,
) -> Detector:
    """Choose a detector's threshold on rows that it was not trained on: see `conformal_threshold`.

    Args:
        logits: (N, C) of validation rows.
        labels: (N,) their classes.
        names: of the C classes.
        positive: class to detect.
        false_positive_rate: wanted, in percent.

    Raises:
        UserError: no such class, or too few benign rows.
    """
    if not 0 < false_positive_rate < 100:
        raise UserError(f"a rate of false positives lies between 0 and 100 %, not at {false_positive_rate:g}")
    index = class_id(positive, names)
    benign = log_odds(logits, index)[labels != index]
    threshold = conformal_threshold(benign, false_positive_rate)
    return Detector(
        positive=positive, log_odds=threshold, false_positive_rate=false_positive_rate, benign_rows=len(benign)
    )


@dataclass(frozen=True)
class Share:
    """``count`` of ``n`` rows, in percent, with its exact interval (Clopper and Pearson 1934); None of no rows."""

    count: int
    n: int

    @property
    def interval(self) -> Interval | None:
        """Percent and the ends of its 95 % interval."""
        if not self.n:
            return None
        low, high = binomtest(self.count, self.n).proportion_ci(CONFIDENCE, "exact")
        return Interval(100 * self.count / self.n, 100 * float(low), 100 * float(high))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        value, low, high = self.interval or (None, None, None)
        return {"percent": value, "n": self.n, "low": low, "high": high}


@dataclass(frozen=True)
class DetectionReport:
    """Measures of a detector on labelled rows.

    Attributes:
        positive: class that is detected.
        positives: rows of it.
        benign: rows of all other classes.
        metrics: percent by name, with bootstrap intervals over rows; what is undefined is not among them.
        detector: threshold that was chosen on other rows; None where there is none.
        recall: of the positive class at that threshold.
        false_positives: share of the benign rows at that threshold: the rate that was realised.
        warnings: reasons why a figure is missing or to be doubted.
    """

    positive: str
    positives: int
    benign: int
    metrics: dict[str, Interval]
    detector: Detector | None = None
    recall: Share | None = None
    false_positives: Share | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """Metrics by name in percent, those at the threshold too: ``recall`` and ``false_positive_rate``."""
        values = {name: figure.value for name, figure in self.metrics.items()}
        for name, share in (("recall", self.recall), ("false_positive_rate", self.false_positives)):
            if share is not None and share.interval is not None:
                values[name] = share.interval.value
        return values

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        result: dict[str, Any] = {
            "positive": self.positive,
            "positives": self.positives,
            "benign": self.benign,
            "metrics": {name: figure._asdict() for name, figure in self.metrics.items()},
            "warnings": self.warnings,
        }
        if self.detector is not None and self.recall is not None and self.false_positives is not None:
            result["threshold"] = {
                **self.detector.model_dump(),
                "probability": self.detector.threshold,
                "recall": self.recall.to_dict(),
                "realised": self.false_positives.to_dict(),
            }
        return result


def detection(
    logits: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    positive: str,
    *,
    detector: Detector | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> DetectionReport:
    """Measure how well ``positive`` is told from all other classes.

    Args:
        logits: (N, C).
        labels: (N,) classes.
        names: of the C classes.
        positive: class to detect.
        detector: threshold, chosen on other rows than these.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: no such class, or the detector is one of another class.
    """
    index, labels = class_id(positive, names), np.asarray(labels)
    if detector is not None and detector.positive != positive:
        raise UserError(f"the threshold is one for {detector.positive}, and not for {positive}")
    scores, hits = log_odds(logits, index), labels == index  # (N,), (N,)
    rows, probabilities = len(labels), expit(scores)

    def statistic(counts: np.ndarray) -> np.ndarray:
        ranked = ranked_metrics(scores, hits, counts)
        return np.column_stack([ranked, calibration_error(probabilities, hits, counts)])  # (b, 5)

    values = statistic(np.ones((1, rows), np.float32))[0]
    resampled = Bootstrap(rows, resamples, seed).resample(statistic)  # (B, 5)
    metrics = dict[str, Interval]()
    for i, name in enumerate((*RANKED, "ece")):
        known = resampled[np.isfinite(resampled[:, i]), i]
        if np.isfinite(values[i]):
            metrics[name] = interval(float(values[i]), known, rows if len(known) else 1)
    positives, benign, warnings = int(hits.sum()), int((~hits).sum()), list[str]()
    if not positives or not benign:
        kind = f"of the class {positive}" if not positives else f"of another class than {positive}"
        warnings.append(f"no row is {kind}: AUROC, AUPRC and recall at a rate of false positives are undefined")
    elif benign < 100:
        warnings.append(f"{benign} benign rows: a single one is more than 1 % of them")
    recall = false_positives = None
    if detector is not None:
        detected = scores >= detector.log_odds
        recall, false_positives = (
            Share(int((detected & hits).sum()), positives),
            Share(int((detected & ~hits).sum()), benign),
        )
    return DetectionReport(positive, positives, benign, metrics, detector, recall, false_positives, warnings)
