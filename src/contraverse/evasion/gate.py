"""Gates for CI: bounds on measured rates, as ``recall[attack]>=80``."""

import operator
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from contraverse.errors import UserError, nearest
from contraverse.evasion.outcomes import Rate

COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_FORM = re.compile(r"\s*([a-z_]+)\s*\[\s*([^\]\s]+)\s*\]\s*(>=|<=|>|<)\s*(\d+(?:\.\d*)?|\.\d+)\s*%?\s*")


class Figure(NamedTuple):
    """A measured value in percent: None where it is undefined, as a rate of no rows is.

    ``n``: rows behind it. ``interval``: its 95 % interval, where there is one.
    """

    value: float | None
    n: int
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, rate: Rate) -> "Figure":
        """Give a rate as a figure."""
        return cls(rate.percent, rate.n, rate.interval)


Figures = Mapping[str, Mapping[str, Figure]]
"""``{metric: {condition: figure}}``: ``figures["recall"]["append"]``."""


class Gate(NamedTuple):
    """A bound on one figure."""

    written: str
    metric: str
    condition: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, written: str) -> "Gate":
        """Read ``METRIC[CONDITION]>=NUMBER``, in percent; also <=, > and <.

        Raises:
            UserError: it is written otherwise, or the number is above 100.
        """
        match = _FORM.fullmatch(written)
        if match is None or float(match[4]) > 100:
            hint = "write METRIC[CONDITION]>=PERCENT, as recall[attack]>=80 or flip_rate[append]<=20"
            raise UserError(f"{written!r} is no gate", where="--gate", hint=hint)
        metric, condition, comparison, bound = match.groups()
        return cls(written.strip(), metric, condition, comparison, float(bound))

    def figure(self, figures: Figures) -> Figure:
        """Give the figure that it bounds.

        Raises:
            UserError: nothing of that name was measured.
        """
        if self.metric not in figures:
            known = ", ".join(nearest(self.metric, figures))
            raise UserError(f"{self.written}: no {self.metric} was measured", where="--gate", hint=f"there are {known}")
        conditions = figures[self.metric]
        if self.condition not in conditions:
            known = ", ".join(nearest(self.condition, conditions))
            what = f"{self.written}: {self.metric} was not measured under {self.condition}"
            raise UserError(what, where="--gate", hint=f"measured: {known}")
        return conditions[self.condition]

    def failure(self, figures: Figures) -> str | None:
        """Say why the gate fails, or give None where it passes.

        The measured value is compared, not an end of its interval. An undefined one fails.
        """
        figure = self.figure(figures)
        if figure.value is None:
            return f"{self.written}: undefined, of {figure.n} rows"
        if COMPARISONS[self.comparison](figure.value, self.bound):
            return None
        within = (
            "" if figure.interval is None else f", 95 % interval {figure.interval[0]:.1f} to {figure.interval[1]:.1f}"
        )
        return f"{self.written}: it is {figure.value:.1f} (n = {figure.n}{within})"


def failures(gates: Sequence[Gate], figures: Figures) -> list[str]:
    """Say of each gate that fails why.

    Raises:
        UserError: a gate names what was not measured.
    """
    return [reason for gate in gates if (reason := gate.failure(figures)) is not None]
