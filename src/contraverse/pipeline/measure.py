"""What a saved model is measured by, the same for a run and for ``contraverse evaluate``."""

from collections.abc import Callable
from typing import Any

import numpy as np

from contraverse.data import Task, TextData
from contraverse.evaluation import TaskEvaluator, alignment, evaluate_sts, load_sts, robust_accuracy, uniformity
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
    """Spearman on the seven STS sets, and alignment and uniformity on STS-B, as SimCSE's section 3 defines them.

    Alignment is over the pairs of STS-B scored above 4, uniformity over all its sentences.

    Returns:
        ``metrics``: each set's "all", their average, alignment and uniformity; ``sts``: every aggregate.
    """
    report = evaluate_sts(model.encode, folder)
    stsb = load_sts(folder, ["stsb"])["stsb"]
    left, right = (model.encode([pair[side] for pair in stsb.pairs]) for side in (0, 1))
    alike = [i for i, score in enumerate(stsb.scores) if score > 4]
    geometry = {
        "alignment": alignment(left[alike], right[alike]),
        "uniformity": uniformity(np.unique(np.concatenate([left, right]), axis=0)),
    }
    return {"metrics": report.metrics | geometry, "sts": report.to_dict()}
