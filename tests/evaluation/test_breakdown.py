"""Results by class and by row, against a loop over the rows."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contraverse.evaluation import robust_accuracy
from contraverse.evaluation.breakdown import breakdown

LOGITS = np.array([[4.0, 0, 0], [0, 1, 0], [0, 0, 9], [0, 3, 0], [2, 0, 0], [0, 2, 0]])  # predicts 0 1 2 1 0 1
LABELS = np.array([0, 1, 0, 0, 0, 1])


def attacked(correct: list[bool], predicted: list[int]) -> Any:
    return SimpleNamespace(correct=np.array(correct), predicted=np.array(predicted))


REPORT: Any = SimpleNamespace(
    at={
        0.1: attacked([True, False, False, False, False, True], [0, 2, 2, 1, 1, 1]),
        0.3: attacked([False, False, False, False, False, True], [2, 2, 2, 1, 1, 1]),
    }
)


def test_by_hand() -> None:
    found = breakdown(LOGITS, LABELS, ["a", "b", "c"], REPORT)
    clean, first, second = found.confusions
    assert clean.counts.tolist() == [[2, 1, 1], [0, 2, 0], [0, 0, 0]]
    assert first.counts.tolist() == [[1, 2, 1], [0, 1, 1], [0, 0, 0]]
    assert (clean.epsilon, first.epsilon, second.epsilon) == (None, 0.1, 0.3)
    assert [(row.row, row.predicted) for row in found.mistakes] == [(2, 2), (3, 1)]  # by confidence
    fragile = [(row.row, row.epsilon, row.attacked) for row in found.fragile]
    assert fragile == [(4, 0.1, 1), (1, 0.1, 2), (0, 0.3, 2)]  # by radius, then confidence
    assert found.mistakes[0].confidence == pytest.approx(np.exp(9) / (np.exp(9) + 2))


def test_json_has_names_and_only_the_cells_that_are_not_zero() -> None:
    found = breakdown(LOGITS, LABELS, ["a", "b", "c"], REPORT, count=1).to_dict()
    assert found["confusions"][0] == {"epsilon": None, "cells": [[0, 0, 2], [0, 1, 1], [0, 2, 1], [1, 1, 2]]}
    (mistake,) = found["mistakes"]
    assert {key: mistake[key] for key in ("row", "label", "predicted")} == {"row": 2, "label": "a", "predicted": "c"}
    assert "epsilon" not in mistake
    (fragile,) = found["fragile"]
    assert (fragile["label"], fragile["predicted"], fragile["attacked"], fragile["epsilon"]) == ("a", "a", "b", 0.1)


def test_an_attack_s_counts_agree_with_its_accuracies(tiny_model: Any, labelled: Any) -> None:
    model, data = tiny_model(), labelled(30)
    report = robust_accuracy(model, data, [0.2, 2.0], attack="apgd", steps=2, batch_size=7)
    found = breakdown(report.logits, report.labels, model.labels, report)
    clean, *at = found.confusions
    assert np.trace(clean.counts) / 30 * 100 == pytest.approx(report.clean_accuracy)
    assert [np.trace(c.counts) / 30 * 100 for c in at] == pytest.approx([a.accuracy for a in report.at.values()])
    assert all(c.counts.sum() == 30 for c in found.confusions)
    for attack in report.at.values():
        np.testing.assert_array_equal(attack.predicted == report.labels, attack.correct)
    wrong_clean = ~report.clean_correct
    np.testing.assert_array_equal(report.at[2.0].predicted[wrong_clean], report.logits.argmax(1)[wrong_clean])
    broken = Counter(epsilon for row in found.fragile if (epsilon := row.epsilon) is not None)
    lost = np.trace(clean.counts) - np.trace(at[0].counts)
    assert broken[0.2] == min(10, lost)


def test_without_an_attack_there_is_nothing_fragile() -> None:
    found = breakdown(LOGITS, LABELS, ["a", "b", "c"])
    assert len(found.confusions) == 1
    assert found.fragile == ()
