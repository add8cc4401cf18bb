"""Answers of several saved classifiers to the same rows, and what they are compared by."""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contraverse.data import ImageData, TextData
from contraverse.data.columns import Columns
from contraverse.data.encoding import matched
from contraverse.data.files import Form, read_table
from contraverse.errors import UserError, unknown
from contraverse.evaluation import predict
from contraverse.evaluation.comparison import Measure, quartiles
from contraverse.evaluation.predict import labels_of
from contraverse.models import AnyModel
from contraverse.models.detector import Detector
from contraverse.types import BNBranch

LENGTH, CLASS = "length", "class"
"""Slices that every data set of texts, and every classification, has."""


class Answers(NamedTuple):
    """Answers of one run.

    Attributes:
        names: (N,) class of each row.
        predicted: (N,) the most probable class.
        detected: (N,) bool, rows that the saved threshold detects; None without one.
        detector: that threshold.
    """

    names: np.ndarray
    predicted: np.ndarray
    detected: np.ndarray | None
    detector: Detector | None


def answer(model: AnyModel, rows: TextData | ImageData, batch_size: int, bn_branch: BNBranch, progress: Any) -> Answers:
    """Predict ``rows`` by ``model``.

    Raises:
        UserError: the model is no classifier, or does not know the rows' classes.
    """
    if model.labels is None or len(model.labels) < 2:
        raise UserError("classifiers are compared, and this model has no classes")
    classes, own = np.array(model.labels, dtype=object), matched(rows, model.labels)
    logits = predict(model, own, batch_size, bn_branch=bn_branch, progress=progress)
    detected = None if model.detector is None else model.detector.detects(logits, model.labels)
    return Answers(classes[labels_of(own)], classes[logits.argmax(1)], detected, model.detector)


def check_same_rows(first: TextData | ImageData, other: TextData | ImageData, names: tuple[str, str]) -> None:
    """Refuse rows that two runs do not share.

    Raises:
        UserError: tells what differs.
    """
    hint = "name the rows that all of them are measured on: --data FILE"
    if type(first) is not type(other):
        raise UserError(f"{names[0]} reads texts and {names[1]} images, or the other way round")
    if len(first) != len(other):
        raise UserError(
            f"{names[0]} is measured on {len(first):,} rows and {names[1]} on {len(other):,}: not the same ones",
            hint=hint,
        )
    for row in range(len(first)):
        same = _content(first, row) == _content(other, row)
        if not same or _class(first, row).casefold() != _class(other, row).casefold():
            what = "another class there" if same else "another one there"
            raise UserError(f"row {row} of {names[0]} and of {names[1]} differ: it is {what}", hint=hint)


def _content(data: Any, row: int) -> Any:
    """Texts of a row, or the bytes of its image."""
    return data.texts[row] if hasattr(data, "texts") else data.pixels[row].numpy().tobytes()


def _class(data: TextData | ImageData, row: int) -> str:
    assert data.labels is not None
    label = int(data.labels[row])
    return data.label_names[label] if data.label_names else str(label)


def measures(answers: Mapping[str, Answers]) -> list[Measure]:
    """Accuracy, and where all runs have a threshold for one class recall and false positives at it."""
    (first, *_), every = answers.values(), list(answers.values())
    right = {run: each.predicted == each.names for run, each in answers.items()}
    results = [Measure("accuracy", np.ones(len(first.names), dtype=bool), right)]
    detectors = [each.detector for each in every if each.detector is not None]
    if len(detectors) == len(every) and len({detector.positive for detector in detectors}) == 1:
        hits = first.names == detectors[0].positive
        detected = {run: each.detected for run, each in answers.items() if each.detected is not None}
        results += [Measure("recall", hits, detected), Measure("false_positive_rate", ~hits, detected)]
    return results


def slices(
    rows: TextData | ImageData, by: Sequence[str], read_from: Columns | None, form: Form
) -> dict[str, np.ndarray]:
    """Value of each row (N,) in each of the columns ``by``.

    ``length`` are quartiles of the number of words, ``class`` is the label; another name is a column of the file that
    the rows were read from. Rows are found in the file by their texts.

    Raises:
        UserError: there is no such column or no file, or the rows are images.
    """
    result = dict[str, np.ndarray]()
    texts = getattr(rows, "texts", None)
    for name in dict.fromkeys(by):
        if name == CLASS:
            result[name] = np.array([_class(rows, row) for row in range(len(rows))], dtype=object)
        elif texts is None:
            raise UserError(f"images have no column {name!r}", where="--by", hint="slices of images are by class")
        elif name == LENGTH:
            result[name] = quartiles(np.array([sum(len(text.split()) for text in row) for row in texts]))
        else:
            result[name] = _column(rows, name, read_from, form)
    return result


def _column(rows: Any, name: str, read_from: Columns | None, form: Form) -> np.ndarray:
    """Values (N,) str of a column of the rows' file; of texts that stand in it more than once in their order."""
    path = Path(rows.source)
    if not path.is_file() or read_from is None:
        hint = f"name one with --data FILE, or slice by {LENGTH} or {CLASS}"
        raise UserError(f"there is no file with a column {name!r}", where="--by", hint=hint)
    table = read_table(path, form=form)
    if name not in table.names:
        raise unknown("column", name, [*table.names, LENGTH, CLASS], where="--by")
    values: dict[tuple[str, ...], deque[str]] = {}
    texts = zip(*(table.column(column) for column in read_from.texts), strict=True)
    for text, value in zip(texts, table.column(name), strict=True):
        values.setdefault(tuple(map(str, text)), deque()).append("" if value is None else str(value))
    missing = [texts for texts in rows.texts if texts not in values]
    if missing:
        raise UserError(f"{len(missing)} rows are not in the file as they were read", where=str(path))
    return np.array([_next(values[texts]) for texts in rows.texts], dtype=object)


def _next(values: "deque[str]") -> str:
    """The next value of a text, the last one again and again."""
    return values.popleft() if len(values) > 1 else values[0]
