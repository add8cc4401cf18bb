"""Cells of a study: methods x tasks x seeds, settings selected on validation rows. Imports without torch."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from contraverse.errors import UserError
from contraverse.recipes import notation
from contraverse.recipes.checks import explain
from contraverse.recipes.resolve import configure, refuse_trust
from contraverse.recipes.schema import RunConfig
from contraverse.recipes.study_file import StudyConfig, shipped_studies

Stage = Literal["select", "test"]


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    ``settings``: what was varied for the selection, by dotted name. ``config``: the whole run.
    """

    stage: Stage
    task: str
    method: str
    settings: dict[str, Any]
    seed: int
    config: RunConfig

    @cached_property
    def key(self) -> str:
        """Digest of the whole configuration and the stage: another setting or default makes another cell."""
        return hashlib.sha256(f"{self.stage}\n{self.config.to_yaml()}".encode()).hexdigest()[:16]

    @property
    def place(self) -> str:
        """Place in the table: stage, task, method, seed and varied settings, whatever else the configuration says."""
        return json.dumps([self.stage, self.task, self.method, self.seed, self.settings], sort_keys=True)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The configuration as a line of the results holds it."""
        fields: dict[str, Any] = json.loads(self.config.model_dump_json())
        return fields

    @property
    def title(self) -> str:
        """``"test trec rar seed 3"``, and the settings that were varied."""
        varied = "".join(f" {name}={value}" for name, value in self.settings.items())
        return f"{self.stage} {self.task} {self.method} seed {self.seed}{varied}"


def load_study(file: str | Path) -> StudyConfig:
    """The study that a YAML file describes, or a shipped one by its name.

    Raises:
        UserError: the file cannot be read, or is no study; every cell of its selection is checked.
    """
    path = Path(file)
    if not path.exists():
        path = shipped_studies().get(str(file), path)
    written = notation.read_file(path)
    if not isinstance(written, dict):
        raise UserError("holds no study", where=str(file), hint="see docs/studies.md")
    try:
        study = StudyConfig.model_validate(written)
    except ValidationError as error:
        raise explain(error, StudyConfig) from error
    for task, label in product(study.tasks, study.methods) if not study.archived else ():
        for settings in choices(study, label):
            cell(study, "test", task, label, settings, study.seeds[0])
    return study


def with_data(study: StudyConfig, folder: Path) -> StudyConfig:
    """``study`` on local rows: those of a task are ``folder/TASK``, or a file of that name, where there is one.

    Raises:
        UserError: there is none for a task that has no source of its own.
    """
    tasks = {}
    for name, settings in study.tasks.items():
        task = settings.get("task", name)
        places = [folder / task, *sorted(folder.glob(f"{task}.*"))]
        place = next((place for place in places if place.exists()), None)
        own = "data.source" in settings or "data.source" in study.settings
        if place is None and not own:
            raise UserError(f"no rows of the task {task}", where=f"--data {folder}", hint=f"expected {folder / task}")
        tasks[name] = settings if place is None else {**settings, "data.source": str(place)}
    return study.model_copy(update={"tasks": tasks})


def choices(study: StudyConfig, label: str) -> list[dict[str, Any]]:
    """Settings that a method is selected from: every combination of its own space and of what it shares with others.

    A shared setting that the method does not have is left out. Without a selection there is one choice: none.
    """
    if study.select is None:
        return [{}]
    entry = study.methods[label]
    combinations = _combinations(entry.recipe, json.dumps([study.select.space, entry.space, entry.settings]))
    return [dict(combination) for combination in combinations]


@cache
def _combinations(recipe: str, spaces: str) -> list[dict[str, Any]]:
    """`choices`, once for each method of a study; ``spaces``: the shared space, the method's, its fixed settings."""
    shared, own, fixed = json.loads(spaces)
    known = _configure(recipe, "{}").method.settings
    common = {
        name: values
        for name, values in shared.items()
        if not name.startswith("method.") or name.removeprefix("method.") in known
    }
    space = {name: values for name, values in (common | own).items() if name not in fixed}
    return [dict(zip(space, values, strict=True)) for values in product(*space.values())]


def cell(study: StudyConfig, stage: Stage, task: str, label: str, settings: Mapping[str, Any], seed: int) -> Cell:
    """One training: the recipe, with the settings of the study, the task, the method and the choice laid over it.

    Raises:
        UserError: they are not possible.
    """
    entry = study.methods[label]
    merged = {"task": task, **study.settings, **study.tasks[task], **entry.settings, **settings, "train.seed": seed}
    if entry.start is not None:
        merged |= _start(study, entry.start, merged)
    return _cell(stage, task, label, json.dumps(dict(settings)), seed, entry.recipe, json.dumps(merged))


ROWS = ("source", "text", "image", "label", "size", "seed", "rows", "train_rows", "test_rows")
"""Settings of ``data`` that say which rows there are: a start reads the same, whatever is done with their labels."""


