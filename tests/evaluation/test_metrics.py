from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import sts_reference

from contraverse.data import IMAGE_TASKS, TASKS
from contraverse.errors import UserError
from contraverse.evaluation import METRICS
from contraverse.evaluation.metrics import TABLE, compute

LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 2.0], [5.0, 4.0], [0.0, 1.0]])  # predicts 0 1 1 0 1
LABELS = np.array([0, 1, 0, 1, 1])  # one false positive, one false negative


def one_hot(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predicted]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 60.0),
        ("error_rate", 40.0),
        ("f1", 100 * 2 / 3),  # of class 1: 2 TP, 1 FP, 1 FN
        ("macro_f1", 100 * (2 / 3 + 1 / 2) / 2),
        ("mcc", 100 * (2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2)),
    ],
)
def test_by_hand(name: str, expected: float) -> None:
    assert METRICS[name](LOGITS, LABELS) == pytest.approx(expected)


def test_f1_is_of_class_1_and_not_of_the_rarer_one() -> None:
    assert METRICS["f1"](one_hot([0, 0, 0, 1], 2), np.array([0, 0, 0, 0])) == 0.0
    assert METRICS["f1"](one_hot([1, 1, 1, 0], 2), np.array([1, 1, 1, 1])) == pytest.approx(100 * 6 / 7)


def test_f1_refuses_more_than_two_classes() -> None:
    with pytest.raises(UserError, match="macro_f1"):
        METRICS["f1"](one_hot([0, 1], 3), np.array([0, 1]))


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "mcc"])
@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_prediction_gives_a_number(name: str, constant: int) -> None:
    value = METRICS[name](one_hot([constant] * 4, 2), np.array([0, 1, 1, 0]))
    assert value == {"accuracy": 50.0, "mcc": 0.0}.get(name, value)
    assert 0 <= value <= 100


@pytest.mark.parametrize("name", ["f1", "macro_f1", "mcc"])
def test_one_class_only_gives_a_number(name: str) -> None:
    assert np.isfinite(METRICS[name](one_hot([0, 0], 2), np.array([0, 0])))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(("scores", "labels"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_the_correlation_with_a_constant_is_zero(name: str, scores: list[float], labels: list[float]) -> None:
    assert METRICS[name](np.array(scores), np.array(labels)) == 0.0


numbers = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12).filter(
    lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True))
)


@given(numbers)
def test_correlations_equal_their_definitions(rows: list[tuple[int, int]]) -> None:
    x, y = (list(map(float, column)) for column in zip(*rows, strict=True))
    scores, labels = np.array(x)[:, None], np.array(y)
    assert METRICS["spearman"](scores, labels) == pytest.approx(100 * sts_reference.spearman(x, y), abs=1e-9)
    assert METRICS["pearson"](scores, labels) == pytest.approx(100 * sts_reference.pearson(x, y), abs=1e-9)


@pytest.mark.parametrize("name", list(METRICS))
def test_nan_is_refused_and_not_ranked(name: str) -> None:
    scores = np.array([[np.nan], [1.0]]) if name in ("pearson", "spearman") else np.array([[np.nan, 0.0], [1.0, 0.0]])
    with pytest.raises(UserError, match="NaN"):
        METRICS[name](scores, np.array([0, 1]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="integer labels"):
        METRICS["accuracy"](LOGITS, LABELS + 0.5)
    with pytest.raises(UserError, match="regression"):
        METRICS["accuracy"](LOGITS[:, :1], LABELS)
    with pytest.raises(UserError, match="0 to 2, and the model knows 0 to 1"):
        METRICS["accuracy"](LOGITS, np.array([0, 1, 2, 0, 1]))
    with pytest.raises(UserError, match="one score a row"):
        METRICS["pearson"](LOGITS, LABELS)
    with pytest.raises(UserError, match="5 scores"):
        METRICS["accuracy"](LOGITS, LABELS[:4])


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    assert compute(["accuracy", "mcc"], LOGITS, LABELS).keys() == {"accuracy", "mcc"}
    with pytest.raises(UserError, match='no metric is called "acuracy"\ndid you mean "accuracy"'):
        compute(["acuracy"], LOGITS, LABELS)


@pytest.mark.parametrize("task", (TASKS | IMAGE_TASKS).values(), ids=lambda task: task.name)
def test_a_task_s_metrics_are_in_the_table_and_suit_its_kind(task: Any) -> None:
    for name in task.metrics:
        assert task.kind in METRICS[name].kinds


def test_every_metric_has_a_label_for_readers() -> None:
    assert all(metric.label and metric.name == name for name, metric in TABLE.items())
    assert not TABLE["error_rate"].greater_is_better
    assert [name for name, metric in TABLE.items() if metric.of_rows and not metric.percent] == []
