"""A new attack or metric is one function and one row of a table."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contraverse.attacks import ATTACKS, attack_label, gradient
from contraverse.evaluation import robust_accuracy
from contraverse.recipes import EvaluationConfig


def test_a_new_attack_is_one_function_and_one_row(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Any, labelled: Any
) -> None:
    calls: list[int] = []

    def count(*args: Any, **settings: Any) -> Any:
        calls.append(settings["steps"])
        return gradient.pgd(*args, **settings)

    monkeypatch.setattr(gradient, "count", count, raising=False)
    row = replace(ATTACKS["pgd"], name="count", label="Count", function="gradient:count")
    monkeypatch.setitem(ATTACKS, "count", row)
    model, data = tiny_model(), labelled(12)
    report = robust_accuracy(model, data, [2.0], attack="count", steps=3)
    assert calls == [3]
    np.testing.assert_array_equal(report.at[2.0].correct, robust_accuracy(model, data, [2.0], steps=3).at[2.0].correct)
    assert EvaluationConfig(attack="count").attempts(3) == 1
    assert attack_label("count") == "Count"
