"""Measuring a saved model, the same for a run and for ``contraverse evaluate``."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contraverse.data import ImageData, ImageTask, Rows, Task, TextData
from contraverse.evaluation import (
    AttackSettings,
    StsSources,
    TaskEvaluator,
    alignment,
    evaluate_sts,
    find_sts,
    recall_under_attack,
    representation_shift,
    robust_accuracy,
    rows_done,
    shift_attempts,
    uniformity,
)
from contraverse.evaluation.detection import Share, detection
from contraverse.evaluation.images import linear_separability
from contraverse.evaluation.metrics import compute
from contraverse.methods import METHODS
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.pipeline.breakdown import breakdown_of
from contraverse.recipes import EvaluationConfig, RunConfig
from contraverse.types import BNBranch, Evaluator

ROUTES: tuple[BNBranch, ...] = ("clean", "adversarial")


def bn_branch_of(config: RunConfig | None) -> BNBranch:
    """Set of batch norms by which a dual model of this run is measured, used and exported.

    The adversarial one, as the papers test, wherever the run's method trains it (``Method.bn_branch``); the clean one
    after a method that trains nothing else, as ``ce``. None, a model without its run: the adversarial one.
    """
    return METHODS[config.method.name](**config.method.settings).bn_branch if config else "adversarial"


def attacked_evaluator(rows: Rows, settings: EvaluationConfig, bn_branch: BNBranch = "adversarial") -> Evaluator:
    """``robust_accuracy`` under the configured attack, at the first epsilon, whenever training evaluates."""

    def evaluate(model: AnyModel) -> dict[str, float]:
        attack = settings.attack_settings() | {"batch_size": settings.batch_size, "bn_branch": bn_branch}
        report = robust_accuracy(model, rows, settings.epsilons[:1], **attack)
        return {"robust_accuracy": next(iter(report.at.values())).accuracy}

    return evaluate


def measure_task(
    model: AnyModel,
    rows: TextData | ImageData,
    task: Task | ImageTask,
    settings: EvaluationConfig,
    *,
    seed: int,
    bn_branch: BNBranch = "adversarial",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Measure the task's metrics on all ``rows`` and, of a classifier, accuracy under attack on ``settings.rows``.

    ``bn_branch``: which set of a dual model's batch norms. ``progress`` is called with numbers of rows, in all
    `progress_total`.

    Returns:
        ``metrics``: on all rows, by name; of a classifier ``breakdown``, results by class and by row (see
        `breakdown_of`); where an attack was run also ``robustness``, in full, ``right``
        (`RobustReport.right`) and ``shift`` on request; with a ``positive`` class ``detection``
        (`contraverse.evaluation.detection.DetectionReport`), whose figures are among the metrics, at a saved threshold
        also its recall ``under_attack``; where only
        some rows were attacked ``drawn``, the figures on these rows alone, clean accuracy included; of a dual model
        ``bn_branch``; ``notes`` for the reader of the figures, if any.
    """
    logits, labels = TaskEvaluator(rows, task.metrics, settings.batch_size, bn_branch=bn_branch).predict(model)
    measured: dict[str, Any] = {"metrics": compute(task.metrics, logits, labels)}
    notes = list[str]()
    detector = None
    if settings.positive is not None:
        if model.detector is not None and model.detector.positive == settings.positive:
            detector = model.detector
        names = model.labels or ()
        report = detection(logits, labels, names, settings.positive, detector=detector, seed=seed)
        measured["metrics"] |= report.values
        measured["detection"] = report.to_dict()
    if model.dual:
        measured["bn_branch"] = bn_branch
        if bn_branch == "clean":
            notes.append(
                "measured with the clean batch norms of a dual model; plain() exports the adversarial ones by default"
            )
    if settings.epsilons and len(model.labels or ()) > 1:
        attacked = rows.sample(settings.rows, seed) if settings.rows else rows
        attack = settings.attack_settings() | {
            "batch_size": settings.batch_size,
            "bn_branch": bn_branch,
            "progress": progress,
        }
        robust = robust_accuracy(model, attacked, settings.epsilons, diagnostics=settings.diagnostics, **attack)
        measured["robustness"] = robust.to_dict()
        if detector is not None:
            recalls = recall_under_attack(model, attacked, detector, settings.epsilons, **(attack | {"progress": None}))
            measured["detection"]["under_attack"] = {
                "attack": robust.settings.attack,
                "at": [{"epsilon": e, "recall": Share(*counts).to_dict()} for e, counts in recalls.items()],
            }
        measured["right"] = robust.right
        if settings.shift:
            measured["shift"] = representation_shift(model, attacked, settings.epsilons, **attack).to_dict()
        if len(attacked) < len(rows):
            measured["drawn"] = {"rows": len(attacked), "metrics": robust.metrics}
            notes.append(subset_note(len(attacked), len(rows), seed, robust.clean_accuracy))
        measured["breakdown"] = breakdown_of(attacked, task, model.labels or (), robust.logits, robust.labels, robust)
    elif logits.shape[1] > 1:
        measured["breakdown"] = breakdown_of(rows, task, model.labels or (), logits, labels)
    if notes:
        measured["notes"] = notes
    return measured


