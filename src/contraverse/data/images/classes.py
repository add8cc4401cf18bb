"""From labels as they came to class ids."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from contraverse.data.images.folders import natural
from contraverse.data.images.parts import Part, listed
from contraverse.data.images.tasks import ImageTask
from contraverse.errors import UserError

_MOST_CLASSES = 10_000
_NUMBER = re.compile("[0-9]+")


class BadLabel(Exception):
    """A label that is no class, and why."""


def find_classes(parts: Sequence[Part], task: ImageTask) -> tuple[str, ...] | None:
    """The task's classes, or those that the training parts declare, or the different labels in natural order.

    None where the parts have no labels.

    Raises:
        UserError: nearly every image has a label of its own.
    """
    if parts[0].labels is None:
        return None
    if task.labels or parts[0].classes:
        return task.labels or parts[0].classes
    found = {name for part in parts for label in part.labels or () if (name := _name(label)) is not None}
    total = sum(len(part.images) for part in parts)
    if len(found) > _MOST_CLASSES or (len(found) > 20 and 2 * len(found) > total):
        raise UserError(
            f"the labels have {len(found)} different values in {total} images: no classes",
            where=parts[0].where,
            hint="Name the column of the classes with --label.",
        )
    return tuple(sorted(found, key=natural))


def is_hidden(part: Part) -> bool:
    """True where no image of the part has a label: all are -1 or missing."""
    return part.labels is None or all(label in (None, -1) for label in part.labels)


def to_ids(part: Part, names: Sequence[str], task: ImageTask) -> Callable[[int], int]:
    """A function from an image's number to its class id.

    A number is the class that the source declares for it, else the one of that id, unless numbers are the names. A
    name matches regardless of case where the task has classes of its own.

    Raises (the function):
        BadLabel: the label is missing or none of the classes.
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
        name = _name(label)
        if name is None:
            missing = label is None or label != label or (isinstance(label, str) and not label.strip())
            raise BadLabel("the label is missing" if missing else f"the label {label!r} is not a class")
        number = int(name) if _NUMBER.fullmatch(name) else None
        if number is not None and declared and not isinstance(label, str):
            found = of_name(declared[number]) if number < len(declared) else None
        else:
            found = of_name(name)
        if found is None and task.labels and not declared and number is not None and number < len(names):
            found = number
        if found is None:
            raise BadLabel(f"the label {label!r} is unknown (known: {listed(names)})")
        return found

    return look_up


def _name(label: Any) -> str | None:
    """The label as a class name, ``1`` and ``1.0`` being one; None for what is no class."""
    if isinstance(label, str):
        return label.strip() or None
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    return str(int(label)) if math.isfinite(label) and label == int(label) else None
