"""Settings of an evaluation under noise, and its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from contraverse.errors import UserError
from contraverse.evaluation.bootstrap import Interval
from contraverse.evaluation.noise.detected import NoisyRate
from contraverse.noise import KINDS, STRENGTHS, get_kind, parse_kinds

Side = Literal["both", "first", "second"]
VOID_SHARE = 0.5
"""Share of the changed rows with unchanged tokens above which a kind of noise gets a warning."""


@dataclass(frozen=True)
class NoiseSettings:
    """Noise that a model is measured under.

    Attributes:
        kinds: names in `contraverse.noise.KINDS`.
        strengths: of each kind, 1 to 5.
        draws: how often each row is drawn anew, >= 1.
        seed: of the draws; training's are others.
        side: of pairs, the texts that are changed.
        keep: words and phrases that stay as they are.

    Raises:
        UserError: there is no such kind, strength or side, or no draw.
    """

    kinds: Sequence[str] = tuple(KINDS)
    strengths: Sequence[int] = STRENGTHS
    draws: int = 1
    seed: int = 0
    side: Side = "both"
    keep: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(parse_kinds(self.kinds)))
        object.__setattr__(self, "strengths", tuple(sorted(set(self.strengths))))
        for strength in self.strengths:
            get_kind(self.kinds[0]).share(strength)
        if not self.strengths or self.draws < 1:
            raise UserError("noise is measured at one strength or more, in one draw or more")
        if self.side not in ("both", "first", "second"):
            raise UserError(f"noise is on both texts of a pair, the first or the second, not {self.side!r}")

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Kinds with strengths, in the order in which they are measured."""
        return [(kind, strength) for kind in self.kinds for strength in self.strengths]

    def columns(self, count: int) -> list[int]:
        """Columns of ``count`` texts that are changed."""
        if count == 1 or self.side == "both":
            return list(range(count))
        return [0] if self.side == "first" else list(range(1, count))

    def progress_total(self, rows: int) -> int:
        """Total number of rows that ``progress`` counts."""
        return rows * (1 + len(self.cells) * self.draws)


@dataclass(frozen=True)
class NoiseCell:
    """A kind of noise at one strength.

    Attributes:
        value: metric, mean over the draws.
        difference: to the clean metric, with its paired bootstrap interval over rows.
        untouched: rows that the kind cannot touch, as Latin look-alikes a Chinese text.
        changed: share of the rows, over the draws, that are other texts than before.
        same_tokens: share of these whose tokens did not change; None where nothing changed.
        recall: percent of the rows of each class that are predicted as it; empty where there are no classes.
    """

    kind: str
    strength: int
    value: float
    difference: Interval
    untouched: int
    changed: float
    same_tokens: float | None
    recall: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NoiseExample:
    """A row that was right and is wrong under noise.

    Attributes:
        texts: with each changed place as ⟦old→new⟧, and hidden characters as escapes.
    """

    row: int
    kind: str
    strength: int
    texts: tuple[str, ...]
    label: str
    predicted: str


@dataclass(frozen=True)
class NoiseReport:
    """A metric clean and under noise.

    Attributes:
        metric: its name; of several STS sets their average.
        clean: without noise.
        mean: over the kinds and strengths that touch any row, as ImageNet-C's mean corruption error is one over
            corruptions and severities (Hendrycks and Dietterich 2019), with its interval.
        difference: of ``mean`` to ``clean``, with its interval; 0 where nothing could be touched.
        cells: in the order of the settings.
        recall: percent of the rows of each class that are predicted as it, without noise.
        positive: class whose recall matters, as of a detector; None where there is none.
        at_threshold: recall and false positives at the detector's threshold; empty without one.
        warnings: reasons why a figure may mislead.
    """

    metric: str
    clean: float
    mean: Interval
    difference: Interval
    cells: Sequence[NoiseCell]
    rows: int
    settings: NoiseSettings
    recall: Mapping[str, float] = field(default_factory=dict)
    positive: str | None = None
    examples: Sequence[NoiseExample] = ()
    at_threshold: Mapping[str, NoisyRate] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Flat: the metric, ``accuracy@noise``, their mean, and ``accuracy@noise-keyboard``, that over strengths."""
        figures = {self.metric: self.clean, f"{self.metric}@noise": self.mean.value}
        for kind, value in self.by_kind.items():
            figures[f"{self.metric}@noise-{kind}"] = value
        figures |= {f"{name}@noise": rate.mean.value for name, rate in self.at_threshold.items()}
        return figures

    @property
    def by_kind(self) -> dict[str, float]:
        """Mean over the strengths of each kind."""
        values: dict[str, list[float]] = {}
        for cell in self.cells:
            values.setdefault(cell.kind, []).append(cell.value)
        return {kind: sum(numbers) / len(numbers) for kind, numbers in values.items()}

    def mean_recall(self, name: str) -> float:
        """Recall of the class ``name``, mean over the cells of `mean`."""
        values = [cell.recall[name] for cell in self.cells if cell.untouched < self.rows] or [self.recall[name]]
        return sum(values) / len(values)

    @property
    def warnings(self) -> list[str]:
        """Reasons why a figure may mislead, a sentence each."""
        return [*self._void(), *self._untouched()]

    def _void(self) -> list[str]:
        shares: dict[str, list[float]] = {}
        for cell in self.cells:
            if cell.same_tokens is not None:
                shares.setdefault(cell.kind, []).append(cell.same_tokens)
        means = {kind: sum(values) / len(values) for kind, values in shares.items()}
        return [
            f"{kind}: {100 * share:.0f} % of the rows that it changed have the same tokens as before: the tokenizer "
            f"undoes it, or cuts it off, and the figure says little of the model"
            for kind, share in means.items()
            if share > VOID_SHARE
        ]

    def _untouched(self) -> list[str]:
        untouched = {cell.kind: cell.untouched for cell in self.cells}
        nothing = [kind for kind, count in untouched.items() if count == self.rows]
        some = [f"{kind} {count}" for kind, count in untouched.items() if 0 < count < self.rows]
        lines = []
        if nothing:
            lines.append(f"no row has a place for {', '.join(nothing)}, which {_are(nothing)} left out of the mean")
        if some:
            lines.append(f"of {self.rows} rows some have no place for a kind and count as they are: {', '.join(some)}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "metric": self.metric,
            "rows": self.rows,
            "draws": self.settings.draws,
            "seed": self.settings.seed,
            "side": self.settings.side,
            "keep": list(self.settings.keep),
            "clean": self.clean,
            "mean": self.mean._asdict(),
            "difference": self.difference._asdict(),
            "by_kind": self.by_kind,
            "recall": {name: {"clean": value, "noise": self.mean_recall(name)} for name, value in self.recall.items()},
            "positive": self.positive,
            "threshold": {name: rate.to_dict() for name, rate in self.at_threshold.items()},
            "cells": [
                {
                    **{"kind": cell.kind, "strength": cell.strength, "share": KINDS[cell.kind].share(cell.strength)},
                    **{"value": cell.value, "difference": cell.difference._asdict(), "untouched": cell.untouched},
                    **{"changed": cell.changed, "same_tokens": cell.same_tokens, "recall": dict(cell.recall)},
                    "threshold": {name: rate.cells[i] for name, rate in self.at_threshold.items()},
                }
                for i, cell in enumerate(self.cells)
            ],
            "warnings": self.warnings,
            "examples": [
                {"row": e.row, "kind": e.kind, "strength": e.strength, "texts": list(e.texts)}
                | {"label": e.label, "predicted": e.predicted}
                for e in self.examples
            ],
        }


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