def _start(study: StudyConfig, label: str, merged: Mapping[str, Any]) -> dict[str, Any]:
    """Setting ``stages`` of a cell that starts from a pre-training, with its recipe's settings and the cell's rows."""
    shared = {name: merged[name] for name in ("task", "paper", "train.seed", "model.name") if name in merged}
    shared |= {name: value for name, value in merged.items() if name.removeprefix("data.") in ROWS and "." in name}
    stages: dict[str, Any] = {}
    chain = [label]
    while (before := study.starts[chain[0]].start) is not None:
        if before in chain:
            raise UserError("a start begins from itself", where=f"starts.{before}")
        chain.insert(0, before)
    for place, name in enumerate(chain, start=1):
        start = study.starts[name]
        config = _configure(start.recipe, json.dumps(shared | study.start_settings | start.settings))
        if config.stages:
            raise UserError("a start has one stage", where=f"starts.{name}", hint=f"{start.recipe} has several")
        stage = config.model_dump(mode="json", include={"method", "model", "data", "evaluation", "train"})
        del stage["model"]["name"]  # the cell's
        stages["start" if place == len(chain) else f"start-{place}"] = stage
    return {"stages": stages}


@cache
def _cell(stage: Stage, task: str, label: str, settings: str, seed: int, recipe: str, merged: str) -> Cell:
    """`cell`, made once, with its digest; ``settings`` and ``merged`` as JSON."""
    try:
        config = _configure(recipe, merged)
    except UserError as error:
        raise UserError(error.what, where=f"{label} on {task}: {error.where or ''}", hint=error.hint) from error
    refuse_trust(config, asked=False)
    return Cell(stage, task, label, json.loads(settings), seed, config)


@cache
def _configure(recipe: str, settings: str) -> RunConfig:
    """`configure`, which takes a tenth of a second, once for each cell; ``settings`` as JSON."""
    return configure(recipe, settings=json.loads(settings))


class Finished:
    """Finished cells, found by what was trained.

    A line answers a cell of the same place whose configuration is the line's. A setting that did not exist when the
    line was written counts as having had today's default, so that a new option does not void a study.

    Args:
        lines: results, each with ``stage``, ``task``, ``method``, ``seed``, ``settings``, ``metrics`` and ``config``.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._lines: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            place = [line[name] for name in ("stage", "task", "method", "seed", "settings")]
            self._lines.setdefault(json.dumps(place, sort_keys=True), []).append(line)

    def line(self, cell: Cell) -> Mapping[str, Any] | None:
        """The newest line of ``cell``; None where it is not done."""
        candidates = self._lines.get(cell.place, [])
        if not candidates:
            return None
        config = cell.config
        defaults = _defaults(config.recipe, config.task)
        stages = {
            name: _defaults(stage.method.name, stage.task or config.task) for name, stage in config.stages.items()
        }
        defaults = {**defaults, "stages": stages}
        return next((line for line in reversed(candidates) if _agrees(line["config"], cell.fields, defaults)), None)


@cache
def _defaults(recipe: str, task: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(_configure(recipe, json.dumps({"task": task})).model_dump_json())
    return fields


def _agrees(old: Any, new: Any, plain: Any) -> bool:
    """True where all that ``old`` holds is in ``new``, and what it lacks is as in ``plain``."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return bool(old == new)
    defaults = plain if isinstance(plain, dict) else {}
    return old.keys() <= new.keys() and all(
        _agrees(old[name], value, defaults.get(name)) if name in old else value == defaults.get(name)
        for name, value in new.items()
    )


def ready(study: StudyConfig, finished: Finished) -> Iterator[Cell]:
    """Cells that can be trained now, those that are done included: the selection, then what it has decided."""
    for task, label in product(study.tasks, study.methods):
        yield from _selection(study, task, label)
    for seed, task, label in product(study.seeds, study.tasks, study.methods):
        settings = chosen(study, task, label, finished)
        if settings is not None:
            yield cell(study, "test", task, label, settings, seed)


def chosen(study: StudyConfig, task: str, label: str, finished: Finished) -> dict[str, Any] | None:
    """Settings with the largest mean of the criterion over the selection's seeds, the first of equals.

    None while a cell of the selection is missing. A failed cell, whose metrics are missing, cannot be chosen.

    Raises:
        UserError: no cell has the metrics of the criterion.
    """
    candidates = choices(study, label)
    if len(candidates) == 1 or study.select is None:
        return candidates[0]
    scores: dict[int, list[float]] = {}
    for place, candidate in _numbered_selection(study, task, label):
        line = finished.line(candidate)
        if line is None:
            return None
        criterion = [line["metrics"].get(name, float("-inf")) for name in study.select.criterion_of(task)]
        scores.setdefault(place, []).append(sum(criterion) / len(criterion))
    if all(value == float("-inf") for values in scores.values() for value in values):
        wanted = ", ".join(study.select.criterion_of(task))
        raise UserError(f"no cell has all of {wanted}", where=f"select.criterion: {label} on {task}")
    means = {place: sum(values) / len(values) for place, values in scores.items()}
    return candidates[max(means, key=lambda place: means[place])]


def _numbered_selection(study: StudyConfig, task: str, label: str) -> Iterator[tuple[int, Cell]]:
    assert study.select is not None
    for seed in study.select.seeds:
        for place, settings in enumerate(choices(study, label)):
            yield place, cell(study, "select", task, label, settings, seed)


def _selection(study: StudyConfig, task: str, label: str) -> Iterator[Cell]:
    if study.select is not None and len(choices(study, label)) > 1:
        for _, candidate in _numbered_selection(study, task, label):
            yield candidate


def total_cells(study: StudyConfig) -> int:
    """Number of cells of both stages."""
    tried = 0
    if study.select is not None:
        counts = (len(choices(study, label)) for label in study.methods)
        tried = sum(count * len(study.select.seeds) for count in counts if count > 1)
    return len(study.tasks) * (tried + len(study.seeds) * len(study.methods))
