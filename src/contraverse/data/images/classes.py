"""From labels as they came to class ids."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from contraverse.data.images.folders import natural
from contraverse.data.images.parts import Part, listed
from contraverse.data.images.tasks import ImageTask
from contraverse.errors import UserError
from contraverse.types import UNLABELLED

_MOST_CLASSES = 10_000
_NUMBER = re.compile("[0-9]+")


class BadLabel(Exception):
    """A label that is no class, and why."""


class UnknownLabel(BadLabel):
    """A label that could be a class, and is none of those that are known."""


def find_classes(parts: Sequence[Part], task: ImageTask) -> tuple[str, ...] | None:
    """The task's classes, or those that the training parts declare, or the different labels in natural order.

    None where no image of the parts has a label.

    Raises:
        UserError: nearly every image that has a label has one of its own.
    """
    if all(map(is_hidden, parts)):
        return None
    declared = next((part.classes for part in parts if part.classes), None)
    if task.labels or declared:
        return task.labels or declared
    given = [label for part in parts for label in part.labels or () if not is_missing(label)]
    found, total = {name for label in given if (name := _name(label)) is not None}, len(given)
    if len(found) > _MOST_CLASSES or (len(found) > 20 and 2 * len(found) > total):
        raise UserError(
            f"the labels have {len(found)} different values in {total} images: no classes",
            where=parts[0].where,
            hint="Name the column of the classes with --label.",
        )
    return tuple(sorted(found, key=natural))


def is_missing(label: Any) -> bool:
    """True of what says that there is no label: None, NaN, empty text, -1. It is never a class."""
    if isinstance(label, str):
        return label.strip() in ("", "-1")
    return label is None or bool(label != label) or (label == -1 and not isinstance(label, bool))


def is_hidden(part: Part) -> bool:
    """True where no image of the part has a label."""
    return part.labels is None or all(map(is_missing, part.labels))


def to_ids(part: Part, names: Sequence[str], task: ImageTask) -> Callable[[int], int]:
    """A function from an image's number to its class id, `UNLABELLED` where it has no label.

    A number is the class that the source declares for it, else the one of that id, unless numbers are the names. A
    name matches regardless of case where the task has classes of its own.

    Raises (the function):
        UnknownLabel: the label is none of the classes.
        BadLabel: it is nothing that can be one.
    """
    ids = {name: i for i, name in enumerate(names)}
    if task.labels:
        ids = {name.casefold(): i for i, name in enumerate(names)} | ids

    def of_name(name: str) -> int | None:
        return ids.get(name, ids.get(name.casefold()) if task.labels else None)

    declared = part.classes
    if declared and all(of_name(name) is None for name in declared):
        declared = None

    def look_up(i: int) -> int:
        label = part.labels[i] if part.labels is not None else None
        if is_missing(label):
            return UNLABELLED
        name = _name(label)
        if name is None:
            raise BadLabel(f"the label {label!r} is not a class")
        number = int(name) if _NUMBER.fullmatch(name) else None
        if number is not None and declared and not isinstance(label, str):
            found = of_name(declared[number]) if number < len(declared) else None
        else:
            found = of_name(name)
        if found is None and task.labels and not declared and number is not None and number < len(names):
            found = number
        if found is None:
            raise UnknownLabel(f"the label {label!r} is unknown (known: {listed(names)})")
        return found

    return look_up


def _name(label: Any) -> str | None:
    """The label as a class name, ``1`` and ``1.0`` being one; None for what is no class."""
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    return str(int(label)) if math.isfinite(label) and label == int(label) else None
