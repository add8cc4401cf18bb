"""How a run is validated while it trains: settled before the model is loaded."""

from dataclasses import dataclass
from typing import Any

from contraverse.errors import UserError
from contraverse.evaluation import StsbDev, StsSources, TaskEvaluator
from contraverse.pipeline.measure import attacked_evaluator
from contraverse.pipeline.rows import AnySplits, clusters_of
from contraverse.recipes import RunConfig
from contraverse.recipes.checks import nearest
from contraverse.types import Evaluator, Method


@dataclass(frozen=True)
class Course:
    """Evaluators by name, `TrainingArguments` and patience of a run, and what its user should know of them."""

    evaluators: dict[str, Evaluator]
    arguments: dict[str, Any]
    patience: int | None
    notes: list[str]


def course_of(config: RunConfig, splits: AnySplits, sts: StsSources | None, method: Method) -> Course:
    """Settle by what, and whether, the best checkpoint of a run is chosen.

    Raises:
        UserError: ``train.metric_for_best_model`` is not measured.
    """
    arguments, notes, task = dict(config.train.arguments), list[str](), splits.task
    evaluators, names = _evaluators(config, splits, sts, method)
    off = str(arguments.get("eval_strategy", "no")) == "no"
    if not evaluators or off:
        why = "nothing is evaluated while training" if evaluators else "nothing to validate on"
        notes.append(f"{why}: the last weights are kept, not the best")
        arguments |= {"eval_strategy": "no", "load_best_model_at_end": False, "metric_for_best_model": None}
        return Course({}, arguments, None, notes)
    best = arguments.get("metric_for_best_model")
    if best is None:
        supervised = method.requires == "labels"
        arguments["metric_for_best_model"] = task.metric if supervised else "stsb_spearman"
        arguments["greater_is_better"] = task.greater_is_better if supervised else True
    elif best.removeprefix("eval_") not in names:
        hint = nearest(best, names)
        if best.removeprefix("eval_") == "robust_accuracy":
            hint += "; the attack of validation is set by evaluation.epsilons and evaluation.robust_validation"
        raise UserError(f'no figure of validation is called "{best}"', where="train.metric_for_best_model", hint=hint)
    return Course(evaluators, arguments, config.train.early_stopping_patience, notes)


def _evaluators(
    config: RunConfig, splits: AnySplits, sts: StsSources | None, method: Method
) -> tuple[dict[str, Evaluator], list[str]]:
    """The evaluators, and the names of the figures that they give."""
    settings, rows = config.evaluation, splits.validation
    if method.requires != "labels" or clusters_of(config) is not None:
        if sts is None or sts.dev is None:
            return {}, []
        return {"validation": StsbDev(sts.dev)}, ["stsb_spearman"]
    if rows is None:
        return {}, []
    evaluator = TaskEvaluator(rows, splits.task.metrics, settings.batch_size, bn_branch=method.bn_branch)
    evaluators: dict[str, Evaluator] = {"validation": evaluator}
    names = list(evaluator.metrics)
    if settings.robust_validation and settings.epsilons:
        attacked = rows.sample(settings.rows, config.data.seed) if settings.rows else rows
        evaluators["attacked"] = attacked_evaluator(attacked, settings, method.bn_branch)
        names.append("robust_accuracy")
    return evaluators, names
