"""Runs with the figures of a real comparison."""

from contraverse.reporting import Measured

CE = Measured(
    "cross-entropy",
    {"accuracy": 96.4, "accuracy@pgd-0.1": 88.2, "accuracy@pgd-0.3": 42.8, "accuracy@pgd-1": 0.6},
    seconds=195,
    cost="3F",
)
SCAL = Measured(
    "SCAL",
    {"accuracy": 96.4, "accuracy@pgd-0.1": 92.4, "accuracy@pgd-0.3": 76.0, "accuracy@pgd-1": 3.6},
    seconds=416,
    cost="7F",
)


def measured(name: str, clean: float | None, attacked: float) -> Measured:
    return Measured(name, {"accuracy": clean, "accuracy@pgd-0.3": attacked})
