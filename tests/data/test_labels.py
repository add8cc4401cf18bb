"""Classes of rows and of models: by name, by number where there are no names, or refused."""

from dataclasses import replace

import numpy as np
import pytest

from contraverse.data import get_task, load_splits
from contraverse.data.encoding import match_classes, task_for
from contraverse.errors import UserError

UNNAMED = ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["a", "b"], ["a", "b"], None),
        (["a", "b"], ["b", "a"], [1, 0]),
        (["A", "b"], ["B", "x", "a"], [2, 0]),
        (["0", "1"], ["no", "yes"], None),
        (["0", "1"], UNNAMED, None),
        (["neg", "mid", "pos"], UNNAMED, None),
        (None, ["score"], None),
        (["0", "1", "2"], ["score"], None),
        (["a"], None, None),
    ],
)
def test_classes_are_matched(names: list[str] | None, labels: list[str] | None, expected: list[int] | None) -> None:
    found = match_classes(names, labels)
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["a", "b"], ["score"]),
        (["a", "b"], ["a", "c"]),
        (["a", "b"], UNNAMED),
        (["0", "1", "2"], ["no", "yes"]),
        (["a", "b", "c"], ["a", "b"]),
    ],
)
def test_other_classes_are_refused(names: list[str], labels: list[str]) -> None:
    with pytest.raises(UserError, match="apart"):
        match_classes(names, labels)


def read(tmp_path, task: str, labels: list[str], values: list[str]) -> list[int]:  # type: ignore[no-untyped-def]
    rows = "".join(f"words {i},{value}\n" for i, value in enumerate(values))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    splits = load_splits(replace(task_for(get_task(task), labels), columns=("text",)), {"test": tmp_path / "rows.csv"})
    return list(splits.need("test").labels or [])


def test_numbers_are_the_ids_of_classes_without_names(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A file of one class, 3, of a model of five: not the first one."""
    assert read(tmp_path, "text", [f"LABEL_{i}" for i in range(5)], ["3", "3", "1"]) == [3, 3, 1]
    assert read(tmp_path, "text", [f"LABEL_{i}" for i in range(5)], ["LABEL_4", "0"]) == [4, 0]


@pytest.mark.parametrize("values", [["delivery", "refund"], ["5", "1"], ["-1", "1"]])
def test_names_of_other_classes_are_refused(tmp_path, values: list[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        read(tmp_path, "text", [f"LABEL_{i}" for i in range(5)], values)


def test_numbers_are_the_tasks_own_where_it_has_classes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """SST-2's 1 is positive, which is this model's first."""
    assert read(tmp_path, "sst2", ["POSITIVE", "NEGATIVE"], ["1", "0", "negative"]) == [0, 1, 1]
    assert read(tmp_path, "sst2", ["LABEL_0", "LABEL_1"], ["1", "0", "positive"]) == [1, 0, 1]


@pytest.mark.parametrize(("task", "labels"), [("sst2", ["good", "bad"]), ("sst2", UNNAMED), ("sst2", ["a", "b", "c"])])
def test_a_model_of_other_classes_than_the_task_is_refused(task: str, labels: list[str]) -> None:
    with pytest.raises(UserError, match="apart"):
        task_for(get_task(task), labels)
