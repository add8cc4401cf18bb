"""What a saved model is measured by, the same for a run and for ``contraverse evaluate``."""

from collections.abc import Callable
from typing import Any

from contraverse.data import Task, TextData
from contraverse.evaluation import TaskEvaluator, evaluate_sts, robust_accuracy, whole_sentences
from contraverse.models import TextModel
from contraverse.recipes import EvaluationConfig


def measure_task(
    model: TextModel,
    rows: TextData,
    task: Task,
    settings: EvaluationConfig,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The task's metrics on all ``rows`` and, for a classifier, accuracy under PGD on ``settings.rows`` of them.

    Returns:
        ``metrics``: flat, name -> value; where PGD was run also ``robustness``, in full, and ``notes`` where it
        attacked only some rows.
    """
    metrics = TaskEvaluator(rows, task.metrics, settings.batch_size)(model)
    found: dict[str, Any] = {"metrics": metrics}
    if settings.epsilons and len(model.labels or ()) > 1:
        attacked = rows.sample(settings.rows, seed) if settings.rows else rows
        report = robust_accuracy(
            model,
            attacked,
            settings.epsilons,
            norm=settings.norm,
            steps=settings.steps,
            restarts=settings.restarts,
            batch_size=settings.batch_size,
            progress=progress,
        )
        found["robustness"] = report.to_dict()
        metrics |= {name: value for name, value in report.metrics.items() if name not in metrics}
        if len(attacked) < len(rows):
            found["notes"] = [
                f"PGD attacked {len(attacked)} of {len(rows)} rows (seed {seed}), whose clean accuracy is "
                f"{report.clean_accuracy:.1f}; the other figures are over all rows"
            ]
    return found


def measure_sts(model: TextModel, folder: str) -> dict[str, Any]:
    """Spearman on the seven STS sets: ``metrics`` has each set's "all" and their average; ``sts`` holds the rest."""
    report = evaluate_sts(whole_sentences(model), folder)
    metrics = {name: scores.all for name, scores in report.sets.items()} | {"average": report.average}
    return {"metrics": metrics, "sts": report.to_dict()}
