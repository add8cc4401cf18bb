"""Paired comparison of two methods over the same seeds and the same rows: difference, interval, test, power."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE, POWER = 0.95, 0.8


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference between two methods, in the units of the scores, and how well it is known.

    Attributes:
        difference: mean over seeds and rows.
        low, high: ends of the 95 % confidence interval; NaN with a single seed and a single row.
        p_value: of the two-sided test that the difference is 0; NaN where there is no interval.
        seeds, rows: S and R, the number of pairs.
        detectable: the smallest difference that a study of this size finds in 80 % of its repetitions at 5 %.
    """

    difference: float
    low: float
    high: float
    p_value: float
    seeds: int
    rows: int
    detectable: float

    @property
    def decided(self) -> bool:
        """True where the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def within(self, margin: float) -> bool:
        """True where the whole interval lies within ``margin`` of 0: the methods are equivalent, so far as it goes."""
        return -margin <= self.low and self.high <= margin


def paired_difference(first: np.ndarray, second: np.ndarray) -> PairedDifference:
    """``first - second`` with an interval that holds for other seeds and for other rows.

    A seed's difference is alike on all rows, and a row's is alike for all seeds, so that S x R differences are not that
    many independent ones. The variance of their mean is estimated by the two-way analysis of variance with random
    effects of seeds and rows, (MS_seeds + MS_rows - MS_rest) / (S R), with Satterthwaite's degrees of freedom
    (Satterthwaite 1946; in comparisons of readers over cases: Obuchowski and Rockette 1995, Hillis 2007). The estimate
    may be negative where neither matters; MS_rest / (S R) is the least that is taken.

    Args:
        first: (S, R) scores of one method: a row of the matrix is a seed, a column a test row; or (S, 1), where a score
            is of a whole test set, and the test is the paired t-test over the seeds. Of one seed, (1, R), it is
            that over the rows, and says nothing of other seeds.
        second: (S, R) of the other, with the same seeds and rows in the same order.

    Raises:
        ValueError: the shapes differ, or are not two-dimensional.
    """
    if first.shape != second.shape or first.ndim != 2 or first.size == 0:
        raise ValueError(f"scores of two methods have the same shape (S, R), not {first.shape} and {second.shape}")
    d = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)  # (S, R)
    seeds, rows = d.shape
    mean = float(d.mean())
    variance, freedom = _variance_of_mean(d)
    if not np.isfinite(variance):
        return PairedDifference(mean, np.nan, np.nan, np.nan, seeds, rows, np.nan)
    error = float(np.sqrt(variance))
    if error == 0:  # all differences are the same: nothing is known of how they vary, and nothing is claimed of 0
        return PairedDifference(mean, mean, mean, 1.0 if mean == 0 else 0.0, seeds, rows, 0.0)
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    detectable = (quantile + float(stats.t.ppf(POWER, freedom))) * error
    return PairedDifference(mean, mean - quantile * error, mean + quantile * error, p_value, seeds, rows, detectable)


def _variance_of_mean(d: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of ``d`` (S, R) and its degrees of freedom."""
    seeds, rows = d.shape
    by_seed, by_row = d.mean(axis=1), d.mean(axis=0)  # (S,), (R,)
    if seeds == 1 or rows == 1:
        single = by_row if seeds == 1 else by_seed
        return (float(single.var(ddof=1)) / len(single), len(single) - 1.0) if len(single) > 1 else (np.nan, np.nan)
    rest = d - by_seed[:, None] - by_row[None, :] + d.mean()  # (S, R)
    ms_seeds, ms_rows = rows * by_seed.var(ddof=1), seeds * by_row.var(ddof=1)
    free_seeds, free_rows = seeds - 1.0, rows - 1.0
    ms_rest = float((rest**2).sum()) / (free_seeds * free_rows)
    total = max(ms_seeds + ms_rows - ms_rest, ms_rest)
    parts = ms_seeds**2 / free_seeds + ms_rows**2 / free_rows + ms_rest**2 / (free_seeds * free_rows)
    freedom = total**2 / parts if parts > 0 else free_seeds * free_rows
    return float(total) / d.size, float(max(freedom, free_seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values of a family of tests, of which one false claim in twenty is allowed.

    A NaN stays NaN and is not counted as a test (Holm 1979).
    """
    known = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    corrected = list(map(float, p_values))
    largest = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def pack_rows(correct: np.ndarray) -> str:
    """(R,) bool as text: the number of rows and their bits in base64, 170 characters for 1,000 rows."""
    return f"{len(correct)}:{base64.b64encode(np.packbits(correct).tobytes()).decode()}"


def unpack_rows(text: str) -> np.ndarray:
    """(R,) bool from `pack_rows`."""
    count, _, bits = text.partition(":")
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=int(count)).astype(bool)
