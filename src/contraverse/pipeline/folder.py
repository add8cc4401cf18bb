"""The folder of a run: where one may begin, the marks that it leaves, and completing a finished one."""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from contraverse import __version__
from contraverse.data import any_task
from contraverse.errors import UserError
from contraverse.evaluation.keys import named_metrics
from contraverse.models import is_image_model
from contraverse.pipeline.fingerprint import environment
from contraverse.pipeline.lock import LOCK, one_writer
from contraverse.pipeline.report import paths_of, write_reports
from contraverse.pipeline.result import RunResult, Say, read_json
from contraverse.recipes import RunConfig, load
from contraverse.training import remove_all
from contraverse.writing import PARTIAL, write_json, write_text

CONFIG, ENVIRONMENT, FINGERPRINT, EVALUATION = "config.yaml", "environment.json", "fingerprint.json", "evaluation.json"
LOG, REPORT, MODEL, CHECKPOINTS, TENSORBOARD = "metrics.jsonl", "report.html", "model", "checkpoints", "tensorboard"
_FILES = (CONFIG, ENVIRONMENT, FINGERPRINT, EVALUATION, LOG, REPORT, "error.txt")


def check_place(output: Path, resume: bool, *, mark: str = CONFIG, kind: str = "run") -> None:
    """Refuse a folder that is not one of ours, before anything is written to it.

    Args:
        output: where a run or a search is to be.
        resume: True continues the run in the folder.
        mark: the file that says that one was started.
        kind: for messages.

    Raises:
        UserError: ``output`` is a file, holds something else, or there is nothing to resume.
    """
    where = str(output)
    try:
        where.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError("this name is not UTF-8", where=repr(where), hint="choose another --output") from error
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise UserError(
                f"this is a file, and a {kind} needs a folder", where=str(path), hint="choose another --output"
            )
    if resume and not output.is_dir():
        raise UserError("nothing to resume here", where=where, hint=f"leave --resume out to start a {kind}")
    if output.is_dir() and not (output / mark).is_file() and not _is_fresh(output, mark):
        raise UserError(f"the folder is not empty, and no {kind}", where=where, hint="choose another --output")


def _is_fresh(output: Path, mark: str) -> bool:
    """True where ``output`` is empty, or holds no more than a process leaves that is killed before the first mark."""
    return {path.name for path in output.iterdir()} <= {LOCK, mark + PARTIAL}


@contextmanager
def new_folder(output: Path, say: Say) -> Iterator[None]:
    """Hold the lock of ``output``, a folder that is new or empty: no existing file is overwritten.

    Raises:
        UserError: ``output`` holds something, or is a file.
    """
    check_place(output, False, mark="", kind="quickstart")
    with one_writer(output, say=say):
        check_place(output, False, mark="", kind="quickstart")
        yield


def check_run(config: RunConfig, output: Path, resume: bool) -> None:
    """Refuse to begin over a run that is there, and to go on with one of other settings.

    Raises:
        UserError: with ``resume``, the settings are not the run's; without, a run is there.
    """
    if not (output / CONFIG).is_file():
        return
    where = str(output)
    if resume:
        before, now = load(output / CONFIG).model_dump(mode="json"), config.model_dump(mode="json")
        if now["model"].get("revision", "") is None:  # the run wrote down the one that it found on the Hub
            now["model"]["revision"] = before["model"].get("revision")
        changed = _changed(before, now)
        if not changed:
            return
        hint = f"resume with the run's own: contraverse train --output {shlex.quote(where)} --resume"
        what = "the settings are not those that this run was started with: " + "; ".join(changed[:5])
        raise UserError(what + (" ..." if len(changed) > 5 else ""), where=where, hint=hint)
    if (output / EVALUATION).is_file():
        hint = "choose another --output, or evaluate it: contraverse evaluate " + shlex.quote(where)
        raise UserError("a finished run is here", where=where, hint=hint)
    hint = "go on with --resume, choose another --output, or remove the folder"
    raise UserError("an unfinished run is here", where=where, hint=hint)


def same_commit(config: RunConfig, output: Path) -> RunConfig:
    """``config`` with the commit of the Hub model that the run in ``output`` began from, where it names no other."""
    # A model of images has no revision.
    if getattr(config.model, "revision", "") is not None or not (output / CONFIG).is_file():
        return config
    before = load(output / CONFIG).model
    revision = getattr(before, "revision", None)
    if before.name != config.model.name or revision is None:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": revision})})


