"""Detectors in ``contraverse evaluate``: the options, the threshold, and the table."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from contraverse.cli.console import result, say, warn
from contraverse.errors import UserError
from contraverse.visible import visible

if TYPE_CHECKING:
    from contraverse.cli.request import Request
    from contraverse.data import Rows
    from contraverse.models import AnyModel
    from contraverse.models.detector import Detector
    from contraverse.types import BNBranch

Positive = Annotated[
    str | None,
    typer.Option(help="Class to detect: AUROC, AUPRC, recall at few false positives, calibration; and under noise."),
]
FalsePositiveRate = Annotated[
    float | None,
    typer.Option(
        min=0, max=100, help="Percent of the other validation rows detected at most: the threshold. (default: saved)"
    ),
]


def check_detector_flags(request: "Request") -> None:
    """Refuse a class that the model does not have, and a rate without a class.

    Raises:
        UserError: there is no such class, or no class.
    """
    from contraverse.models.detector import class_id

    settings, rate = request.settings, request.options["false_positive_rate"]
    if rate is not None and not 0 < rate < 100:
        raise UserError(f"it lies between 0 and 100 %, not at {rate:g}", where="--false-positive-rate")
    if settings.positive is None:
        if rate is not None:
            hint = "name the class to detect with --positive"
            raise UserError("there is no class for it", where="--false-positive-rate", hint=hint)
        return
    class_id(settings.positive, request.loaded.model.labels, where="--positive")


def set_threshold(
    request: "Request", read_validation: "Callable[[], Rows | None]", bn_branch: "BNBranch" = "adversarial"
) -> None:
    """Choose the model's threshold on validation rows, unless it was saved with one for this class."""
    settings, model = request.settings, request.loaded.model
    if settings.positive is None:
        return
    saved = model.detector
    if request.options["false_positive_rate"] is None and saved is not None and saved.positive == settings.positive:
        return
    from contraverse.pipeline.detector import fit_detector

    say(fit_detector(model, read_validation(), settings, bn_branch))


def chosen_detector(model: "AnyModel", positive: str | None, threshold: float | None) -> "Detector | None":
    """Return the threshold that predictions are made by: the one of the options, or the model's own.

    Raises:
        UserError: a threshold out of (0, 1) or without a class, or a class without a threshold.
    """
    from scipy.special import logit

    from contraverse.models.detector import Detector, class_id

    saved = model.detector
    if threshold is None:
        if positive is not None and (saved is None or saved.positive != positive):
            class_id(positive, model.labels, where="--positive")
            raise UserError(
                f"no threshold was saved for {positive}", where="--positive", hint="set one: --threshold .5"
            )
        return saved
    if not 0 < threshold < 1:
        raise UserError(f"it is a probability between 0 and 1, not {threshold:g}", where="--threshold")
    name = positive or (saved.positive if saved is not None else None)
    if name is None:
        raise UserError("there is no class for it", where="--threshold", hint="name the class to detect: --positive")
    class_id(name, model.labels, where="--positive")
    return Detector(positive=name, log_odds=float(logit(threshold)))


def show_detection(detection: Mapping[str, Any]) -> None:
    """Print the measures of a detector with their intervals."""
    from contraverse.reporting.detection import detection_rows

    name = visible(detection["positive"])
    title = (
        f"{name} against the rest, {detection['positives']:,} of {detection['positives'] + detection['benign']:,} rows"
    )
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right")
    for row in detection_rows(detection):
        table.add_row(*map(escape, row))
    result.print(table, soft_wrap=False)
    for line in detection["warnings"]:
        warn(line)
