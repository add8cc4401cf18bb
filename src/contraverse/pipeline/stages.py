"""Several runs, each from the model of another, in one folder."""

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from contraverse.functional import wait_for_all
from contraverse.pipeline.folder import CONFIG, ENVIRONMENT, EVALUATION, LOG, MODEL, complete, finish, write_config
from contraverse.pipeline.lock import one_writer
from contraverse.pipeline.result import RunResult, Say, read_json, silent
from contraverse.recipes import RunConfig, Stage, load, split_stages


class RunOne(Protocol):
    """Runs one stage in a folder of its own."""

    def __call__(self, config: RunConfig, output: Path, *, resume: bool) -> RunResult:
        """Run it, like `contraverse.pipeline.run`."""
        ...


def run_stages(config: RunConfig, output: Path, run_one: RunOne, *, say: Say, first: bool) -> RunResult:
    """Run the stages of ``config`` that are not finished, in order.

    Each is an ordinary run in ``output/1-NAME``, ``output/2-NAME`` and so on. In the end ``output`` itself is a
    finished run as well, with the model, the log and the figures of the last stage; the files are shared with it where
    the file system allows.

    Args:
        config: with stages; references to an earlier stage are replaced by its folder here.
        output: exists, and holds ``config.yaml``.
        run_one: runs a stage.
        say: called with a line for each stage.
        first: whether this process writes (the first of several does).
    """
    stages = split_stages(config)
    result = None
    for number, stage in enumerate(stages, start=1):
        folder = output / stage.folder
        placed = _placed(stage, output)
        if (folder / EVALUATION).is_file():
            say(f"[{stage.folder}] is finished")
            if first:
                with one_writer(folder):
                    complete(placed, folder, silent)
            continue
        say(f"[{stage.folder}] {number} of {len(stages)}")
        started = (folder / CONFIG).is_file()
        if started and first and load(folder / CONFIG) != placed:
            # The settings are known to be the same; the place of the whole may have got another name.
            write_config(placed, folder)
        with one_writer(folder, say=say) if first else nullcontext():
            result = run_one(placed, folder, resume=started)
        if number < len(stages):
            wait_for_all()  # the next stage begins with files that the first process writes
    last = output / stages[-1].folder
    if not first:
        return replace(result, folder=output) if result is not None else RunResult(output, "", {}, {})
    if (output / EVALUATION).is_file():
        return complete(config, output, say)
    return _finish(config, output, last, [stage.folder for stage in stages])


def _placed(stage: Stage, output: Path) -> RunConfig:
    """The stage's configuration with the folders of earlier stages in it."""
    model, data = stage.config.model, stage.config.data
    if stage.init_from is not None:
        model = model.model_copy(update={"name": str(output / stage.init_from / "model")})
    if stage.teacher is not None:
        data = data.model_copy(update={"pseudo_labels": str(output / stage.teacher)})
    return stage.config.model_copy(update={"model": model, "data": data})


def _finish(config: RunConfig, output: Path, last: Path, folders: list[str]) -> RunResult:
    evaluations = {folder: read_json(output / folder / EVALUATION) for folder in folders}
    evaluation = dict(evaluations[last.name])
    seconds = {folder: stage["training"]["seconds"] for folder, stage in evaluations.items()}
    costs = {folder: stage["training"]["forward_units"] for folder, stage in evaluations.items()}
    evaluation["training"] = {**evaluation["training"], "seconds": round(sum(seconds.values()), 2)}
    evaluation["stages"] = {folder: stage["training"] for folder, stage in evaluations.items()}
    known = set(evaluation["notes"])
    evaluation["notes"] = [
        "trained in stages, whose seconds are added up: "
        + ", ".join(f"{folder} {value:.0f} (a step {costs[folder]})" for folder, value in seconds.items()),
        *(f"{folder}: {note}" for folder, stage in evaluations.items() for note in stage["notes"] if note not in known),
        *evaluation["notes"],
    ]
    for name in (MODEL, LOG, ENVIRONMENT):
        _share(last / name, output / name)
    return finish(config, output, evaluation)


def _share(source: Path, target: Path) -> None:
    """``target`` as ``source``: large files are one file under two names, where that can be."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, copy_function=_link)
    else:
        shutil.copyfile(source, target)


def _link(source: str, target: str) -> None:
    # The model card is written for each folder.
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)
