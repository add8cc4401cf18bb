"""Splits of rows, for texts and images alike: their names, how they are drawn, set aside and counted, and notes."""

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, cast

import numpy as np

from contraverse.errors import UserError

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
OnBadRow = Literal["error", "skip"]

BY_SPLIT = "--set data.source='{train: FILE, test: FILE}'"
"""Files of any names on the command line."""
_SHOWN = 10
"""Files, rows or names that a message lists before it counts."""


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first ten of ``names``, and how many more there are."""
    more = f"{separator}and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more


class Data(Protocol):
    """Rows that can be drawn from: `TextData`, `ImageData`."""

    unit: ClassVar[str]
    """One of them: "row", "image"."""
    source: str
    label_names: tuple[str, ...] | None

    def __len__(self) -> int: ...
    def select(self, rows: Sequence[int]) -> Self: ...
    def split(self, fraction: float, seed: int) -> tuple[Self, Self]: ...
    def sample(self, n: int, seed: int) -> Self: ...

    @property
    def class_ids(self) -> list[int] | None:
        """Class ids of the rows that have a label; None where labels are none or scores."""

    @property
    def num_labelled(self) -> int:
        """Number of rows that have a label."""

    @property
    def contents(self) -> np.ndarray:
        """(N,) int64 digests of the rows, equal for rows of equal content."""


D = TypeVar("D", bound=Data)


@dataclass
class Splits(Generic[D]):
    """Training, validation and test rows. A split that the source does not have, or has without labels, is None.

    ``task`` has the metric, the columns and the classes. ``skipped``: number of bad rows that were left out. ``notes``:
    decisions taken while reading, in sentences. ``read_from``: the columns that hold the texts and the label, None for
    images.
    """

    train: D | None
    validation: D | None
    test: D | None
    task: Any
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    read_from: Any = None

    def need(self, name: SplitName) -> D:
        """The split of that name; a `UserError` where there is none."""
        data: D | None = getattr(self, name)
        if data is None:
            by_split = [f"Files of any names are given by split: {BY_SPLIT}"] if name == "train" else []
            raise UserError(f"there is no {name} split", hint=" ".join([*self.notes, *by_split]) or None)
        return data


def check_arguments(validation_fraction: float, kept: Mapping[SplitName, int | None], on_bad_row: str) -> None:
    """Refuse settings of `load_splits` and `load_images` that are out of range.

    Raises:
        UserError: one is.
    """
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction lies in [0, 1), not {validation_fraction}")
    for split, count in kept.items():
        if count is not None and count < 1:
            raise UserError(f"{split}_rows is at least 1, not {count}")
    if on_bad_row not in ("error", "skip"):
        raise UserError(f"on_bad_row is error or skip, not {on_bad_row!r}")


def set_validation_aside(splits: Splits[D], amount: float, seed: int, per_class: int | None = None) -> None:
    """Cut a validation split from the labelled training rows, where there is none.

    ``amount``: a number of rows from 1, a fraction below; 0 for none. ``per_class``: rows of each class instead.

    Raises:
        UserError: there are too few rows, or only one class would be left to train on.
    """
    train = splits.train
    if train is None or not train.num_labelled or splits.validation is not None or not amount:
        return
    if per_class is not None:
        splits.train, splits.validation = draw_per_class(train, per_class, seed)
    else:
        count = train.num_labelled
        rows = f"{'labelled ' if train.unit == 'image' else ''}training {train.unit}s"
        if amount >= count:
            raise UserError(f"{amount:g} of {count} {rows} cannot be set aside", where=train.source)
        splits.train, splits.validation = train.split(amount / count if amount >= 1 else amount, seed)
        classes, left = set(train.class_ids or ()), set(splits.train.class_ids or ())
        if len(splits.validation) == 1 and len(classes) > 1 and len(left) < 2:
            raise UserError(
                f"{count} {train.unit}s are too few to set one aside for validation",
                where=train.source,
                hint="Add some, or name training and validation data of their own: "
                "--set data.source='{train: FILE, validation: FILE}'",
            )
    count = len(splits.validation)
    splits.notes.append(f"no validation split: {count} training {train.unit}s were set aside for it (seed {seed})")


def draw_splits(
    splits: Splits[D], kept: Mapping[SplitName, int | None], seed: int, per_class: Mapping[str, int] | None = None
) -> None:
    """Keep ``per_class[name]`` rows of each class of a split, and of those a sample of ``kept[name]`` rows."""
    for name in SPLITS:
        data: D | None = getattr(splits, name)
        if data is None:
            continue
        count = kept.get(name)
        drawn = draw_per_class(data, per_class[name], seed)[1] if per_class and name in per_class else data
        drawn = drawn if count is None else drawn.sample(count, seed)
        setattr(splits, name, drawn)
        if len(drawn) < len(data):
            spoken = "training" if name == "train" else name
            splits.notes.append(f"{len(drawn)} of {len(data)} {spoken} {data.unit}s are used (seed {seed})")


def add_notes(splits: Splits[D], hint: Callable[[D], str | None] = lambda _: None) -> None:
    """Append notes that a reader of the results should know: absent, alike and unmeasured classes, repeated rows.

    ``hint``: the advice where all training rows are of one class, None for the usual.

    Raises:
        UserError: all training rows are of one class.
    """
    train, notes = splits.train, splits.notes
    if train is None:
        notes.append("there is no training split")
    else:
        if train.class_ids is not None:
            _check_classes(train, notes, hint)
        if train.label_names is not None:
            notes += alike(train.label_names)
            if splits.validation is not None:
                measured = set(splits.validation.class_ids or ())
                notes += _unmeasured(train.label_names, set(train.class_ids or ()), measured, train.unit)
        notes += repeated(splits)
    if splits.task.labelled and splits.test is None:
        unit = next(data.unit for data in (train, splits.validation) if data is not None)
        notes.append(f"no labelled test split: nothing is measured on test {unit}s")


def _check_classes(train: D, notes: list[str], hint: Callable[[D], str | None]) -> None:
    present, names = set(train.class_ids or ()), train.label_names or ()
    missing = len(train) - train.num_labelled
    if missing:
        notes.append(f"{missing:,} of {len(train):,} training {train.unit}s have no label")
    if len(present) < 2:
        usual = f"A classifier needs {train.unit}s of at least two classes"
        usual += "; -1 is none." if missing else "; is this the right column (--label)?"
        raise UserError(
            f"every training {train.unit}{' that has one' if missing else ''} has the label "
            f"{names[next(iter(present))]!r}",
            where=train.source,
            hint=hint(train) or usual,
        )
    absent = [name for i, name in enumerate(names) if i not in present]
    if absent:
        notes.append(f"no training {train.unit} has the label {listed(absent)}")


def alike(names: Sequence[str]) -> list[str]:
    """A note on classes that are one class in several spellings, as Excel makes TRUE of True."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups.setdefault(key, []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return []
    only_case = all(len({name.casefold() for name in group}) == 1 for group in several)
    how = "differ in case alone" if only_case else "look alike"
    shown = "; ".join(" and ".join(map(repr, group)) for group in several[:5]) + ("; ..." if len(several) > 5 else "")
    return [f"classes that {how}: {shown}"]


