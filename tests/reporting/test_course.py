"""The course of a training: what is drawn of a log, and where."""

import re
from typing import Any

import numpy as np
import pytest
from reporting.test_curve import lines, texts

from contraverse.reporting.course import loss_course, validation_course

LOG: list[dict[str, Any]] = [
    {"step": 1, "epoch": 0.5, "loss": 2.0},
    {"step": 2, "epoch": 1.0, "eval_accuracy": 40.0, "eval_robust_accuracy": 10.0, "eval_mcc": 3.0},
    {"step": 3, "epoch": 1.5, "loss": 1.0},
    {"step": 4, "epoch": 2.0, "eval_accuracy": 80.0, "eval_robust_accuracy": 30.0, "eval_mcc": 4.0},
    {"step": 8, "epoch": 4.0, "eval_accuracy": 90.0, "eval_robust_accuracy": None, "eval_mcc": 5.0},
]


def frame(svg: str) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', svg)[0])
    return x, y, width, height


def test_shares_of_validation_rows_lie_at_their_epochs() -> None:
    svg = validation_course(LOG)
    assert svg is not None
    assert "validation" in svg[:200]
    found, (x, y, width, height) = lines(svg), frame(svg)
    accuracy, robust = found["--series-1"], found["--series-2"]
    np.testing.assert_allclose((accuracy[:, 0] - x) / width, [0, 1 / 3, 1], atol=1e-6)
    np.testing.assert_allclose((y + height - accuracy[:, 1]) / height, [0.4, 0.8, 0.9], atol=1e-6)
    np.testing.assert_allclose((y + height - robust[:, 1]) / height, [0.1, 0.3], atol=1e-6)
    assert texts(svg) == [
        "1", "2", "4", "epoch", "0", "25", "50", "75", "100 %", "Accuracy", "Accuracy under attack",
    ]  # fmt: skip


def test_the_loss_is_drawn_beside_them() -> None:
    svg = loss_course(LOG)
    assert svg is not None
    assert "loss" in svg[:200]
    (x, y, width, height), points = frame(svg), lines(svg)["--series-1"]
    np.testing.assert_allclose((points[:, 0] - x) / width, [0, 1], atol=1e-6)
    np.testing.assert_allclose((y + height - points[:, 1]) / height, [1, 0.5], atol=1e-6)
    assert texts(svg) == ["0.5", "1.5", "epoch", "0", "1", "2"]


@pytest.mark.parametrize("log", [[], LOG[:1], LOG[:2], [{"epoch": None, "loss": 1.0}] * 3])
def test_one_point_is_no_course(log: list[dict[str, Any]]) -> None:
    assert validation_course(log) is None
    assert loss_course(log) is None


def test_a_long_log_is_drawn_by_the_means_of_neighbours() -> None:
    svg = loss_course([{"epoch": (i + 1) / 100, "loss": 1.0 + i % 2} for i in range(1200)])
    assert svg is not None
    (_, y, _, height), points = frame(svg), lines(svg)["--series-1"]
    assert len(points) == 60
    np.testing.assert_allclose((y + height - points[:, 1]) / height, 1.0)  # each mean is 1.5, the largest value drawn
    assert len(svg) < 40_000
