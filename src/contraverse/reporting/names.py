"""Names of metrics, attacks and times for a reader."""

from collections.abc import Mapping
from typing import Any

from contraverse.attacks import attack_label
from contraverse.evaluation.keys import HARDENED, MetricKey
from contraverse.evaluation.metrics import TABLE
from contraverse.units import shown

MISSING = "-"
NORMS = {"l1": "L1", "l2": "L2", "linf": "L∞"}
NBSP = "\N{NO-BREAK SPACE}"


def label(metric: str) -> str:
    """A metric's name inside a sentence."""
    return TABLE[metric].label if metric in TABLE else plain(metric)


def is_percent(metric: str) -> bool:
    """True for a share of rows, which is printed with a percent sign."""
    return metric in TABLE and TABLE[metric].percent


def heading(key: str | MetricKey) -> str:
    """A metric's name at the head of a column: ``accuracy@pgd-0.3`` is "Accuracy, PGD ε=0.3".

    A budget of an attack on texts has no ε: ``accuracy@edits-2`` is "Accuracy, edits 2".
    """
    metric, under, epsilon = MetricKey.read(key) if isinstance(key, str) else key
    name = label(metric)
    name = name[:1].upper() + name[1:] if metric in TABLE else name
    if under is None:
        return name
    if under.startswith(HARDENED):
        return f"{heading(MetricKey(metric, under.removeprefix(HARDENED), epsilon))}, hardened"
    if epsilon is not None:
        from contraverse.evasion.suite import BUDGETS, STANDARD  # slow to load, and there already where it was attacked

        if under in (*BUDGETS, STANDARD):
            return f"{name}, {under} {epsilon:g}"
        return f"{name}, {attack_label(under)} ε={shown(epsilon)}"
    words = plain(under).replace("imagenet_c_", "ImageNet-C's ").replace("_", " ")
    return f"{name}, {words}"


def amount(value: float, metric: str, digits: int = 1) -> str:
    """``76.0 %`` with a space that does not break, or a bare number for a metric that is no share."""
    return f"{value:.{digits}f}" + (f"{NBSP}%" if is_percent(metric) else "")


def describe_attack(attack: str, settings: Mapping[str, Any]) -> str:
    """An attack with its settings, in words: "PGD, 5 steps, L2 norm per sequence, 1 restart"."""
    chosen = {key: value for key, value in settings.items() if value is not None}
    words = [attack_label(attack)]
    for key, value in chosen.items():
        match key:
            case "steps" | "restarts":
                words.append(f"{value} {key if value != 1 else key[:-1]}")
            case "norm":
                scope = f" per {plain(chosen['scope'])}" if "scope" in chosen else ""
                words.append(f"{NORMS.get(value, plain(value))} norm{scope}")
            case "random_start":
                words.append("random start" if value else "no random start")
            case "relative":
                if value:
                    words.append("ε as a fraction of each text's embeddings' norm")
            case "scope" if "norm" in chosen:
                pass
            case _:
                words.append(f"{key.replace('_', ' ')} {plain(value)}")
    return ", ".join(words)


def duration(seconds: float | None) -> str:
    """Seconds as a reader says them: "3 min 15 s"; "-" for None."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value}{NBSP}{unit}" for value, unit in parts if value)


def plain(text: object) -> str:
    """``text`` on one line: line breaks, control characters and lone surrogates become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
