"""A run: configuration -> data, model, method -> training -> measured model -> folder."""

import os
import shlex
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from contraverse.data import ImageData, ImageSplits, TextData
from contraverse.errors import UserError
from contraverse.evaluation import StsbDev, StsSources, TaskEvaluator
from contraverse.methods import METHODS
from contraverse.models import AnyModel, ImageModel, TextModel, load_model
from contraverse.pipeline.hub import check_hub, sts_of
from contraverse.pipeline.measure import (
    attacked_evaluator,
    measure_probe,
    measure_shift,
    measure_sts,
    measure_task,
    route_of,
    settled_in_all,
)
from contraverse.pipeline.plan import plan
from contraverse.pipeline.report import write_reports
from contraverse.pipeline.result import Counting, Interrupted, RunResult, Say, silent, uncounted, write_json
from contraverse.pipeline.rows import AnySplits, clusters_of, rows_for
from contraverse.pipeline.stages import run_stages
from contraverse.pipeline.start import start, teach, views_of
from contraverse.recipes import RunConfig, split_stages
from contraverse.reporting import environment
from contraverse.training import StopOnInterrupt, Trainer
from contraverse.types import Evaluator, Method


def run(
    config: RunConfig,
    output: str | Path,
    *,
    resume: bool = False,
    say: Say = silent,
    counting: Counting = uncounted,
    test: bool = True,
) -> RunResult:
    """Train, save, measure and report; everything lies in ``output`` afterwards.

    The figures are those of the model read back from ``model/``, not of the one in memory: what is reported is
    what is shipped. With stages, each is such a run in a folder of its own inside ``output``.

    Args:
        config: all that decides the run; ``config.yaml`` in ``output`` will be the same.
        output: the run folder; made here.
        resume: go on from the last checkpoint in ``output``.
        say: told each step in a line.
        counting: shows how far the measuring is.
        test: whether the test rows are looked at; without, the figures are of the validation rows.

    Raises:
        UserError: data, model or settings cannot be used, or ``output`` holds another run.
        Interrupted: Ctrl-C; the checkpoint is written.
    """
    output = Path(output)
    # Of several processes (torchrun) one looks at the folder and writes to it.
    first = os.environ.get("RANK", "0") == "0"
    say = say if first else silent
    run_one = partial(_run_one, say=say, counting=counting, test=test, first=first)
    if not resume and (names := check_hub(config)):
        say(f"From the Hugging Face Hub: {'; '.join(names)}")
    if not config.stages:
        return run_one(config, output, resume=resume)
    if first:
        _check_output(config, output, resume)
    if not resume:
        # What is wrong with the last stage is said before the first one trains for hours.
        say("Checking the later stages")
        for stage in split_stages(config)[1:]:
            plan(stage)
    if first:
        output.mkdir(parents=True, exist_ok=True)
        (output / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return run_stages(config, output, run_one, say=say, first=first)


def _run_one(
    config: RunConfig, output: Path, *, resume: bool, say: Say, counting: Counting, test: bool, first: bool
) -> RunResult:
    if first:
        _check_output(config, output, resume)
    method = METHODS[config.method.name](**config.method.settings)
    say("Reading data")
    splits = rows_for(config, method, test=test)
    task, sts = splits.task, sts_of(config)
    set_seed(config.train.arguments.get("seed", 42))
    say(f"Loading {config.model.name}")
    teach(config, splits, method)
    model, notes = start(config, splits, method)
    splits.notes.extend(notes)
    for note in splits.notes:
        say(f"  {note}")

    if first:
        output.mkdir(parents=True, exist_ok=True)
        (output / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        made_with = environment()
        write_json(output / "environment.json", made_with)

    trainer, training = _train(config, output, resume, splits, sts, model, method, say)
    if not first:
        return RunResult(output, "", {}, {})
    say("Saving the model")
    if clusters_of(config) is not None and method.trains == "all" and isinstance(model, ImageModel):
        model = model.branch(dual=model.dual)  # an encoder: telling clusters apart was the way, not the end
    model.save(output / "model")
    del trainer
    saved = load_model(output / "model")
    measured = _measure(config, splits, sts, saved, say, counting, test)
    evaluation = {
        **measured,
        "labels": saved.labels,
        "columns": 1 if isinstance(splits, ImageSplits) else len(splits.need("train").columns),
        "training": training,
        "rows": _sizes(splits),
        "skipped_rows": splits.skipped,
        "notes": [*splits.notes, *measured.get("notes", [])],
    }
    write_json(output / "evaluation.json", evaluation)
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


def _evaluators(config: RunConfig, splits: AnySplits, sts: StsSources | None, method: Method) -> dict[str, Evaluator]:
    settings, rows = config.evaluation, splits.validation
    if method.needs != "labels" or clusters_of(config) is not None:
        return {"validation": StsbDev(sts.dev)} if sts is not None and sts.dev is not None else {}
    if rows is None:
        return {}
    evaluator = TaskEvaluator(rows, splits.task.metrics, settings.batch_size, route=method.route)
    evaluators: dict[str, Evaluator] = {"validation": evaluator}
    if settings.robust_validation and settings.epsilons:
        attacked = rows.sample(settings.rows, config.data.seed) if settings.rows else rows
        evaluators["attacked"] = attacked_evaluator(attacked, settings, method.route)
    return evaluators


def _train(
    config: RunConfig,
    output: Path,
    resume: bool,
    splits: AnySplits,
    sts: StsSources | None,
    model: AnyModel,
    method: Method,
    say: Say,
) -> tuple[Trainer, dict[str, Any]]:
    task, train, arguments = splits.task, splits.need("train"), dict(config.train.arguments)
    evaluators = _evaluators(config, splits, sts, method)
    patience = config.train.early_stopping_patience
    if not evaluators:
        splits.notes.append("nothing to validate on: the last weights are kept, not the best")
        say("  " + splits.notes[-1])
        arguments |= {"eval_strategy": "no", "load_best_model_at_end": False}
        patience = None
    elif arguments.get("metric_for_best_model") is None:
        supervised = method.needs == "labels"
        arguments["metric_for_best_model"] = task.metric if supervised else "stsb_spearman"
        arguments["greater_is_better"] = task.greater_is_better if supervised else True
    if arguments.get("dataloader_drop_last") and len(train) < arguments.get("per_device_train_batch_size", 8):
        arguments["dataloader_drop_last"] = False
        splits.notes.append(f"{len(train)} rows make no whole batch: the only one is smaller")
    every, an_epoch = arguments.get("logging_steps"), len(train) // arguments.get("per_device_train_batch_size", 8)
    if isinstance(every, int) and every > an_epoch > 0:
        arguments["logging_steps"] = an_epoch  # a short run has a log, too
    trainer = Trainer(
        model,
        method,
        train,
        views=views_of(config, splits),
        evaluators=evaluators,
        output_dir=output / "checkpoints",
        optimizer=_said(config.train.optimizer),
        schedule=_said(config.train.schedule),
        early_stopping_patience=patience,
        log_file=output / "metrics.jsonl",
        **arguments,
    )
    for note in method.notes:
        splits.notes.append(note)
        say("  " + note)
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
    if arguments.get("load_best_model_at_end") and state.best_metric is None:
        reason = "nothing was validated after that" if method.complete else "training ended before that"
        splits.notes.append(f"best is what had every term of {method.name}'s loss; {reason}: the last weights are kept")
        say("  " + splits.notes[-1])
    elif not method.complete:
        splits.notes.append(f"training ended before every term of {method.name}'s loss had begun")
        say("  " + splits.notes[-1])
    training = {
        "seconds": round(time.perf_counter() - started, 2),
        "steps": state.global_step,
        "epochs": state.epoch,
        "best_step": state.best_global_step,
        "best_validation": state.best_metric,
        "forward_units": method.cost,
    }
    return trainer, training


def _said(section: BaseModel | None) -> dict[str, Any] | None:
    """What was set, for who knows the defaults of the rest."""
    return section.model_dump(exclude_none=True) if section is not None else None


def _measure(
    config: RunConfig,
    splits: AnySplits,
    sts: StsSources | None,
    model: AnyModel,
    say: Say,
    counting: Counting,
    test: bool,
) -> dict[str, Any]:
    settings = config.evaluation
    if isinstance(model, ImageModel) and (model.labels is None or clusters_of(config) is not None):
        assert isinstance(splits, ImageSplits)
        return _probed(config, splits, model, say)
    if isinstance(model, TextModel) and model.labels is None:
        return _measure_encoder(config, splits, sts, model, say, counting, test)
    assert model.labels is not None
    split: Literal["test", "validation", "train"] = (
        "test" if splits.test is not None else "validation" if splits.validation is not None else "train"
    )
    if settings.split == "validation" and splits.validation is not None:
        split = "validation"
    rows = splits.need(split)
    attacked = min(settings.rows or len(rows), len(rows)) if settings.epsilons and len(model.labels) > 1 else 0
    say(f"Measuring on {len(rows):,} {split} rows" + (f", {attacked:,} of them attacked" if attacked else ""))
    route, seed = route_of(config), config.data.seed
    with counting("Measuring", settled_in_all(model, len(rows), settings)) as progress:
        found = measure_task(model, rows, splits.task, settings, seed=seed, route=route, progress=progress)
    return {"split": split, **found}


def _measure_encoder(
    config: RunConfig,
    splits: AnySplits,
    sts: StsSources | None,
    model: TextModel,
    say: Say,
    counting: Counting,
    test: bool,
) -> dict[str, Any]:
    """A sentence encoder on the STS sets, and on request how far an attack moves sentences of its own data."""
    settings = config.evaluation
    found: dict[str, Any] = {"split": "none", "metrics": {}}
    if sts is not None and sts.test and test:
        say(f"Measuring on the STS sets {', '.join(sts.test)}")
        found = {"split": "test", **measure_sts(model, sts)}
    elif sts is not None and sts.dev is not None:
        found = {"split": "validation", "metrics": StsbDev(sts.dev)(model)}
    rows = splits.test or splits.validation or splits.train
    if settings.shift and settings.epsilons and isinstance(rows, TextData):
        sentences = TextData.from_rows([texts[0] for texts in rows.texts])
        say(f"Measuring how far an attack moves {min(settings.rows or len(rows), len(rows)):,} sentences")
        with counting("Measuring", settled_in_all(model, len(sentences), settings)) as progress:
            moved = measure_shift(model, sentences, settings, seed=config.data.seed, progress=progress)
        found["shift"] = moved["shift"]
    return found


def _probed(config: RunConfig, splits: ImageSplits, model: ImageModel, say: Say) -> dict[str, Any]:
    """The measure of an encoder of images, where their labels are known: training has not seen them."""
    split: Literal["test", "validation"] = "test" if splits.test is not None else "validation"
    rows: ImageData | None = getattr(splits, split)
    if splits.hidden is None or rows is None:
        return {"split": "none", "metrics": {}}
    train = replace(splits.need("train"), labels=splits.hidden, label_names=rows.label_names).labelled()
    say(f"Probing: a linear classifier on the features of {len(train):,} images, tested on {len(rows):,}")
    return {"split": split, **measure_probe(model, train, rows, config.evaluation.batch_size)}


def _sizes(splits: AnySplits) -> dict[str, int]:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: len(rows) for name, rows in parts.items() if rows is not None}
