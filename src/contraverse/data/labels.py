"""Classes of a model and classes of rows: matched by name, or by number where there are no names, or refused."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from contraverse.data.tasks import Task
from contraverse.errors import UserError


def is_unnamed(labels: Sequence[str]) -> bool:
    """True of LABEL_0, LABEL_1, ..., transformers' names of classes that have none, and of 0, 1, ..."""
    numbers = range(len(labels))
    return list(labels) in ([f"LABEL_{i}" for i in numbers], [str(i) for i in numbers])


def task_for(task: Task, labels: Sequence[str]) -> Task:
    """``task`` with the classes of a model, which say what its logits mean.

    A file's names are matched with the model's. A number is the class of that id: of the task where it has classes of
    its own, else of the model.

    Raises:
        UserError: they cannot be matched.
    """
    if task.kind != "classification":
        return task
    own = task.labels or ()
    if not own:
        return replace(task, labels=tuple(labels))
    if is_unnamed(labels):
        if len(labels) == len(own) and task.numbered:
            return task
        why = "" if len(labels) != len(own) else ", and which is which cannot be told"
        raise _other(f"{len(labels)} classes without names{why}", own)
    known = {name.casefold() for name in labels}
    if not known & {name.casefold() for name in own}:
        raise _other(_listed(labels), own)
    numbers = {str(i): name for i, name in enumerate(own)} if task.numbered else {}
    return replace(task, labels=tuple(labels), numbered=False, aliases={**numbers, **task.aliases})


def match_classes(names: Sequence[str] | None, labels: Sequence[str] | None) -> np.ndarray | None:
    """For each class of the rows the place of its logit (len(names),); None where both are in the same order.

    Args:
        names: of the rows' classes, in the order of their ids; None for scores.
        labels: of the model's, in the order of its logits.

    Raises:
        UserError: a class of the rows is none of the model's.
    """
    if names is None or labels is None or len(labels) == 1 or list(names) == list(labels):
        return None
    places = {label.casefold(): i for i, label in enumerate(labels)}
    if all(name.casefold() in places for name in names) and len(places) == len(labels):
        return np.array([places[name.casefold()] for name in names])
    numbered = is_unnamed(names) and len(names) <= len(labels)
    if numbered or (is_unnamed(labels) and len(names) == len(labels)):
        return None
    raise _other(_listed(labels), names)


def _other(told: str, names: Sequence[str]) -> UserError:
    return UserError(
        f"the model tells {told} apart, and the rows are of {_listed(names)}",
        hint="rows and model have to name the same classes: set id2label in the model's config.json",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
