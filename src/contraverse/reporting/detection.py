"""Figure of a report: measures of a detector of one class."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from contraverse.evaluation.keys import MetricKey
from contraverse.reporting.data import ReportData
from contraverse.reporting.names import heading
from contraverse.reporting.sections import Section, draw


def detection_rows(detection: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, percent and interval of each measure of `contraverse.evaluation.detection.DetectionReport.to_dict`."""
    rows = [(heading(name), f"{at['value']:.1f}", _ends(at)) for name, at in detection["metrics"].items()]
    if threshold := detection.get("threshold"):
        names = {"recall": "recall", "realised": "false_positive_rate"}
        rows += [
            (heading(name), "-" if threshold[key]["percent"] is None else f"{threshold[key]['percent']:.1f}",
             _ends(threshold[key]))
            for key, name in names.items()
        ]  # fmt: skip
    if attacked := detection.get("under_attack"):
        for at in attacked["at"]:
            recall, name = at["recall"], heading(str(MetricKey("recall", attacked["attack"], at["epsilon"])))
            rows.append((name, "-" if recall["percent"] is None else f"{recall['percent']:.1f}", _ends(recall)))
    return rows


def _ends(figure: Mapping[str, float | None]) -> str:
    low, high = figure["low"], figure["high"]
    return "-" if low is None or high is None else f"{low:.1f} to {high:.1f}"


def detector(data: ReportData) -> Section | None:
    """Measures of each run's detector, with their intervals, and its threshold."""
    if not data.detections:
        return None
    parts = list[Markup]()
    for run, detection in data.detections.items():
        note = f"{run}: {detection['positive']} against the rest, {detection['positives']:,} rows against "
        note += (
            f"{detection['benign']:,}. Intervals: 95 %, bootstrap over rows, at the threshold Clopper and Pearson's."
        )
        if threshold := detection.get("threshold"):
            note += (
                f" Threshold: a probability of {threshold['probability']:.4g}, chosen on {threshold['benign_rows']:,} "
                f"benign validation rows for {threshold['false_positive_rate']:g} % false positives."
            )
        header = ("Measure", "%", "Interval")
        parts.append(draw("grid", header=header, rows=detection_rows(detection), note=note))
    return Section("Detector", Markup("").join(parts))
