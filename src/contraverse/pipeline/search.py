"""Settings are tried, compared on validation rows, and the best written down as a configuration."""

import gc
import json
import math
import os
import shlex
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from contraverse import __version__
from contraverse.errors import UserError
from contraverse.evaluation import METRICS
from contraverse.evaluation.keys import MetricKey
from contraverse.pipeline.fingerprint import Changed
from contraverse.pipeline.folder import CHECKPOINTS, EVALUATION, MODEL, check_place, remove_models_aside, remove_run
from contraverse.pipeline.lock import LOCK, one_writer
from contraverse.pipeline.result import Interrupted, Say, read_json, silent
from contraverse.pipeline.run import run
from contraverse.pipeline.steps import steps_of
from contraverse.pipeline.suggest import suggest
from contraverse.recipes import Choices, Range, RunConfig, SearchConfig, change, load_search, parse_range
from contraverse.training import Diverged, Torn
from contraverse.writing import append_json_line, of_the_system, read_json_lines, write_text

PLAN, TRIALS, BEST = "search.yaml", "trials.jsonl", "best.yaml"
Doing = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    ``settings``: the varied settings, by dotted name. ``value``: the maximised metric, None where the trial
    failed, and then ``error`` says why. ``metrics``: all figures on validation rows.
    """

    trial: int
    settings: dict[str, Any]
    value: float | None
    metrics: dict[str, float]
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class SearchResult:
    """A search as far as it has come; ``best`` is None where every trial failed, and then there is no ``config``."""

    folder: Path
    metric: str
    trials: list[Trial]
    best: Trial | None
    config: Path


def search(
    plan: SearchConfig,
    output: str | Path,
    *,
    resume: bool = False,
    timeout: float | None = None,
    say: Say = silent,
    doing: Doing = nullcontext,
) -> SearchResult:
    """Run the trials of ``plan`` that are not done, and write the best one's configuration as ``best.yaml``.

    The settings tried are a function of the plan and of the trials before it, so that an interrupted search
    continues with the same trial, from its last checkpoint. The first trial is the plan's own configuration, where it
    lies in the space. The test rows are never used. ``output`` holds ``search.yaml``, a line for each
    trial in ``trials.jsonl``, and ``trials/NUMBER``, run folders without models (of a failed one, ``error.txt``).

    Args:
        plan: what to search.
        output: the search's folder; made here.
        resume: go on with the search in ``output``, which may have been planned with fewer trials.
        timeout: seconds after which no trial begins.
        say: called with a line for each trial.
        doing: a context around each trial, with a line about it.

    Raises:
        UserError: the space, the data or the settings cannot be used, ``output`` holds something else, or Optuna is
            not installed.
        Interrupted: Ctrl-C; the trial's checkpoint is written.
    """
    output, started = Path(output), time.monotonic()
    space = {name: parse_range(name, written) for name, written in plan.space.items()}
    metric = _check(plan, space)
    check_place(output, resume, mark=PLAN, kind="search")
    with one_writer(output, say=say):
        check_place(output, resume, mark=PLAN, kind="search")
        _check_plan(plan, output, resume)
        if not (output / PLAN).is_file() or load_search(output / PLAN) != plan:  # more trials
            write_text(output / PLAN, f"# contraverse {__version__}\n{plan.to_yaml()}")
        try:
            return _search(plan, space, metric, output, started, resume, timeout, say, doing)
        except _NothingWorked as nothing:
            if not resume:  # then all that is here was made by this call
                _remove(output)
            raise nothing.mistake from None


def _search(
    plan: SearchConfig,
    space: Mapping[str, Range | Choices],
    metric: str,
    output: Path,
    started: float,
    resume: bool,
    timeout: float | None,
    say: Say,
    doing: Doing,
) -> SearchResult:
    log = output / TRIALS
    trials = [Trial(**row) for row in read_json_lines(log)]
    _write_lines(log, trials)
    _write_best(plan, metric, best_of(trials), output)
    while len(trials) < plan.trials and (timeout is None or time.monotonic() - started < timeout):
        settings = suggest(space, plan.config.model_dump(), [(t.settings, t.value) for t in trials], plan.seed)
        number = len(trials)
        with doing(f"Trial {number + 1} of {plan.trials}: {shown(settings)}"):
            trial = _try(plan, metric, number, settings, output)
        trials.append(trial)
        append_json_line(log, asdict(trial))
        best = best_of(trials)
        _write_best(plan, metric, best, output)
        say(_line(trial, best, plan.trials, metric))
    return SearchResult(output, metric, trials, best_of(trials), output / BEST)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of those with the largest value."""
    return max((t for t in trials if t.value is not None), key=lambda t: t.value or 0.0, default=None)