def _unmeasured(names: Sequence[str], train: Collection[int], validation: Collection[int], unit: str) -> list[str]:
    absent = [repr(name) for i, name in enumerate(names) if i in train and i not in validation]
    if not absent:
        return []
    shown = ", ".join(absent[:_SHOWN]) + (", ..." if len(absent) > _SHOWN else "")
    return [f"no validation {unit} has the label {shown}: what is chosen by validation is chosen without"]


def repeated(splits: Splits[D]) -> list[str]:
    """Notes on training rows that are equal, and on validation and test rows that are training rows too."""
    train = splits.train
    if train is None:
        return []
    seen, unit = np.unique(train.contents), f"{train.unit}s"
    texts = train.unit == "row"
    notes = []
    if len(seen) < len(train):
        another = "another one's text" if texts else "another one"
        notes.append(f"{len(train) - len(seen)} of {len(train)} training {unit} repeat {another}")
    for name in ("validation", "test"):
        data: D | None = getattr(splits, name)
        shared = int(np.isin(data.contents, seen).sum()) if data is not None else 0
        if data is not None and shared:
            have = "have a text that is" if texts else "are"
            notes.append(f"{shared} of {len(data)} {name} {unit} {have} in the training {unit} too")
    return notes


def draw_per_class(data: D, per_class: int, seed: int) -> tuple[D, D]:
    """``(rest, drawn)``: ``drawn`` has ``per_class`` rows of each class; both keep the rows' order.

    Raises:
        UserError: a class has fewer rows, or the labels are no classes.
    """
    ids = data.class_ids
    if data.label_names is None or ids is None:
        raise UserError(f"{data.unit}s are drawn by class, and these have none", where=data.source)
    order = np.random.default_rng(seed).permutation(len(data))
    classes, chosen = np.asarray(ids)[order], np.zeros(len(data), dtype=bool)
    for i, name in enumerate(data.label_names):
        members = order[classes == i]
        if len(members) < per_class:
            raise UserError(
                f"{per_class:,} {data.unit}s of each class are drawn, and {name!r} has {len(members):,}",
                where=data.source,
            )
        chosen[members[:per_class]] = True
    return data.select(np.flatnonzero(~chosen).tolist()), data.select(np.flatnonzero(chosen).tolist())


