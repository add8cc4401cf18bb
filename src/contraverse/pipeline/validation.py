"""Plan of a run's validation: evaluators, and the metric that chooses the best checkpoint."""

from dataclasses import dataclass
from typing import Any

from contraverse.errors import UserError, suggestion
from contraverse.evaluation import StsbDev, TaskEvaluator
from contraverse.evaluation.metrics import TABLE
from contraverse.pipeline.measure import attacked_evaluator
from contraverse.pipeline.steps import AnySplits, Steps
from contraverse.types import Evaluator


@dataclass(frozen=True)
class Validation:
    """Plan of a run's validation.

    ``evaluators``: by name. ``arguments``: the run's `TrainingArguments`, adjusted to what can be validated.
    ``patience``: evaluations without a better one before training stops. ``notes``: for the user.
    """

    evaluators: dict[str, Evaluator]
    arguments: dict[str, Any]
    patience: int | None
    notes: list[str]


def plan_validation(steps: Steps[Any, Any], splits: AnySplits) -> Validation:
    """Plan validation: whether the best checkpoint is chosen, and by which metric.

    Raises:
        UserError: ``train.metric_for_best_model`` is not measured.
    """
    config, task = steps.config, splits.task
    arguments, notes = dict(config.train.arguments), list[str]()
    evaluators, metrics = _evaluators(steps, splits)
    off = str(arguments.get("eval_strategy", "no")) == "no"
    if not evaluators or off:
        why = "nothing is evaluated while training" if evaluators else "nothing to validate on"
        notes.append(f"{why}: the last weights are kept, not the best")
        arguments |= {"eval_strategy": "no", "load_best_model_at_end": False, "metric_for_best_model": None}
        return Validation({}, arguments, None, notes)
    best = arguments.get("metric_for_best_model")
    if best is None:
        arguments["metric_for_best_model"] = task.metric if steps.supervised else "stsb_spearman"
        arguments["greater_is_better"] = TABLE[task.metric].greater_is_better if steps.supervised else True
    elif best.removeprefix("eval_") not in metrics:
        hint = suggestion(best, metrics)
        if best.removeprefix("eval_") == "robust_accuracy":
            hint += "; the attack of validation is set by evaluation.epsilons and evaluation.robust_validation"
        raise UserError(f'no metric of validation is called "{best}"', where="train.metric_for_best_model", hint=hint)
    return Validation(evaluators, arguments, config.train.early_stopping_patience, notes)


def _evaluators(steps: Steps[Any, Any], splits: AnySplits) -> tuple[dict[str, Evaluator], list[str]]:
    """Build the evaluators, and list the names of their metrics."""
    settings, rows, sts, bn_branch = steps.config.evaluation, splits.validation, steps.sts, steps.method.bn_branch
    if not steps.supervised:
        if sts is None or sts.dev is None:
            return {}, []
        return {"validation": StsbDev(sts.dev)}, ["stsb_spearman"]
    if rows is None:
        return {}, []
    evaluator = TaskEvaluator(rows, splits.task.metrics, settings.batch_size, bn_branch=bn_branch)
    evaluators: dict[str, Evaluator] = {"validation": evaluator}
    metrics = list(evaluator.metrics)
    if settings.robust_validation and settings.epsilons:
        attacked = rows.sample(settings.rows, steps.config.data.seed) if settings.rows else rows
        evaluators["attacked"] = attacked_evaluator(attacked, settings, bn_branch)
        metrics.append("robust_accuracy")
    return evaluators, metrics
