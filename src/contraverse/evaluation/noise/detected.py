"""Recall and false positives of a detector at its threshold, clean and under noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contraverse.evaluation.bootstrap import Bootstrap, Interval, interval

RATES = ("recall", "false_positive_rate")
"""Share of the rows of the positive class that are detected, and of all other rows, in percent."""


@dataclass(frozen=True)
class NoisyRate:
    """A rate at a detector's threshold, in percent.

    Attributes:
        clean: without noise.
        mean: over the kinds and strengths that touch any row, with its 95 % bootstrap interval over rows.
        difference: of ``mean`` to ``clean``, paired.
        cells: by kind and strength, mean over the draws.
    """

    clean: float
    mean: Interval
    difference: Interval
    cells: Sequence[float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the cells are written beside the metric's."""
        return {"clean": self.clean, "mean": self.mean._asdict(), "difference": self.difference._asdict()}


def noisy_rates(
    hits: np.ndarray,
    clean: np.ndarray,
    draws: Sequence[Sequence[np.ndarray]],
    touched: Sequence[bool],
    bootstrap: Bootstrap,
) -> Mapping[str, NoisyRate]:
    """Rates `RATES` by name; one without rows to be a rate of is left out.

    Args:
        hits: (N,) bool, rows of the positive class.
        clean: (N,) bool, rows that are detected without noise.
        draws: the same under noise, by cell and draw.
        touched: cells that are of the mean; where none is, the mean is the clean rate.
        bootstrap: resamples of the N rows.
    """
    detected = np.stack(
        [clean.astype(np.float64), *(np.mean(cell, axis=0) for cell in draws)], axis=1
    )  # (N, 1 + cells)
    columns = [i for i, kept in enumerate(touched, 1) if kept] or [0]
    rates = dict[str, NoisyRate]()
    for name, rows in zip(RATES, (hits, ~hits), strict=True):
        if not rows.any():
            continue
        values = 100 * detected[rows].mean(0)  # (1 + cells,)

        def statistic(counts: np.ndarray, rows: np.ndarray = rows) -> np.ndarray:
            """Clean rate and its mean under noise (b, 2); NaN where a resample has none of the rows."""
            total = counts[:, rows].sum(1)  # (b,)
            with np.errstate(invalid="ignore"):
                resampled = 100 * (counts[:, rows] @ detected[rows]) / total[:, None]  # (b, 1 + cells)
            return np.stack([resampled[:, 0], resampled[:, columns].mean(1)], axis=1)

        resampled = bootstrap.resample(statistic)
        resampled = resampled[np.isfinite(resampled[:, 0])]
        mean = float(values[columns].mean())
        rates[name] = NoisyRate(
            float(values[0]),
            interval(mean, resampled[:, 1], int(rows.sum())),
            interval(mean - float(values[0]), resampled[:, 1] - resampled[:, 0], int(rows.sum())),
            [float(value) for value in values[1:]],
        )
    return rates
