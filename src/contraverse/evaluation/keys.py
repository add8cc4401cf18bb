"""Names of metrics in JSON and on a terminal: ``accuracy``, ``accuracy@apgd-0.3``, ``uar@fog``.

Inside the package figures stay structured (`contraverse.evaluation.RobustReport`, or its dict): a name is made by
``str`` when JSON is written, and read by `MetricKey.read` when it comes from there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class MetricKey(NamedTuple):
    """A metric, and under what it was measured.

    Attributes:
        metric: name in `contraverse.evaluation.metrics.TABLE`.
        under: attack or corruption; None for clean rows.
        epsilon: radius, in the attack's norm; None where there is none.
    """

    metric: str
    under: str | None = None
    epsilon: float | None = None

    def __str__(self) -> str:
        if self.under is None:
            return self.metric
        return f"{self.metric}@{self.under}" + ("" if self.epsilon is None else f"-{self.epsilon:g}")

    @classmethod
    def read(cls, name: str) -> "MetricKey":
        """The parts of a name from JSON. The radius is what follows a hyphen and is a number to the end."""
        metric, at, under = name.partition("@")
        if not at:
            return cls(name)
        attack, *rest = under.split("-")
        while rest:
            try:
                return cls(metric, attack, float("-".join(rest)))
            except ValueError:
                attack = f"{attack}-{rest.pop(0)}"
        return cls(metric, under)


def attacked_accuracy(evaluation: Mapping[str, Any]) -> dict[MetricKey, float]:
    """Accuracy at each radius of ``evaluation["robustness"]``, `RobustReport.to_dict`; empty without an attack."""
    robustness = evaluation.get("robustness")
    if not robustness:
        return {}
    attack = robustness["attack"]["name"]
    return {MetricKey("accuracy", attack, at["epsilon"]): at["accuracy"] for at in robustness["at"]}


def noise_metrics(evaluation: Mapping[str, Any]) -> dict[MetricKey, float]:
    """Means under noise of ``evaluation["noise"]``, `NoiseReport.to_dict`; empty without noise.

    Those of the metric, and of a detector recall and false positives at its threshold.
    """
    noise = evaluation.get("noise")
    if not noise:
        return {}
    rates = {MetricKey(name, "noise"): rate["mean"]["value"] for name, rate in noise["threshold"].items()}
    return {MetricKey(noise["metric"], "noise"): noise["mean"]["value"]} | rates


def detected_under_attack(evaluation: Mapping[str, Any]) -> dict[MetricKey, float]:
    """Recall at a detector's threshold at each radius of ``evaluation["detection"]``; empty without an attack."""
    attacked = (evaluation.get("detection") or {}).get("under_attack")
    if not attacked:
        return {}
    return {
        MetricKey("recall", attacked["attack"], at["epsilon"]): at["recall"]["percent"]
        for at in attacked["at"]
        if at["recall"]["percent"] is not None
    }


def evasion_metrics(evaluation: Mapping[str, Any]) -> dict[MetricKey, float]:
    """Accuracy at each budget of ``evaluation["evasion"]``, reports by attack; empty without such an attack."""
    return {
        MetricKey("accuracy", name, at["budget"]): at["accuracy"]["percent"]
        for name, report in (evaluation.get("evasion") or {}).items()
        for at in report["at"]
        if at["accuracy"]["percent"] is not None
    }


HARDENED = "hardened-"
"""Before the name of noise or an attack: measured with a tokenizer that undoes look-alikes and hidden characters."""


def hardened_metrics(evaluation: Mapping[str, Any]) -> dict[MetricKey, float]:
    """Metrics of ``evaluation["hardened"]``, noise and attacks of the hardened model; empty without."""
    hardened = evaluation.get("hardened") or {}
    own = noise_metrics(hardened) | evasion_metrics(hardened)
    return {MetricKey(key.metric, f"{HARDENED}{key.under}", key.epsilon): value for key, value in own.items()}


def clean_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """``evaluation["metrics"]`` without those under attacks or noise, which an evaluation in JSON holds by name."""
    attacked = set(map(str, _others(evaluation)))
    return {name: value for name, value in evaluation["metrics"].items() if name not in attacked}


def named_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """All metrics of an evaluation by name, for JSON: the clean ones, then those under attacks and noise."""
    return {**clean_metrics(evaluation), **{str(key): value for key, value in _others(evaluation).items()}}


def _others(evaluation: Mapping[str, Any]) -> dict[MetricKey, float]:
    under_attack = attacked_accuracy(evaluation) | detected_under_attack(evaluation)
    under_noise = noise_metrics(evaluation) | evasion_metrics(evaluation)
    return under_attack | under_noise | hardened_metrics(evaluation)