def shown(settings: Mapping[str, Any]) -> str:
    """Settings in the form that ``--set`` takes."""
    return "  ".join(f"{name}={'null' if value is None else value}" for name, value in settings.items())


def _check(plan: SearchConfig, space: Mapping[str, Range | Choices]) -> str:
    """Check that every trial can be run, and return the metric that is maximised."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a search runs in one process", hint="start it without torchrun")
    if not space:
        raise UserError(
            "the search has no settings to vary", hint="give --space, for example train.learning_rate=1e-5:1e-4:log"
        )
    for name, values in space.items():
        for end in values.ends:
            change(plan.config, {name: end})
    config, steps = plan.config, steps_of(plan.config)
    if not steps.supervised:
        if plan.robust is not None:
            raise UserError("there is no accuracy to attack", where="--robust")
        if steps.sts is None or steps.sts.dev is None:
            hint = "set evaluation.sts to a folder of STS sets: the dev rows of STS-B decide (or hub)"
            raise UserError("there is no metric to compare trials by", hint=hint)
        return "stsb_spearman"
    splits = steps.load()
    task = splits.task
    if splits.validation is None:
        raise UserError("there are no validation rows to compare trials on")
    if plan.robust is not None and (task.kind != "classification" or not config.evaluation.epsilons):
        raise UserError("nothing is attacked", where="--robust", hint="set evaluation.epsilons, of a classifier")
    return task.metric if METRICS[task.metric].greater_is_better else "accuracy"


def _check_plan(plan: SearchConfig, output: Path, resume: bool) -> None:
    where, file = str(output), output / PLAN
    if not file.is_file():
        return
    if not resume:
        hint = "go on with --resume, choose another --output, or remove the folder"
        raise UserError("a search is here", where=where, hint=hint)
    if load_search(file).model_copy(update={"trials": plan.trials}) != plan:
        hint = f"resume with the search's own: contraverse search --output {shlex.quote(where)} --resume"
        raise UserError("the settings are not those that this search was started with", where=where, hint=hint)


class _NothingWorked(Exception):
    """The first trial was refused, most likely not for its own settings."""

    def __init__(self, mistake: UserError) -> None:
        self.mistake = mistake


def _remove(output: Path) -> None:
    """Remove the files of a search without trials."""
    remove_run(_folder(output, 0))
    with suppress(OSError):
        (output / "trials").rmdir()
    for name in (PLAN, TRIALS, BEST):
        (output / name).unlink(missing_ok=True)


def _folder(output: Path, number: int) -> Path:
    return output / "trials" / f"{number:03d}"


def _try(plan: SearchConfig, metric: str, number: int, settings: dict[str, Any], output: Path) -> Trial:
    folder, started = _folder(output, number), time.perf_counter()
    value, metrics, error = None, dict[str, float](), None
    try:
        metrics = _measured(_trial_config(plan, settings), folder)
        value = score(metrics, metric, plan.robust)
    except (Interrupted, Changed, OSError, MemoryError):  # no verdict on the settings
        raise
    except UserError as mistake:
        if number == 0 and not isinstance(mistake, Diverged):
            raise _NothingWorked(mistake) from mistake
        if isinstance(mistake.__cause__, OSError | MemoryError):
            raise
        error = str(mistake)
    except Exception as failure:
        if of_the_system(failure) is not None:
            raise
        error = f"{type(failure).__name__}: {failure}"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "error.txt", "".join(traceback.format_exception(failure)), errors="replace")
    _make_small(folder)
    gc.collect()
    first = error.splitlines()[0] if error else None
    return Trial(number, settings, value, metrics, round(time.perf_counter() - started, 2), first)


def _trial_config(plan: SearchConfig, settings: Mapping[str, Any]) -> RunConfig:
    quiet: dict[str, Any] = {"train.disable_tqdm": True, "train.report_to": "none"}
    quiet |= {"evaluation.shift": False, "evaluation.diagnostics": False}  # of the winner, when it is trained
    if plan.robust is None:
        quiet["evaluation.epsilons"] = []
    return change(plan.config, {**settings, **quiet})


def _measured(config: RunConfig, folder: Path) -> dict[str, float]:
    if not (folder / EVALUATION).is_file():
        _run(config, folder)
    for file in (folder / "model").glob("*.safetensors"):
        if not all(bool(weight.isfinite().all()) for weight in load_file(file).values()):
            raise FloatingPointError("training diverged, the weights are not finite")
    metrics: dict[str, float] = read_json(folder / EVALUATION)["metrics"]
    return metrics


def _run(config: RunConfig, folder: Path) -> None:
    if folder.is_dir():
        try:
            run(config, folder, resume=True, test=False)
            return
        except Torn:
            remove_run(folder)  # begun anew, it ends as if it had not been stopped
    run(config, folder, test=False)


def score(metrics: Mapping[str, float], metric: str, robust: float | None) -> float:
    """Value of a trial: the clean metric, or its mean with the figures under attack, of weight ``robust``.

    A correlation below zero counts as zero, clean and attacked: a model that learned something and breaks is not worse
    than a constant one. The figures under attack are averaged over all radii; where there are none of ``metric``
    itself, they are accuracies.

    Raises:
        ValueError: a figure is not finite.
    """
    used = [metric]
    value = clean = max(0.0, metrics[metric])
    if robust is not None:
        attacked = {name: key for name in metrics if (key := MetricKey.read(name)).epsilon is not None}
        own = [name for name, key in attacked.items() if key.metric == metric]
        used = own or [name for name, key in attacked.items() if key.metric == "accuracy"]
        value = (1 - robust) * clean + robust * sum(max(0.0, metrics[key]) for key in used) / len(used)
    if not all(math.isfinite(metrics[key]) for key in (metric, *used)):  # max(0, nan) is 0
        raise ValueError("what was measured is not finite")
    return round(value, 6)


def _make_small(folder: Path) -> None:
    """Remove models and checkpoints, most of a run; the best one's are made again by ``best.yaml``."""
    for name in (MODEL, CHECKPOINTS):
        for path in [*folder.glob(name), *folder.glob(f"*/{name}")]:
            shutil.rmtree(path)
    for place in (folder, *folder.glob("*/")):
        remove_models_aside(place)
    for path in [*folder.glob(LOCK), *folder.glob(f"*/{LOCK}")]:  # of a process that was killed
        path.unlink()


def _write_lines(log: Path, trials: Sequence[Trial]) -> None:
    """Write the trials again, without a last line that was cut short."""
    write_text(log, "".join(json.dumps(asdict(trial)) + "\n" for trial in trials))


def _write_best(plan: SearchConfig, metric: str, trial: Trial | None, output: Path) -> None:
    """Write the configuration of ``trial``, the best one so far, unless it is there."""
    if trial is None:
        return
    what = metric if plan.robust is None else f"{metric}, clean and attacked ({plan.robust:g})"
    head = f"# Trial {trial.trial + 1} of a search: {what} {trial.value:.2f} on validation rows\n"
    text = head + change(plan.config, trial.settings).to_yaml()
    path = output / BEST
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _line(trial: Trial, best: Trial | None, trials: int, metric: str) -> str:
    number = f"trial {trial.trial + 1:>{len(str(trials))}}/{trials}"
    if trial.value is None:
        return f"{number}  failed: {trial.error}  {shown(trial.settings)}"
    mark = "  best so far" if best is trial else ""
    return f"{number}  {metric} {trial.value:.2f}  {shown(trial.settings)}  {trial.seconds:.0f} s{mark}"
