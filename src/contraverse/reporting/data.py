"""Contents of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from contraverse.reporting.figures import Comparison, Measured, compare
from contraverse.reporting.pictures import Picture


@dataclass(frozen=True)
class Prediction:
    """Classes that one run predicted for a text, by name; ``attacked`` None where it was not attacked."""

    run: str
    clean: str
    attacked: str | None = None


@dataclass(frozen=True)
class Example:
    """A test row: its texts (one, or two of a pair), its label, and the predictions of each run."""

    texts: Sequence[str]
    label: str
    predictions: Sequence[Prediction]


@dataclass(frozen=True)
class ReportData:
    """Contents of a report. Only ``title`` and ``runs`` are needed; what is empty is left out.

    Attributes:
        title: of the page.
        runs: the first is the one that others are compared with.
        metric: decides where nothing was attacked.
        attack: settings of the attack (steps, norm, scope, ...).
        test_rows: number of rows that the figures are over.
        facts: short words under the title (task, model, seed).
        outcome: the sentence at the top; None: that of `contraverse.reporting.outcome.outcome`.
        examples: the first 12 are shown.
        examples_under: their attack, "PGD at ε=0.3".
        settings: of the run; may be nested.
        environment: packages and machine; may be nested.
        command: makes the report again.
        notes: sentences on the data and the run.
        warnings: reasons to doubt the figures, from `contraverse.evaluation.RobustReport`.
        shifts: movement of representations under attack, by the run's name, as
            `contraverse.evaluation.ShiftReport.to_dict` gives it.
        breakdowns: results by class and by row, by the run's name, as `contraverse.pipeline.breakdown.breakdown_of`
            gives them.
        noises: results under noise on texts, by the run's name, as `contraverse.evaluation.NoiseReport.to_dict` gives
            them.
        detections: measures of a detector, by the run's name, as
            `contraverse.evaluation.detection.DetectionReport.to_dict` gives them.
        evasion: attacks on texts as texts, by the run's name and then the attack's, as
            `contraverse.evasion.EvasionReport.to_dict` gives them.
        pictures: images under attack.
        log: rows of one run's ``metrics.jsonl``.
        digits: after the decimal point.
    """

    title: str
    runs: Sequence[Measured]
    metric: str = "accuracy"
    attack: Mapping[str, Any] = field(default_factory=dict)
    test_rows: int | None = None
    facts: Sequence[str] = ()
    outcome: str | None = None
    examples: Sequence[Example] = ()
    examples_under: str = "attack"
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    shifts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    breakdowns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    noises: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    detections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evasion: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    log: Sequence[Mapping[str, Any]] = ()
    digits: int = 1

    @cached_property
    def comparison(self) -> Comparison:
        """The runs side by side."""
        return compare(self.runs)