def part_rows(
    count: int, classes: Sequence[int] | None, fraction: float, seed: int, where: str
) -> tuple[list[int], list[int]]:
    """``(rest, part)``, sorted: ``part`` has this fraction (0 to 1, exclusive) of ``count`` rows, at least one.

    Stratified where there are ``classes``: each one's share of ``part`` is its share of the whole to within one
    row, and a class of two rows or more has one in ``part`` where that leaves room.

    Raises:
        UserError: the fraction is out of range, or there are fewer than two rows.
    """
    if not 0 < fraction < 1:
        raise UserError(f"a fraction lies between 0 and 1, not {fraction}")
    if count < 2:
        raise UserError(f"{count} row(s) cannot be split", where=where)
    size = min(max(1, round(count * fraction)), count - 1)
    order = _spread(count, classes, seed, 0.5)
    rest, part = order[size:], order[:size]
    if classes is not None:
        _one_of_each(rest, part, np.asarray(classes), size / count)
    return sorted(rest), sorted(part)


def _one_of_each(rest: list[int], part: list[int], classes: np.ndarray, share: float) -> None:
    """Exchange rows of classes that have more than their share of ``part`` for classes that have none, in place."""
    names, counts = np.unique(classes, return_counts=True)
    over = {name: -count * share for name, count in zip(names, counts, strict=True)}
    for row in part:
        over[classes[row]] += 1
    inside = set(classes[part].tolist())
    for name, count in zip(names, counts, strict=True):
        if name in inside or count < 2:
            continue
        most = max(over, key=lambda other: over[other])
        if over[most] <= 0 or sum(classes[row] == most for row in part) < 2:
            return
        i = max(i for i, row in enumerate(part) if classes[row] == most)
        j = next(j for j, row in enumerate(rest) if classes[row] == name)
        part[i], rest[j] = rest[j], part[i]
        over[most], over[name] = over[most] - 1, over[name] + 1


def sample_rows(count: int, classes: Sequence[int] | None, n: int, seed: int) -> list[int]:
    """``n`` of ``count`` rows, sorted; all of them where there are no more.

    Stratified where there are ``classes``, with at least one row of each if ``n`` allows. For one seed, a smaller
    sample is part of a larger one.

    Raises:
        UserError: ``n`` is below 1.
    """
    if n < 1:
        raise UserError(f"a sample has at least one row, not {n}")
    return sorted(_spread(count, classes, seed, 0.0)[:n])


def _spread(count: int, classes: Sequence[int] | None, seed: int, offset: float) -> list[int]:
    """All row numbers, shuffled so that every prefix holds each class in its share.

    Row k (in random order) of a class of c rows stands at (k + offset) / c; the order is that of these places.
    """
    order = np.random.default_rng(seed).permutation(count)
    if classes is None:
        return cast(list[int], order.tolist())
    shuffled = np.asarray(classes)[order]
    place = np.empty(count)
    for class_id in np.unique(shuffled):
        members = np.flatnonzero(shuffled == class_id)
        place[members] = (np.arange(len(members)) + offset) / len(members)
    return cast(list[int], order[np.argsort(place, kind="stable")].tolist())


def balanced_rows(classes: Sequence[int], names: Sequence[str], n: int, seed: int, where: str) -> list[int]:
    """``n`` rows, sorted, of which each class has as many as any other to within one.

    For one seed, fewer rows are part of more. Which classes have one row more is drawn too.

    Raises:
        UserError: there are fewer rows than classes asked for, or a class has too few.
    """
    if n < len(names):
        raise UserError(f"{n:,} labels cannot be balanced over {len(names)} classes", where=where)
    random = np.random.default_rng(seed)
    order = random.permutation(len(classes))
    turns = random.permutation(len(names))
    shuffled = np.asarray(classes)[order]
    rank = np.empty(len(order), dtype=np.int64)
    for class_id, name in enumerate(names):
        members = np.flatnonzero(shuffled == class_id)
        wanted = n // len(names) + (turns[class_id] < n % len(names))
        if len(members) < wanted:
            raise UserError(
                f"{wanted:,} labels of each class are drawn, and {name!r} has {len(members):,}", where=where
            )
        rank[members] = np.arange(len(members)) * len(names) + turns[class_id]
    return sorted(order[np.argsort(rank)[:n]].tolist())
