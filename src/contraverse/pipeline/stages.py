"""Several runs, each from the model of another, in one folder."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch.distributed as dist

from contraverse.data import any_task
from contraverse.pipeline.report import write_reports
from contraverse.pipeline.result import RunResult, Say, read_json, write_json
from contraverse.recipes import RunConfig, Stage, split_stages


class RunOne(Protocol):
    """Runs one stage in a folder of its own."""

    def __call__(self, config: RunConfig, output: Path, *, resume: bool) -> RunResult:
        """As `contraverse.pipeline.run`."""
        ...


def run_stages(config: RunConfig, output: Path, run_one: RunOne, *, say: Say, first: bool) -> RunResult:
    """Run the stages of ``config`` that are not finished, in order.

    Each is an ordinary run in ``output/1-NAME``, ``output/2-NAME`` and so on. In the end ``output`` itself is a
    finished run as well, with the model, the log and the figures of the last stage; the files are shared with it where
    the file system allows.

    Args:
        config: with stages; what a stage takes from an earlier one is put in its place here.
        output: exists, and holds ``config.yaml``.
        run_one: runs a stage.
        say: told each stage in a line.
        first: whether this process writes (the first of several does).
    """
    stages = split_stages(config)
    result = None
    for number, stage in enumerate(stages, start=1):
        folder = output / stage.folder
        if (folder / "evaluation.json").is_file():
            say(f"[{stage.folder}] is finished")
            continue
        say(f"[{stage.folder}] {number} of {len(stages)}")
        placed = _placed(stage, output)
        started = (folder / "config.yaml").is_file()
        if started and first:
            # The settings are known to be the same; the place of the whole may have got another name.
            (folder / "config.yaml").write_text(placed.to_yaml(), encoding="utf-8")
        result = run_one(placed, folder, resume=started)
        if number < len(stages):
            _wait_for_all()
    last = output / stages[-1].folder
    if not first:
        assert result is not None
        return replace(result, folder=output)
    return _finish(config, output, last, [stage.folder for stage in stages])


def _placed(stage: Stage, output: Path) -> RunConfig:
    """The stage's configuration with the folders of earlier stages in it."""
    model, data = stage.config.model, stage.config.data
    if stage.init_from is not None:
        model = model.model_copy(update={"name": str(output / stage.init_from / "model")})
    if stage.teacher is not None:
        data = data.model_copy(update={"pseudo_labels": str(output / stage.teacher)})
    return stage.config.model_copy(update={"model": model, "data": data})


def _wait_for_all() -> None:
    """The next stage begins with files that the first process writes."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def _finish(config: RunConfig, output: Path, last: Path, folders: list[str]) -> RunResult:
    found = {folder: read_json(output / folder / "evaluation.json") for folder in folders}
    evaluation = dict(found[last.name])
    seconds = {folder: one["training"]["seconds"] for folder, one in found.items()}
    costs = {folder: one["training"]["forward_units"] for folder, one in found.items()}
    evaluation["training"] = {**evaluation["training"], "seconds": round(sum(seconds.values()), 2)}
    evaluation["stages"] = {folder: one["training"] for folder, one in found.items()}
    known = set(evaluation["notes"])
    evaluation["notes"] = [
        "trained in stages, whose seconds are added up: "
        + ", ".join(f"{folder} {value:.0f} (a step {costs[folder]})" for folder, value in seconds.items()),
        *(f"{folder}: {note}" for folder, one in found.items() for note in one["notes"] if note not in known),
        *evaluation["notes"],
    ]
    for name in ("model", "metrics.jsonl", "environment.json"):
        _share(last / name, output / name)
    made_with = read_json(output / "environment.json")
    paths = write_reports(output, config, evaluation, any_task(config.task), made_with)
    write_json(output / "evaluation.json", evaluation)
    return RunResult(output, evaluation["split"], evaluation["metrics"], paths, evaluation["notes"])


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
