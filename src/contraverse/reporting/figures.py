"""What runs gave, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contraverse.reporting.names import UnderAttack
from contraverse.reporting.tables import Table, summarise


@dataclass(frozen=True)
class Measured:
    """What one run gave. Runs of the same ``name`` are taken for seeds of one another.

    ``metrics``: as `contraverse.evaluation.evaluate` returns them, ``accuracy`` and ``accuracy@pgd-0.3``, 0-100.
    ``seconds``: of training. ``cost``: forward-units a step, for example ``"7F"``.
    """

    name: str
    metrics: Mapping[str, float | None]
    seconds: float | None = None
    cost: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: ``table`` has a row a name; ``clean`` and ``attacked`` name its columns, in order."""

    table: Table
    clean: tuple[str, ...]
    attacked: Mapping[str, UnderAttack]

    @property
    def attacks(self) -> list[tuple[str, str]]:
        """The pairs (metric, attack) that were measured."""
        return list(dict.fromkeys((at.metric, at.attack) for at in self.attacked.values()))

    def under(self, metric: str, attack: str) -> dict[float, str]:
        """The columns of one attack by epsilon, rising."""
        columns = {at.epsilon: key for key, at in self.attacked.items() if (at.metric, at.attack) == (metric, attack)}
        return dict(sorted(columns.items()))


def compare(runs: Sequence[Measured]) -> Comparison:
    """Mean and standard deviation of every figure that any run holds, with a row for each name."""
    keys = list(dict.fromkeys(key for run in runs for key in run.metrics))
    attacked = {key: at for key in keys if (at := UnderAttack.parse(key))}
    table = summarise([{**run.metrics, "run": run.name} for run in runs], by=["run"], metrics=keys)
    return Comparison(table, tuple(key for key in keys if key not in attacked), attacked)
