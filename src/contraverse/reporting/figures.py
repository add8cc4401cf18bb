"""Metrics of several runs, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contraverse.evaluation.keys import MetricKey, attacked_accuracy, clean_metrics
from contraverse.reporting.tables import Table, summarise


@dataclass(frozen=True)
class Measured:
    """Metrics of one run, in percent. Runs of the same ``name`` are seeds of one another.

    Attributes:
        name: of the method, for a reader.
        metrics: on clean rows, by name.
        attacked: under an attack, by metric, attack and radius.
        seconds: of training.
        cost: forward-units a step, for example ``"7F"``.
    """

    name: str
    metrics: Mapping[str, float | None]
    attacked: Mapping[MetricKey, float | None] = field(default_factory=dict)
    seconds: float | None = None
    cost: str | None = None

    @classmethod
    def of(
        cls, name: str, evaluation: Mapping[str, Any], *, seconds: float | None = None, cost: str | None = None
    ) -> "Measured":
        """The metrics of `contraverse.pipeline.measure_task`, or of an ``evaluation.json``."""
        return cls(name, clean_metrics(evaluation), attacked_accuracy(evaluation), seconds, cost)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: ``table`` has a row a name; ``clean`` and ``attacked`` are its columns, in order."""

    table: Table
    clean: tuple[str, ...]
    attacked: tuple[MetricKey, ...]

    @property
    def attacks(self) -> list[tuple[str, str]]:
        """The pairs (metric, attack) that were measured."""
        return list(dict.fromkeys((key.metric, str(key.under)) for key in self.attacked))

    def under(self, metric: str, attack: str) -> dict[float, MetricKey]:
        """The columns of one attack by epsilon, rising."""
        keys = [key for key in self.attacked if (key.metric, key.under) == (metric, attack)]
        return {key.epsilon: key for key in sorted(keys, key=lambda key: key.epsilon or 0) if key.epsilon is not None}


def compare(runs: Sequence[Measured]) -> Comparison:
    """Mean and standard deviation of every metric that any run holds, with a row for each name."""
    clean = tuple(dict.fromkeys(name for run in runs for name in run.metrics))
    attacked = tuple(dict.fromkeys(key for run in runs for key in run.attacked))
    rows: list[dict[Any, Any]] = [{**run.metrics, **run.attacked, "run": run.name} for run in runs]
    return Comparison(summarise(rows, by=["run"], metrics=[*clean, *attacked]), clean, attacked)
