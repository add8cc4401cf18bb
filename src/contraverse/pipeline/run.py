"""A run: configuration -> data, model, method -> training -> measured model -> folder."""

import os
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from transformers import set_seed

from contraverse.evaluation.keys import named_metrics
from contraverse.functional import from_first, sharing, wait_for_all
from contraverse.models import AnyModel, load_model
from contraverse.models.detector import save_detector
from contraverse.pipeline.detector import fit_detector
from contraverse.pipeline.dry_run import dry_run
from contraverse.pipeline.fingerprint import check_fingerprint, fingerprint
from contraverse.pipeline.folder import (
    CHECKPOINTS,
    EVALUATION,
    FINGERPRINT,
    LOG,
    MODEL,
    begin,
    check_place,
    check_run,
    complete,
    finish,
    same_commit,
)
from contraverse.pipeline.lock import one_writer
from contraverse.pipeline.result import Counting, Interrupted, RunResult, Say, read_json, silent, uncounted
from contraverse.pipeline.stages import run_stages
from contraverse.pipeline.steps import AnySplits, Steps, batch_of, check_hub, steps_of
from contraverse.pipeline.validation import Validation, plan_validation
from contraverse.recipes import RunConfig, split_stages
from contraverse.training import StopOnInterrupt, Trainer
from contraverse.training.ranks import batch_of_process, refuse_split_weights
from contraverse.writing import naming


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

    Figures are measured on the model read back from ``model/``, not on the one in memory: they are of the files
    that are used later. With stages, each is such a run in a folder of its own inside ``output``.

    Args:
        config: settings of the run, written as ``config.yaml`` into ``output``.
        output: the run folder; made here.
        resume: go on from the last checkpoint in ``output``.
        say: called with a line for each step.
        counting: shows the progress of measuring.
        test: measure on the test rows; False measures on the validation rows.

    Raises:
        UserError: data, model or settings cannot be used, or ``output`` holds another run.
        Interrupted: Ctrl-C or SIGTERM; the checkpoint is written.
    """
    output = Path(output)
    # Of several processes (torchrun) the first alone reads and writes the folder.
    first = os.environ.get("RANK", "0") == "0"
    say, counting = (say, counting) if first else (silent, uncounted)
    _check_processes(config)
    if not resume and (names := check_hub(config)):
        say(f"From the Hugging Face Hub: {'; '.join(names)}")
    config = same_commit(config, output) if resume else config
    if first:
        check_place(output, resume)  # before a lock is put into somebody else's folder
    with one_writer(output, say=say) if first else nullcontext():
        if first:
            check_place(output, resume)
            check_run(config, output, resume)
        run_one = partial(_run_one, say=say, counting=counting, test=test, first=first)
        if not config.stages:
            return run_one(config, output, resume=resume)
        if not resume:
            # Mistakes in the last stage show before the first one trains for hours.
            say("Checking the later stages")
            for stage in split_stages(config)[1:]:
                dry_run(stage)
        if first:
            begin(config, output)
        return run_stages(config, output, run_one, say=say, first=first)


def _run_one(
    config: RunConfig, output: Path, *, resume: bool, say: Say, counting: Counting, test: bool, first: bool
) -> RunResult:
    if resume and (output / EVALUATION).is_file():
        return complete(config, output, say) if first else RunResult(output, "", {}, {})
    steps = steps_of(config)
    say("Reading data")
    splits = steps.load_and_prepare(test=test)
    for note in steps.sts.notes if steps.sts is not None else ():
        say(f"  {note}")
    validation = plan_validation(steps, splits)
    set_seed(config.train.arguments.get("seed", 42))
    with sharing():
        steps.assign_pseudo_labels(splits)
    marks = fingerprint(steps, splits) if first else {}
    if first and resume and (output / FINGERPRINT).is_file():
        check_fingerprint(read_json(output / FINGERPRINT), marks, output)
    say(f"Loading {config.model.name}")
    model, notes = steps.init_model(splits)
    config = steps.pin()
    splits.notes.extend([*notes, *validation.notes])
    for note in splits.notes:
        say(f"  {note}")
    if first:
        begin(config, output, marks)

    trainer, training = _train(steps, output, resume, splits, validation, model, say)
    say("Saving the model")
    if first:
        model = steps.trained_model(model)
        with naming(output / MODEL):
            model.save(output / MODEL)
    device = trainer.args.device
    del trainer
    wait_for_all()
    trusted = getattr(config.model, "trust_remote_code", False)
    saved = load_model(output / MODEL, trust_remote_code=trusted).to(device)
    if steps.supervised and config.evaluation.positive is not None:
        with sharing():
            splits.notes.append(fit_detector(saved, splits.validation, config.evaluation, steps.method.bn_branch))
        say(f"  {splits.notes[-1]}")
        if first and saved.detector is not None:
            save_detector(saved.detector, output / MODEL)
    with sharing():
        measured = steps.measure(splits, saved, say=say, counting=counting, test=test)
    notes = [*splits.notes, *measured.get("notes", [])]
    if not first:
        return RunResult(output, measured["split"], named_metrics(measured), {}, notes)
    evaluation = {
        **measured,
        "labels": saved.labels,
        **steps.source_columns(splits),
        "training": training,
        "rows": _sizes(splits),
        "skipped_rows": splits.skipped,
        "notes": notes,
    }
    return finish(config, output, evaluation)


def _check_processes(config: RunConfig) -> None:
    """Refuse a configuration that several processes cannot run.

    Raises:
        UserError: weights are split over them, or a batch cannot be divided by them.
    """
    refuse_split_weights()
    for train in [stage.config.train for stage in split_stages(config)]:
        if train.global_batch_size is not None:
            batch_of_process(train.global_batch_size, train.arguments.get("gradient_accumulation_steps", 1))


def _train(
    steps: Steps[Any, Any],
    output: Path,
    resume: bool,
    splits: AnySplits,
    validation: Validation,
    model: AnyModel,
    say: Say,
) -> tuple[Trainer, dict[str, Any]]:
    config, method = steps.config, steps.method
    train, arguments = splits.need("train"), validation.arguments
    at_once, a_step = batch_of(config.train)
    if arguments.get("dataloader_drop_last") and len(train) < at_once:
        arguments["dataloader_drop_last"] = False
        splits.notes.append(f"{len(train)} rows make no whole batch: the only one is smaller")
    every, an_epoch = arguments.get("logging_steps"), len(train) // a_step
    if isinstance(every, int) and every > an_epoch > 0:
        arguments["logging_steps"] = an_epoch  # a short run has a log, too
    trainer = Trainer(
        model,
        method,
        train,
        views=steps.views(splits),
        noise=steps.noise,
        evaluators=validation.evaluators,
        output_dir=output / CHECKPOINTS,
        optimizer=_set_fields(config.train.optimizer),
        schedule=_set_fields(config.train.schedule),
        global_batch_size=config.train.global_batch_size,
        sync_batch_norm=config.train.sync_batch_norm,
        class_weights=config.train.class_weights,
        batches=config.train.batches,
        contrast_chunk=config.train.contrast_chunk,
        early_stopping_patience=validation.patience,
        log_file=output / LOG,
        **arguments,
    )
    notes = list(method.notes)
    if trainer.args.dataloader_drop_last and not arguments.get("dataloader_drop_last"):
        notes.append("the last batch of each epoch is left out: it has one row, and so no negatives")
    for note in notes:
        splits.notes.append(note)
        say("  " + note)
    # The first process decides: others might see files that it is just writing.
    checkpoint, torn = trainer.newest_checkpoint() if from_first(resume) else (None, [])
    for note in torn:
        say("  " + note)
    args = trainer.args
    say(f"Training with {config.method.name} on {len(train):,} rows, {a_step} a step, rate {args.learning_rate:g}")
    if args.world_size > 1:
        say(f"  {args.world_size} processes, with {args.train_batch_size} rows at once each")
    started = time.perf_counter()
    with StopOnInterrupt() as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    state = trainer.state
    if stop.interrupted:
        raise Interrupted(output / CHECKPOINTS / f"checkpoint-{state.global_step}", stop.signal)
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
        "forward_units": (method.cost if steps.noise is None else method.cost_with_noise or method.cost)
        + (" + F a backward pass" if config.train.contrast_chunk is not None else ""),
        **steps.training_figures(splits),
    }
    return trainer, training


def _set_fields(section: BaseModel | None) -> dict[str, Any] | None:
    """Explicitly set fields; the builder supplies the other defaults."""
    return section.model_dump(exclude_none=True) if section is not None else None


def _sizes(splits: AnySplits) -> dict[str, int]:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: len(rows) for name, rows in parts.items() if rows is not None}
