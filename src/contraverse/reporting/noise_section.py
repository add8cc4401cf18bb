"""Figure of a report: a metric under noise on texts, by kind and strength."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from contraverse.reporting.data import ReportData
from contraverse.reporting.names import heading, label
from contraverse.reporting.noise_map import interval_text, noise_map, threshold_rows, threshold_text
from contraverse.reporting.sections import LONGEST_TEXT, Section, draw


def under_noise(data: ReportData) -> Section | None:
    """A picture of kinds by strengths and rows that broke, of one run; a table of kinds by runs, of several."""
    if not data.noises:
        return None
    if len(data.noises) > 1:
        return Section("Under noise", _table(data.noises), wide=True)
    (noise,) = data.noises.values()
    parts = [draw("plot", svg=Markup(noise_map(noise)), caption=_caption(noise))]
    if noise["threshold"]:
        strengths = sorted({cell["strength"] for cell in noise["cells"]})
        header = ("Noise", *map(str, strengths), "mean", "false positives")
        note = (
            f"Recall of {noise['positive']} at the saved threshold by strength, and mean false positives, in percent."
        )
        parts.append(draw("grid", header=header, rows=threshold_rows(noise), note=note))
    if noise["examples"]:
        rows = [
            (f"{e['kind']} {e['strength']}", " | ".join(e["texts"])[:LONGEST_TEXT], f"{e['label']} → {e['predicted']}")
            for e in noise["examples"]
        ]
        header = ("Noise", "Row that is right and breaks, changed places marked", "Label → predicted")
        parts.append(draw("grid", header=header, rows=rows, note="", names=3))
    return Section("Under noise", Markup("").join(parts), wide=True)


def _caption(noise: Mapping[str, Any]) -> str:
    sentences = [
        f"{heading(noise['metric'])} of {noise['rows']:,} rows by kind and strength (docs/noise.md), clean "
        f"{noise['clean']:.1f}; mean of all {noise['mean']['value']:.1f}, difference to clean "
        f"{interval_text(noise['difference'])} with its 95 % bootstrap interval over rows"
    ]
    if noise["threshold"]:
        sentences.append(threshold_text(noise))
    elif noise["positive"] in noise["recall"]:
        recall = noise["recall"][noise["positive"]]
        sentences.append(
            f"recall of {noise['positive']} {recall['clean']:.1f} clean, {recall['noise']:.1f} under noise"
        )
    return ". ".join([*sentences, *noise["warnings"]]) + "."


def _table(noises: Mapping[str, Mapping[str, Any]]) -> Markup:
    kinds = list(dict.fromkeys(kind for noise in noises.values() for kind in noise["by_kind"]))
    rows = [("clean", *(f"{noise['clean']:.1f}" for noise in noises.values()))]
    for kind in kinds:
        values = (noise["by_kind"].get(kind) for noise in noises.values())
        rows.append((kind, *("-" if value is None else f"{value:.1f}" for value in values)))
    rows.append(("mean of all", *(f"{noise['mean']['value']:.1f}" for noise in noises.values())))
    metric = label(next(iter(noises.values()))["metric"])
    return draw("grid", header=("Noise", *noises), rows=rows, note=f"{metric}, mean over strengths.")
