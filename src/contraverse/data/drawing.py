"""Which rows are drawn: by seed, and by class where there are classes."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from contraverse.errors import UserError


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
    for one in np.unique(shuffled):
        members = np.flatnonzero(shuffled == one)
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
    for one, name in enumerate(names):
        members = np.flatnonzero(shuffled == one)
        wanted = n // len(names) + (turns[one] < n % len(names))
        if len(members) < wanted:
            raise UserError(
                f"{wanted:,} labels of each class are drawn, and {name!r} has {len(members):,}", where=where
            )
        rank[members] = np.arange(len(members)) * len(names) + turns[one]
    return sorted(order[np.argsort(rank)[:n]].tolist())