def _changed(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = dict.fromkeys([*before, *now])
        return [
            line
            for key in names
            for line in _changed(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name} was {before} and is {now}"]


def begin(config: RunConfig, output: Path, marks: Mapping[str, Any] | None = None) -> None:
    """Write the marks of a run that are not there yet: settings first, then environment and fingerprint.

    Args:
        config: written as ``config.yaml``.
        output: the run's folder.
        marks: the fingerprint; None to write the settings alone.
    """
    if not (output / CONFIG).is_file():
        write_config(config, output)
    if not (output / ENVIRONMENT).is_file() and marks is not None:
        write_json(output / ENVIRONMENT, environment())
    if not (output / FINGERPRINT).is_file() and marks is not None:
        write_json(output / FINGERPRINT, marks)


def write_config(config: RunConfig, output: Path) -> None:
    """Write ``config.yaml``; its first line names the version that did."""
    write_text(output / CONFIG, f"# contraverse {__version__}\n{config.to_yaml()}")


def remove_models_aside(output: Path) -> None:
    """Remove the incomplete model that a killed process left."""
    for path in output.glob(f".{MODEL}.*"):
        shutil.rmtree(path, ignore_errors=True)


def finish(config: RunConfig, output: Path, evaluation: Mapping[str, Any]) -> RunResult:
    """Write report and model card, then the figures, which mark the run as finished; then remove checkpoints."""
    made_with = read_json(output / ENVIRONMENT) if (output / ENVIRONMENT).is_file() else environment()
    metrics = named_metrics(evaluation)
    paths = write_reports(output, config, dict(evaluation), any_task(config.task), made_with)
    if not (output / EVALUATION).is_file():
        write_json(output / EVALUATION, {**evaluation, "metrics": metrics})
    # A finished run is its model: the checkpoints, three times its size, were for going on.
    remove_all(output / CHECKPOINTS)
    remove_models_aside(output)
    return RunResult(output, evaluation["split"], metrics, paths, list(evaluation["notes"]))


def complete(config: RunConfig, output: Path, say: Say) -> RunResult:
    """Complete a finished run: write a missing report or model card, remove checkpoints that were left.

    Raises:
        UserError: its model is gone.
    """
    if not (output / MODEL).is_dir():
        hint = "repeat it from its config.yaml in another --output"
        raise UserError("this run is finished, and has no model any more", where=str(output), hint=hint)
    missing = [path for path in (output / REPORT, output / MODEL / "README.md") if not path.is_file()]
    made = "; made up: " + ", ".join(path.relative_to(output).as_posix() for path in missing) if missing else ""
    say(f"{output} is finished{made}")
    evaluation = read_json(output / EVALUATION)
    if missing:
        return finish(config, output, evaluation)
    remove_all(output / CHECKPOINTS)
    remove_models_aside(output)
    return RunResult(output, evaluation["split"], evaluation["metrics"], paths_of(output), evaluation["notes"])


def remove_run(output: Path) -> None:
    """Remove the files of a run and of its stages, and then the folder if it is empty."""
    if not output.is_dir():
        return
    for stage in sorted(output.glob("[0-9]*-*")):
        if (stage / CONFIG).is_file():
            remove_run(stage)
    for name in _FILES:
        for path in (output / name, output / (name + PARTIAL)):
            path.unlink(missing_ok=True)
    remove_all(output / CHECKPOINTS)
    for name in (MODEL, TENSORBOARD):
        shutil.rmtree(output / name, ignore_errors=True)
    remove_models_aside(output)
    with suppress(OSError):
        output.rmdir()


def model_dir(folder: str | Path) -> Path:
    """The model of a finished run, or ``folder`` itself where it is a model's.

    Raises:
        UserError: the run is not finished, or there is no model.
    """
    folder = Path(folder)
    where = str(folder)
    if not (folder / "config.yaml").is_file():
        if _is_model(folder):
            return folder
        hint = "give the folder of a finished run, or its model/ folder"
        raise UserError("no run and no model is here", where=where, hint=hint)
    if not (folder / "evaluation.json").is_file():
        raise UserError("this run is not finished", where=where, hint="finish it first: contraverse train --resume")
    if not _is_model(folder / "model"):
        raise UserError("this run has no model any more", where=where, hint="repeat it from its config.yaml")
    return folder / "model"


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or is_image_model(folder)
