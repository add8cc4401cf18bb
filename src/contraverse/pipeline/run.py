"""A run: configuration -> data, model, method -> training -> measured model -> folder."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from contraverse.data import Splits, Task, get_task, load_splits
from contraverse.errors import UserError
from contraverse.evaluation import StsbDev, TaskEvaluator
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.pipeline.measure import measure_sts, measure_task
from contraverse.pipeline.report import write_reports
from contraverse.recipes import RunConfig
from contraverse.reporting import environment
from contraverse.training import StopOnInterrupt, Trainer
from contraverse.types import Evaluator, Method

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Say nothing."""


class Interrupted(Exception):
    """Training was stopped on request; ``checkpoint`` is where it goes on."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(f"stopped; the checkpoint is {checkpoint}")
        self.checkpoint = checkpoint


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    ``metrics``: name -> value of the saved model, on ``split``. ``paths``: what lies where in ``folder``.
    """

    folder: Path
    split: str
    metrics: dict[str, float]
    paths: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def run(config: RunConfig, output: str | Path, *, resume: bool = False, say: Say = silent) -> RunResult:
    """Train, save, measure and report; everything lies in ``output`` afterwards.

    The figures are those of the model read back from ``model/``, not of the one in memory: what is reported is
    what is shipped.

    Args:
        config: all that decides the run; ``config.yaml`` in ``output`` will be the same.
        output: the run folder; made here.
        resume: go on from the last checkpoint in ``output``.
        say: told each step in a line.

    Raises:
        UserError: data, model or settings cannot be used, or ``output`` holds another run.
        Interrupted: Ctrl-C; the checkpoint is written.
    """
    output = Path(output)
    # Of several processes (torchrun) one looks at the folder and writes to it.
    first = os.environ.get("RANK", "0") == "0"
    say = say if first else silent
    if first:
        _check_output(config, output, resume)
    task = get_task(config.task)
    method = METHODS[config.method.name](**config.method.settings)
    say("Reading data")
    splits = _load(config, task, method)
    for note in splits.notes:
        say(f"  {note}")
    set_seed(config.train.arguments.get("seed", 42))
    say(f"Loading {config.model.name}")
    model = TextModel.from_pretrained(
        config.model.name,
        labels=_labels(splits, method),
        **config.model.model_dump(exclude={"name"}),
    )

    if first:
        output.mkdir(parents=True, exist_ok=True)
        (output / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        made_with = environment()
        _write_json(output / "environment.json", made_with)

    trainer, training = _train(config, output, resume, task, splits, model, method, say)
    if not first:
        return RunResult(output, "", {}, {})
    say("Saving the model")
    model.save(output / "model")
    del trainer
    saved = TextModel.load(output / "model")
    say("Measuring it")
    measured = _measure(config, task, splits, saved)
    evaluation = {
        **measured,
        "labels": saved.labels,
        "columns": len(splits.need("train").columns),
        "training": training,
        "rows": _sizes(splits),
        "skipped_rows": splits.skipped,
        "notes": [*splits.notes, *measured.get("notes", [])],
    }
    _write_json(output / "evaluation.json", evaluation)
    paths = write_reports(output, config, evaluation, task, made_with)
    # A finished run is its model: the checkpoints, three times its size, were for going on.
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return RunResult(output, evaluation["split"], evaluation["metrics"], paths, evaluation["notes"])


def _check_output(config: RunConfig, output: Path, resume: bool) -> None:
    started, finished = (output / "config.yaml").is_file(), (output / "evaluation.json").is_file()
    where = str(output)
    if output.exists() and not output.is_dir():
        raise UserError("this is a file, and a run needs a folder", where=where, hint="choose another --output")
    if finished:
        hint = "choose another --output, or look at it: contraverse evaluate " + shlex.quote(where)
        raise UserError("a finished run is here", where=where, hint=hint)
    if started and not resume:
        hint = "go on with --resume, choose another --output, or remove the folder"
        raise UserError("an unfinished run is here", where=where, hint=hint)
    if resume and not started:
        raise UserError("nothing to resume here", where=where, hint="leave --resume out to start a run")
    if resume and (output / "config.yaml").read_text(encoding="utf-8") != config.to_yaml():
        hint = f"resume with the run's own: contraverse train --output {shlex.quote(where)} --resume"
        raise UserError("the settings are not those that this run was started with", where=where, hint=hint)
    if output.is_dir() and not started and any(output.iterdir()):
        raise UserError("the folder is not empty, and no run", where=where, hint="choose another --output")


def _load(config: RunConfig, task: Task, method: Method) -> Splits:
    splits = load_splits(task, **config.data.model_dump())
    train = splits.need("train")
    if method.needs == "labels" and train.labels is None:
        hint = "name the column with --label, or train without labels: simcse, uscal"
        raise UserError(f"{config.recipe} needs labels, and the training rows have none", hint=hint)
    if method.needs == "pairs" and len(train.columns) < 2:
        hint = "give a file with a column of anchors and one of positives, as the task nli"
        raise UserError(f"{config.recipe} needs pairs of sentences", hint=hint)
    return splits


def _labels(splits: Splits, method: Method) -> list[str] | None:
    if method.needs != "labels":
        return None
    names = splits.need("train").label_names
    return list(names) if names else ["score"]


def _evaluator(config: RunConfig, task: Task, splits: Splits, method: Method) -> Evaluator | None:
    if method.needs != "labels":
        return StsbDev(config.evaluation.sts) if config.evaluation.sts else None
    if splits.validation is None:
        return None
    return TaskEvaluator(splits.validation, task.metrics, config.evaluation.batch_size)


def _train(
    config: RunConfig,
    output: Path,
    resume: bool,
    task: Task,
    splits: Splits,
    model: TextModel,
    method: Method,
    say: Say,
) -> tuple[Trainer, dict[str, Any]]:
    train, arguments = splits.need("train"), dict(config.train.arguments)
    evaluator = _evaluator(config, task, splits, method)
    patience = config.train.early_stopping_patience
    if evaluator is None:
        splits.notes.append("nothing to validate on: the last weights are kept, not the best")
        say("  " + splits.notes[-1])
        arguments |= {"eval_strategy": "no", "load_best_model_at_end": False}
        patience = None
    elif arguments.get("metric_for_best_model") is None:
        supervised = method.needs == "labels"
        arguments["metric_for_best_model"] = task.metric if supervised else "stsb_spearman"
        arguments["greater_is_better"] = task.greater_is_better if supervised else True
    trainer = Trainer(
        model,
        method,
        train,
        evaluators={"validation": evaluator} if evaluator else {},
        output_dir=output / "checkpoints",
        early_stopping_patience=patience,
        log_file=output / "metrics.jsonl",
        **arguments,
    )
    checkpoints = output / "checkpoints"
    checkpoint = get_last_checkpoint(str(checkpoints)) if resume and checkpoints.is_dir() else None
    say(f"Training with {config.method.name} on {len(train):,} rows")
    started = time.perf_counter()
    with StopOnInterrupt() as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=checkpoint)
    state = trainer.state
    if stop.interrupted:
        raise Interrupted(output / "checkpoints" / f"checkpoint-{state.global_step}")
    training = {
        "seconds": round(time.perf_counter() - started, 2),
        "steps": state.global_step,
        "epochs": state.epoch,
        "best_step": state.best_global_step,
        "best_validation": state.best_metric,
        "forward_units": method.cost,
    }
    return trainer, training


def _measure(config: RunConfig, task: Task, splits: Splits, model: TextModel) -> dict[str, Any]:
    if model.labels is None:
        folder = config.evaluation.sts
        return {"split": "test", **measure_sts(model, folder)} if folder else {"split": "none", "metrics": {}}
    split: Literal["test", "validation", "train"] = (
        "test" if splits.test is not None else "validation" if splits.validation is not None else "train"
    )
    found = measure_task(model, splits.need(split), task, config.evaluation, seed=config.data.seed)
    return {"split": split, **found}


def _sizes(splits: Splits) -> dict[str, int]:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: len(rows) for name, rows in parts.items() if rows is not None}


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