def subset_note(count: int, rows: int, seed: int, accuracy: float) -> str:
    """Note for reports: only a random subset of the rows was attacked."""
    return (
        f"{count} of {rows} rows were drawn (seed {seed}) to be attacked, and their clean accuracy is {accuracy:.2f}; "
        f"clean figures are over all rows"
    )


def measure_shift(
    model: AnyModel,
    rows: TextData | ImageData,
    settings: EvaluationConfig,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Measure how far an attack moves the representations of a sentence encoder, on ``settings.rows`` of ``rows``."""
    attacked = rows.sample(settings.rows, seed) if settings.rows else rows
    report = representation_shift(
        model,
        attacked,
        settings.epsilons,
        batch_size=settings.batch_size,
        progress=progress,
        **settings.attack_settings(),
    )
    return {"metrics": {}, "shift": report.to_dict()}


def progress_total(model: AnyModel, rows: int, settings: EvaluationConfig) -> int:
    """Rows that `measure_task` or, for a model without classes, `measure_shift` reports to ``progress`` in all."""
    attacked, classes = min(settings.rows or rows, rows), len(model.labels or ())
    attack, radii = AttackSettings(**settings.attack_settings()), set(settings.epsilons)
    total = 0
    if radii and classes > 1:
        total += rows_done(attacked, classes, settings.epsilons, attack, settings.diagnostics)
    if settings.shift and classes != 1:
        total += attacked * len(radii) * shift_attempts(attack, classes, labelled=classes > 1)
    return total


def measure_sts(model: TextModel, source: str | StsSources) -> dict[str, Any]:
    """Spearman on STS sets or own pairs; on STS-B also alignment and uniformity, as SimCSE's section 3 defines them.

    Alignment is over the pairs of STS-B scored above 4, uniformity over all its sentences.

    Returns:
        ``metrics``: each set's "all", their average, alignment and uniformity; ``sts``: every aggregate; ``notes``
        about the sets, if any.

    Raises:
        UserError: ``source`` has nothing to measure on.
    """
    sources = source if isinstance(source, StsSources) else find_sts(source)
    report = evaluate_sts(model.encode, sources.test)
    geometry = dict[str, float]()
    if "stsb" in sources.test:
        stsb = sources.test["stsb"]
        left, right = (model.encode([pair[side] for pair in stsb.pairs]) for side in (0, 1))  # (N, Z)
        alike = [i for i, score in enumerate(stsb.scores) if score > 4]
        geometry["uniformity"] = uniformity(np.unique(np.concatenate([left, right]), axis=0))
        if alike:
            geometry = {"alignment": alignment(left[alike], right[alike]), **geometry}
    measured = {"metrics": report.metrics | geometry, "sts": report.to_dict()}
    return {**measured, "notes": list(sources.notes)} if sources.notes else measured


def measure_probe(
    model: ImageModel, train: ImageData, test: ImageData, batch_size: int, routes: Sequence[BNBranch] = ROUTES
) -> dict[str, Any]:
    """Accuracy of a linear classifier on an encoder's features: Table 5 of ACL.

    Returns:
        ``metrics``: ``probe``, of the clean batch norm's features, and of a dual model also ``probe_adversarial``.
        A dual model's are those of ``routes``.
    """
    routes = routes if model.dual else ("clean",)
    reports = {
        bn_branch: linear_separability(model, train, test, bn_branch=bn_branch, batch_size=batch_size)
        for bn_branch in routes
    }
    names = {"clean": "probe", "adversarial": "probe_adversarial"}
    return {
        "metrics": {names[bn_branch]: report.accuracy for bn_branch, report in reports.items()},
        "probes": [report.to_dict() for report in reports.values()],
    }
