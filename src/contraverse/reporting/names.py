"""How figures, attacks and times are named to a reader."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from contraverse.units import shown

MISSING = "-"
PERCENT = frozenset({"accuracy", "robust_accuracy", "error_rate", "f1", "macro_f1", "probe", "probe_adversarial"})
STS = {f"sts{year}": f"STS{year}" for year in range(12, 17)} | {"stsb": "STS-B", "sick": "SICK-R"}
LABELS = STS | {
    "accuracy": "accuracy",
    "robust_accuracy": "accuracy under attack",
    "error_rate": "error rate",
    "probe": "linear probe",
    "probe_adversarial": "linear probe, adversarial batch norm",
    "f1": "F1",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "average": "average",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "uar": "UAR",
}
ATTACKS = {"autoattack": "AutoAttack"}
NORMS = {"l2": "L2", "linf": "L∞"}
NBSP = "\N{NO-BREAK SPACE}"

_ATTACKED = re.compile(r"(?P<metric>[^@]+)@(?P<attack>[^@]+?)-(?P<epsilon>\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


class UnderAttack(NamedTuple):
    """A figure under attack, as named by a key like ``accuracy@pgd-0.3``; ``epsilon`` in the attack's norm."""

    metric: str
    attack: str
    epsilon: float

    @classmethod
    def parse(cls, key: str) -> "UnderAttack | None":
        """The parts of ``key``, or None where it names a clean figure."""
        match = _ATTACKED.fullmatch(key)
        return cls(match["metric"], match["attack"], float(match["epsilon"])) if match else None


def label(metric: str) -> str:
    """A metric's name inside a sentence."""
    return LABELS.get(metric, plain(metric))


def heading(key: str) -> str:
    """A figure's name at the head of a column: ``accuracy@pgd-0.3`` is "Accuracy, PGD ε=0.3"."""
    if at := UnderAttack.parse(key):
        return f"{heading(at.metric)}, {ATTACKS.get(at.attack, at.attack.upper())} ε={shown(at.epsilon)}"
    metric, at_what, where = key.partition("@")
    if at_what:
        where = plain(where).replace("imagenet_c_", "ImageNet-C's ").replace("_", " ")
        return f"{heading(metric)}, {where}"
    name = label(key)
    return name[:1].upper() + name[1:] if key in LABELS else name


def amount(value: float, metric: str, digits: int = 1) -> str:
    """``76.0 %`` with a space that does not break, or a bare number for a metric that is no share."""
    return f"{value:.{digits}f}" + (f"{NBSP}%" if metric in PERCENT else "")


def describe_attack(attack: str, settings: Mapping[str, Any]) -> str:
    """An attack with its settings, in words: "PGD, 5 steps, L2 norm per sequence, 1 restart"."""
    given = {key: value for key, value in settings.items() if value is not None}
    words = [attack.upper()]
    for key, value in given.items():
        match key:
            case "steps" | "restarts":
                words.append(f"{value} {key if value != 1 else key[:-1]}")
            case "norm":
                scope = f" per {plain(given['scope'])}" if "scope" in given else ""
                words.append(f"{NORMS.get(value, plain(value))} norm{scope}")
            case "random_start":
                words.append("random start" if value else "no random start")
            case "relative":
                if value:
                    words.append("ε as a fraction of each text's embeddings' norm")
            case "scope" if "norm" in given:
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
