"""Classifiers compared row by row on the same rows: McNemar's test, paired bootstrap, slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from contraverse.evaluation.bootstrap import Bootstrap, Interval, interval
from contraverse.evaluation.paired import holm

QUARTILES = 4
FEWEST = 10
"""Rows below which a slice gets no test: its figures are shown alone."""


@dataclass(frozen=True)
class PairedTest:
    """A run against the first one, on the same rows.

    Attributes:
        difference: its rate less the first one's, in points, with the 95 % paired bootstrap interval over rows.
        gained: rows that count for this run and not for the first.
        lost: rows that count for the first and not for this run.
        p_value: of McNemar's exact test that both are equally frequent (McNemar 1947).
        corrected: the same by Holm, over the runs, and for slices over them and all slices of the measure.
    """

    difference: Interval
    gained: int
    lost: int
    p_value: float
    corrected: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {"gained": self.gained, "lost": self.lost}
        return {"difference": self.difference._asdict(), **counts, "p": self.p_value, "p_holm": self.corrected}


@dataclass(frozen=True)
class Comparison:
    """One measure of all runs on some rows.

    Attributes:
        measure: name in `contraverse.evaluation.metrics.TABLE`.
        by: column of the slice, None of all rows.
        value: of the slice in that column.
        rows: number of rows that the measure is a share of.
        rates: percent by run.
        tests: of each run but the first, by its name; empty for a slice of fewer than `FEWEST` rows.
    """

    measure: str
    by: str | None
    value: str | None
    rows: int
    rates: Mapping[str, float]
    tests: Mapping[str, PairedTest]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        tests = {run: test.to_dict() for run, test in self.tests.items()}
        return {**self.__dict__, "rates": dict(self.rates), "tests": tests}


@dataclass(frozen=True)
class Measure:
    """A share of rows that runs are compared by.

    Attributes:
        name: in `contraverse.evaluation.metrics.TABLE`.
        rows: (N,) bool, rows that it is a share of.
        hits: by run, (N,) bool, rows that count.
    """

    name: str
    rows: np.ndarray
    hits: Mapping[str, np.ndarray]


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Compare two series of hits (n,) bool on the same rows by McNemar's exact test.

    Of the rows on which they differ, as many should be gained as lost: a binomial test of one half. Rows on which they
    agree say nothing of the difference.

    Returns:
        Rows gained by the second, rows lost, and the two-sided p-value; 1 where they differ nowhere.
    """
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return gained, lost, p_value


def compare(
    measures: Sequence[Measure], slices: Mapping[str, np.ndarray], *, resamples: int = 1000, seed: int = 0
) -> list[Comparison]:
    """Compare runs with the first one, by each measure, on all rows and on each slice.

    Args:
        measures: of the same runs, in the same order, two or more.
        slices: by column, (N,) the value of each row.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        For each measure the comparison on all rows, then those on the slices; what has no rows is left out.
    """
    results = list[Comparison]()
    for measure in measures:
        if not measure.rows.any():
            continue
        everywhere = _compare_rows(measure, None, None, measure.rows, resamples, seed)
        parts = [
            _compare_rows(measure, by, value, measure.rows & (values == value), resamples, seed)
            for by, values in slices.items()
            for value in dict.fromkeys(values.tolist())
        ]
        results += [*_corrected([everywhere]), *_corrected([part for part in parts if part.rows])]
    return results


def _compare_rows(
    measure: Measure, by: str | None, value: str | None, rows: np.ndarray, resamples: int, seed: int
) -> Comparison:
    hits = {run: values[rows] for run, values in measure.hits.items()}  # (n,) each
    count, (first, *others) = int(rows.sum()), hits
    rates = {run: 100 * float(values.mean()) if count else 0.0 for run, values in hits.items()}
    tests = dict[str, PairedTest]()
    if count >= (1 if by is None else FEWEST):
        gaps = np.stack([hits[run].astype(np.float64) - hits[first] for run in others], axis=1)  # (n, runs - 1)
        resampled = 100 * Bootstrap(count, resamples, seed).resample(lambda counts: counts @ gaps) / count
        for i, run in enumerate(others):
            gained, lost, p_value = mcnemar(hits[first], hits[run])
            difference = interval(rates[run] - rates[first], resampled[:, i], count)
            tests[run] = PairedTest(difference, gained, lost, p_value, p_value)
    return Comparison(measure.name, by, value, count, rates, tests)


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of a family of tests by Holm."""
    places = [(i, run) for i, comparison in enumerate(comparisons) for run in comparison.tests]
    corrected = iter(holm([comparisons[i].tests[run].p_value for i, run in places]))
    return [
        Comparison(
            **{
                **comparison.__dict__,
                "tests": {
                    run: PairedTest(**{**test.__dict__, "corrected": next(corrected)})
                    for run, test in comparison.tests.items()
                },
            }
        )
        for comparison in comparisons
    ]


def quartiles(lengths: np.ndarray) -> np.ndarray:
    """Slices by length (N,) str, as ``12-20 words``: quartiles, fewer where lengths are repeated."""
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, QUARTILES + 1)[1:], method="higher"))
    groups = np.searchsorted(bounds, lengths)
    names = [f"{lengths[groups == i].min()}-{lengths[groups == i].max()} words" for i in range(len(bounds))]
    return np.array([names[group] for group in groups], dtype=object)
