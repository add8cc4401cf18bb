"""Bootstrap intervals over rows, of metrics and of their paired differences (Efron and Tibshirani 1993, chapter 13)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_BLOCK = 4_000_000


class Interval(NamedTuple):
    """A figure and the ends of its 95 % interval; None of a single row, which says nothing of others."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of N rows, the same for every figure, so that differences are paired.

    Attributes:
        rows: N.
        resamples: number B of resamples.
        seed: of the draws.
    """

    rows: int
    resamples: int = 1000
    seed: int = 0

    def counts(self) -> Iterator[np.ndarray]:
        """Blocks (b, N) float32 of how often a resample holds each row; the rows of the blocks add up to B."""
        draw = np.random.default_rng(self.seed)
        block = max(1, _BLOCK // self.rows)
        for first in range(0, self.resamples, block):
            size = min(block, self.resamples - first)
            drawn = draw.integers(0, self.rows, (size, self.rows), dtype=np.int64)
            drawn += self.rows * np.arange(size)[:, None]  # (b, N)
            yield np.bincount(drawn.ravel(), minlength=size * self.rows).reshape(size, -1).astype(np.float32)

    def resample(self, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """``statistic`` of each resample, (B, ...): a function of counts (b, N) to figures (b, ...)."""
        return np.concatenate([statistic(counts) for counts in self.counts()])


def interval(value: float, resampled: np.ndarray, rows: int) -> Interval:
    """Percentile interval of a figure from its values (B,) on resamples of ``rows`` rows."""
    if rows < 2:
        return Interval(value, None, None)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


ClassMetric = Callable[[np.ndarray], np.ndarray]
"""Confusion matrices (..., C, C), a row for each label and a column for each predicted class, to percent (...)."""


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return 100 * np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def _f1_of_classes(confusion: np.ndarray) -> np.ndarray:
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(-1) + confusion.sum(-2)
    return 200 * hits / np.where(total > 0, total, 1)


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    there = confusion.sum(-1) + confusion.sum(-2) > 0
    return (_f1_of_classes(confusion) * there).sum(-1) / there.sum(-1)


def _mcc(confusion: np.ndarray) -> np.ndarray:
    count, hits = confusion.sum((-2, -1)), np.trace(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    covariance = hits * count - (true * predicted).sum(-1)
    spread = (count**2 - (predicted**2).sum(-1)) * (count**2 - (true**2).sum(-1))
    return np.where(spread > 0, 100 * covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


CLASS_METRICS: dict[str, ClassMetric] = {
    "accuracy": _accuracy,
    "error_rate": lambda confusion: 100 - _accuracy(confusion),
    "f1": lambda confusion: _f1_of_classes(confusion)[..., 1],
    "macro_f1": _macro_f1,
    "mcc": _mcc,
}
"""Metrics of `contraverse.evaluation.METRICS` as functions of confusion matrices, which resamples of rows need."""


def confusions(labels: np.ndarray, predicted: np.ndarray, classes: int, counts: np.ndarray) -> np.ndarray:
    """Confusion matrices (b, C, C) float64 of the resamples ``counts`` (b, N)."""
    codes = labels.astype(np.int64) * classes + predicted
    used, columns = np.unique(codes, return_inverse=True)
    matrices = np.zeros((len(counts), classes * classes))
    for column, code in enumerate(used):
        matrices[:, code] = counts[:, columns == column].sum(1)
    return matrices.reshape(-1, classes, classes)


def correlations(metric: str, scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's or Spearman's correlation (b,) x 100 of the resamples ``counts`` (b, N); 0 where it is not defined."""
    rows = np.arange(len(labels))
    drawn = np.stack([np.repeat(rows, count.astype(np.int64)) for count in counts])  # (b, N)
    x, y = scores[drawn].astype(np.float64), labels[drawn].astype(np.float64)
    if metric == "spearman":
        x, y = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.where(spread > 0, 100 * (x * y).sum(1) / np.where(spread > 0, spread, 1), 0.0)
