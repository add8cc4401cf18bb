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
        components: variances of a single difference between seeds, between rows, and of both together, by which
            `detectable_with` extrapolates; None with a single seed, which says nothing of others.
    """

    difference: float
    low: float
    high: float
    p_value: float
    seeds: int
    rows: int
    detectable: float
    components: tuple[float, float, float] | None = None

    def detectable_with(self, seeds: int) -> float:
        """`detectable` of a study with so many seeds (2 or more) and the same rows; NaN without `components`."""
        if self.components is None:
            return float("nan")
        of_seeds, of_rows, rest = self.components
        squares = self.rows * of_seeds + rest, seeds * of_rows + rest  # the mean squares to expect
        error, freedom = _variance(*squares, rest, seeds, self.rows)
        return _detectable(error, freedom)

    def seeds_to_detect(self, difference: float, most: int = 200) -> int | None:
        """Smallest number of seeds with which a study finds ``difference`` four times in five.

        None where ``most`` do not, since the rows alone leave too much open, or where it cannot be told.
        """
        return next((n for n in range(2, most + 1) if self.detectable_with(n) <= difference), None)

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
        return PairedDifference(mean, mean, mean, 1.0 if mean == 0 else 0.0, seeds, rows, 0.0, _components(d))
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    detectable = _detectable(variance, freedom)
    low, high = mean - quantile * error, mean + quantile * error
    return PairedDifference(mean, low, high, p_value, seeds, rows, detectable, _components(d))


def _variance_of_mean(d: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of ``d`` (S, R) and its degrees of freedom."""
    seeds, rows = d.shape
    by_seed, by_row = d.mean(axis=1), d.mean(axis=0)  # (S,), (R,)
    if seeds == 1 or rows == 1:
        single = by_row if seeds == 1 else by_seed
        return (float(single.var(ddof=1)) / len(single), len(single) - 1.0) if len(single) > 1 else (np.nan, np.nan)
    return _variance(*_mean_squares(d), seeds, rows)


def _mean_squares(d: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of seeds, of rows and of the rest of ``d`` (S, R), both at least 2."""
    seeds, rows = d.shape
    by_seed, by_row = d.mean(axis=1), d.mean(axis=0)  # (S,), (R,)
    rest = d - by_seed[:, None] - by_row[None, :] + d.mean()  # (S, R)
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
    return float(rows * by_seed.var(ddof=1)), float(seeds * by_row.var(ddof=1)), ms_rest


def _variance(ms_seeds: float, ms_rows: float, ms_rest: float, seeds: int, rows: int) -> tuple[float, float]:
    """Variance of the mean over S seeds and R rows, and Satterthwaite's degrees of freedom; S >= 2."""
    if rows == 1:
        return ms_seeds / seeds, seeds - 1.0
    free_seeds, free_rows = seeds - 1.0, rows - 1.0
    total = max(ms_seeds + ms_rows - ms_rest, ms_rest)
    parts = ms_seeds**2 / free_seeds + ms_rows**2 / free_rows + ms_rest**2 / (free_seeds * free_rows)
    freedom = total**2 / parts if parts > 0 else free_seeds * free_rows
    return float(total) / (seeds * rows), float(max(freedom, free_seeds))


def _components(d: np.ndarray) -> tuple[float, float, float] | None:
    """Variances of a single difference between seeds, rows and of the rest, none below 0; None of a single seed."""
    seeds, rows = d.shape
    if seeds == 1:
        return None
    if rows == 1:
        return float(d.var(ddof=1)), 0.0, 0.0
    ms_seeds, ms_rows, ms_rest = _mean_squares(d)
    return max(0.0, (ms_seeds - ms_rest) / rows), max(0.0, (ms_rows - ms_rest) / seeds), ms_rest


def _detectable(variance: float, freedom: float) -> float:
    """Difference that a test at 5 % finds with a probability of `POWER`."""
    return float((stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) + stats.t.ppf(POWER, freedom)) * np.sqrt(variance))


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
