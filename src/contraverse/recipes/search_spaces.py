"""Searches: their file, spaces by method, and how ranges are written. Imports without torch.

``.1:1`` is a range, ``.1:1:log`` one that is searched on a logarithmic scale, ``2:4`` a range of whole numbers, and a
list holds the values themselves. ``null|.01:.5`` is null or a value of the range.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from contraverse.errors import UserError
from contraverse.recipes import notation
from contraverse.recipes.schema import RunConfig, Section

Written = str | list[Any]


class SearchConfig(Section):
    """All that decides a search: what is trained, and what is varied.

    ``config``: the run that every trial is but for the ``space``. ``space``: the range of each setting that is varied,
    as `contraverse.recipes.parse_range` reads it. ``trials``: how many runs. ``seed``: of what is tried; every trial
    trains with the seed of ``config``. ``robust``: weight of the accuracy under attack in what is maximised, None to
    maximise the clean metric.
    """

    config: RunConfig
    space: dict[str, str | list[Any]]
    trials: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)
    robust: float | None = Field(default=None, ge=0, le=1)

    def to_yaml(self) -> str:
        """The whole search as YAML."""
        return notation.write(self.model_dump(mode="json"))


_RATE: dict[str, Written] = {"train.learning_rate": "1e-5:1e-4:log"}
# CARL/RAR, Table 8. Its epsilon is [0, .5], where 0 is no limit.
_TABLE_8: dict[str, Written] = {
    "method.gamma": "0:.8",
    "method.step_size": ".01:.2",
    "method.epsilon": "null|.01:.5",
    "method.steps": "2:4",
}
_FREELB: dict[str, Written] = {**_TABLE_8, **_RATE}
_CONTRAST: dict[str, Written] = {
    "method.weight": ".01:1:log",
    "method.start": "1.0:4.0",
    "method.temperature": ".05:.5:log",
    "method.negatives": "1000:20000:log",
    "method.momentum": "0:.9",
}
# Both are left open by the paper.
_RECONSTRUCTION: dict[str, Written] = {"method.skip_special": [False, True], "method.head_warmup": "0.0:1.0"}
_INFORMATION: dict[str, Written] = {
    "method.alpha": ".001:.1:log",
    "method.beta": ".001:.1:log",
    "method.low": ".1:.7",
    "method.high": ".75:1.0",
}
# The papers' size is 1e-5, beside a step of .001 and masks that are not shared; the others are larger.
_VIRTUAL: dict[str, Written] = {
    "method.weight": ".1:10:log",
    "method.epsilon": [1e-5, 0.01, 0.02, 0.05],
    "method.step_size": [0.001, 0.01, 0.02, 0.05],
    "method.share_dropout": [True, False],
}
# SCAL 4.1.
_EPSILON: dict[str, Written] = {"method.epsilon": [0.1, 0.2, 0.3, 0.4, 0.5]}
_ALPHA: dict[str, Written] = {"method.alpha": ".01:1:log"}

SPACES: dict[str, dict[str, Written]] = {
    "freelb": _FREELB,
    "carl": {**_FREELB, **_CONTRAST},
    "rar": {**_FREELB, "method.weight": ".01:1:log", **_RECONSTRUCTION},
    "infobert": {**_FREELB, **_INFORMATION},
    "smart": {**_VIRTUAL, **_RATE},
    "alum": {**_VIRTUAL, **_RATE},
    "at": {**_EPSILON, **_RATE},
    "cl": {**_ALPHA, **_RATE},
    "scal": {**_EPSILON, **_ALPHA, **_RATE},
    "uscal": {"method.epsilon": ".01:.5:log", **_ALPHA, **_RATE},
}
"""Default search space of each method; a method that is not listed varies its learning rate alone."""

PAPER_SPACES: dict[str, dict[str, Written]] = {
    "freelb": _TABLE_8,
    "at": _EPSILON,
    "scal": _EPSILON,
    "smart": {"method.weight": [1.0, 3.0, 5.0]},
}
"""Search spaces of the papers."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones if both are; with ``null``, also None."""

    low: float
    high: float
    log: bool = False
    null: bool = False

    @property
    def whole(self) -> bool:
        """True where it holds whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> list[Any]:
        """Values that stand for all: what is possible for them is possible for the rest."""
        return [self.low, self.high, *([None] if self.null else [])]

    def __contains__(self, value: Any) -> bool:
        if value is None:
            return self.null
        return isinstance(value, int if self.whole else int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> list[Any]:
        """All of them."""
        return list(self.values)

    def __contains__(self, value: Any) -> bool:
        return value in self.values


def space_of(method: str, *, paper: bool = False) -> dict[str, Written]:
    """The table's space of a method, or with ``paper`` that of its paper where there is one.

    The learning rate alone is searched of a method that has no line.
    """
    own = SPACES.get(method, _RATE)
    return dict(PAPER_SPACES.get(method, own) if paper else own)


def read_space(assignments: Sequence[str]) -> dict[str, Written]:
    """``["method.epsilon=.1:1:log", "method.steps=[2, 4]"]``, or names of YAML files with such lines, as a space.

    Raises:
        UserError: an assignment without ``=``, a file that cannot be read, or a value that is no range.
    """
    space: dict[str, Written] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if equals:
            space[name.strip()] = notation.read(value, name.strip())
        elif Path(name).suffix in (".yaml", ".yml"):
            space |= _file(Path(name))
        else:
            raise UserError("a range is written key=low:high, for example method.epsilon=.1:1:log", where=repr(name))
    for name, written in space.items():
        parse_range(name, written)
    return space


def parse_range(name: str, written: Any) -> Range | Choices:
    """Parse the range or the choices that ``written`` allows for the setting ``name``.

    Raises:
        UserError: it is no range and no list.
    """
    if isinstance(written, list) and written:
        return Choices(tuple(written))
    numbers, log = str(written), False
    null = numbers.startswith("null|")
    parts = numbers.removeprefix("null|").split(":")
    if len(parts) == 3 and parts[2].strip() == "log":
        parts, log = parts[:2], True
    ends = [notation.read(part, name) for part in parts]
    if len(ends) != 2 or any(type(end) not in (int, float) or not math.isfinite(end) for end in ends):
        hint = "write low:high, low:high:log, null|low:high or [a list]"
        raise UserError(f"{written!r} is no range", where=name, hint=hint)
    if ends[0] >= ends[1] or (log and ends[0] <= 0):
        raise UserError(f"{written!r}: the first must be below the second, and above 0 with log", where=name)
    low, high = ends
    return Range(low, high, log=log, null=null)


def _file(file: Path) -> Mapping[str, Written]:
    written = notation.read_file(file)
    if not isinstance(written, dict):
        raise UserError("holds no space: lines as method.epsilon: .1:1:log are expected", where=str(file))
    return written
