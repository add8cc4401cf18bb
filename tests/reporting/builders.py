"""Runs with the figures of a real comparison."""

from collections.abc import Mapping
from typing import Any

from contraverse.evaluation.keys import MetricKey
from contraverse.reporting import Measured


def run(name: str, metrics: Mapping[Any, float | None], attack: str = "pgd", **other: Any) -> Measured:
    """``metrics``: clean ones by name, accuracies under ``attack`` by radius."""
    clean = {key: value for key, value in metrics.items() if isinstance(key, str)}
    attacked = {
        MetricKey("accuracy", attack, float(key)): value for key, value in metrics.items() if not isinstance(key, str)
    }
    return Measured(name, clean, attacked, **other)


CE = run("cross-entropy", {"accuracy": 96.4, 0.1: 88.2, 0.3: 42.8, 1: 0.6}, seconds=195, cost="3F")
SCAL = run("SCAL", {"accuracy": 96.4, 0.1: 92.4, 0.3: 76.0, 1: 3.6}, seconds=416, cost="7F")


def measured(name: str, clean: float | None, attacked: float) -> Measured:
    return run(name, {"accuracy": clean, 0.3: attacked})
