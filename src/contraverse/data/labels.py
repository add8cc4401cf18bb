"""Classes of a model and classes of rows: matched by name, or by number where there are no names, or refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from contraverse.data.batching import EncodedText
from contraverse.data.dataset import TextData
from contraverse.data.tasks import Task
from contraverse.errors import UserError

if TYPE_CHECKING:
    from contraverse.data import Rows


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
    if names is None or labels is None or list(names) == list(labels):
        return None
    if len(labels) == 1:
        if is_unnamed(names):  # whole numbers, which are scores here
            return None
        raise _other(f"nothing, and gives one score ({labels[0]}),", names)
    places = {label.casefold(): i for i, label in enumerate(labels)}
    if all(name.casefold() in places for name in names) and len(places) == len(labels):
        return np.array([places[name.casefold()] for name in names])
    numbered = is_unnamed(names) and len(names) <= len(labels)
    if numbered or (is_unnamed(labels) and len(names) == len(labels)):
        return None
    raise _other(_listed(labels), names)


def in_order_of(labels: Sequence[str], own: Sequence[str] | None) -> list[str]:
    """Classes of a classifier that starts from one of the classes ``own``, None for no classifier.

    Those of ``own``, in their order, where they are ``labels`` by name or both have numbers alone, so that the
    classifier can be kept; else ``labels``.
    """
    if own is None or len(own) != len(labels):
        return list(labels)
    names = {name.casefold() for name in own}
    same = len(names) == len(own) and names == {name.casefold() for name in labels}
    return list(own if same or (is_unnamed(own) and is_unnamed(labels)) else labels)


def matched(data: "Rows", labels: Sequence[str] | None) -> "Rows":
    """``data`` with its labels as ids of a model's classes ``labels``, matched as `match_classes` does.

    Raises:
        UserError: a class of the rows is none of the model's, tokenized rows have the classes in another order, or the
            labels are scores and the model's are classes.
    """
    rows = data.data if isinstance(data, EncodedText) else data
    scores = isinstance(rows, TextData) and any(isinstance(label, float) for label in (rows.labels or ())[:1])
    if scores and labels is not None and len(labels) > 1:
        hint = "give class ids or names, or a model of a single score: labels=['score']"
        raise UserError(f"the model tells {_listed(labels)} apart, and the rows have scores", hint=hint)
    places = match_classes(rows.label_names if rows.labels is not None else None, labels)
    if places is None or labels is None:
        return data
    if isinstance(data, EncodedText):
        raise UserError("the rows' classes are in another order than the model's", hint="give them as TextData")
    if isinstance(data, TextData):
        ids = [int(places[int(label)]) for label in data.labels or ()]
        return replace(data, labels=ids, label_names=tuple(labels))
    assert data.labels is not None
    known = data.labels >= 0  # the others have no label
    moved = torch.from_numpy(places)[data.labels.clamp(min=0)]
    return replace(data, labels=torch.where(known, moved, data.labels), label_names=tuple(labels))


def _other(told: str, names: Sequence[str]) -> UserError:
    return UserError(
        f"the model tells {told} apart, and the rows are of {_listed(names)}",
        hint="rows and model have to name the same classes: set id2label in the model's config.json",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
