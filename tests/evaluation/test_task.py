from collections.abc import Callable

import numpy as np
import pytest

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation import TaskEvaluator, evaluate, predict, robust_accuracy
from contraverse.models import TextModel


def test_the_evaluator_gives_the_metrics_of_the_predictions(
    tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]
) -> None:
    model, data = tiny_model(), labelled(20)
    expected = 100 * float(np.mean(predict(model, data).argmax(1) == np.array(data.labels)))
    assert 0 < expected < 100
    found = TaskEvaluator(data, ("accuracy", "error_rate"), batch_size=6)(model)
    assert found == {"accuracy": pytest.approx(expected), "error_rate": pytest.approx(100 - expected)}


def test_an_evaluator_is_refused_before_any_work(labelled: Callable[..., TextData]) -> None:
    with pytest.raises(UserError, match='did you mean "mcc"'):
        TaskEvaluator(labelled(4), ["mc"])
    with pytest.raises(UserError, match="no labels"):
        TaskEvaluator(TextData.from_rows([("the way",)]), ["accuracy"])


def test_evaluate_adds_robust_accuracy_at_each_epsilon(
    tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]
) -> None:
    model, data = tiny_model(), labelled(20)
    found = evaluate(model, data, metrics=["macro_f1"], epsilons=[0.02, 1], steps=2, norm="linf")
    report = robust_accuracy(model, data, [0.02], steps=2, norm="linf")
    assert list(found) == ["macro_f1", "accuracy", "accuracy@pgd-0.02", "accuracy@pgd-1"]
    assert found["accuracy@pgd-0.02"] == report.at[0.02].accuracy
    assert found["accuracy@pgd-0.02"] < robust_accuracy(model, data, [0.02]).at[0.02].accuracy  # in L2


def test_without_epsilons_there_is_no_attack(
    tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]
) -> None:
    assert evaluate(tiny_model(), labelled(5)).keys() == {"accuracy"}


def test_a_regression_is_judged_by_correlation(
    tiny_model: Callable[..., TextModel], sentences: Callable[..., list[str]]
) -> None:
    data = TextData.from_rows([(text,) for text in sentences(6)], labels=[0.0, 1.5, 2.0, 3.5, 4.0, 5.0])
    found = evaluate(tiny_model(labels=("score",)), data, metrics=["pearson", "spearman"])
    assert found.keys() == {"pearson", "spearman"}
