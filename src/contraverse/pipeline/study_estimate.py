"""Estimate of the hours that a study takes: from its finished lines, or from a few steps of each task."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.pipeline.dry_run import dry_run
from contraverse.pipeline.result import read_json
from contraverse.pipeline.run import run
from contraverse.recipes import RunConfig, change, split_stages
from contraverse.recipes.study import Cell, cell, choices
from contraverse.recipes.study_file import StudyConfig

PROBE_STEPS = 4
_SHORT = {
    "train.max_steps": PROBE_STEPS,
    "train.eval_strategy": "no",
    "train.save_strategy": "no",
    "train.load_best_model_at_end": False,
    "train.early_stopping_patience": None,
    "train.disable_tqdm": True,
    "evaluation.epsilons": [],
    "evaluation.shift": False,
}


@dataclass(frozen=True)
class Timing:
    """Speed on one task.

    ``unit``: seconds of a forward-unit F of one batch. ``steps``: of a training. ``evaluation``: seconds of a cell
    beside its training; None where they were not measured.
    """

    unit: float
    steps: float
    evaluation: float | None

    def seconds(self, cell: Cell) -> float:
        """Seconds of ``cell`` on one worker."""
        return self.steps * forward_units(cell.config) * self.unit + (self.evaluation or 0.0)


def forward_units(config: RunConfig) -> int:
    """Cost of a training step in F, forward passes of its batch; a backward pass counts as two."""
    return int(METHODS[config.method.name](**config.method.settings).cost.removesuffix("F"))


def measured_timing(lines: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> dict[str, Timing]:
    """Timing of each task that has finished cells: medians over them.

    Args:
        lines: finished lines of the study.
        cells: the cells that they answer, in the same order.
    """
    timings = {}
    for task in dict.fromkeys(c.task for c in cells):
        own = [(line, c) for line, c in zip(lines, cells, strict=True) if c.task == task and line.get("steps")]
        if own:
            evaluation = [line["wall_seconds"] - line["seconds"] for line, _ in own if "wall_seconds" in line]
            timings[task] = Timing(
                median(line["seconds"] / (line["steps"] * forward_units(c.config)) for line, c in own),
                median(line["steps"] for line, _ in own),
                median(evaluation) if evaluation else None,
            )
    return timings


def probe_timing(study: StudyConfig, task: str) -> Timing:
    """Timing of ``task`` by `PROBE_STEPS` steps of the cheapest method; the model and the rows are loaded for it.

    The evaluation is not tried; an upper bound follows from its rows and steps, the attack's gradients at 2F each.

    Raises:
        UserError: what the run itself would raise.
    """
    cells = [cell(study, "test", task, label, choices(study, label)[0], study.seeds[0]) for label in study.methods]
    config = min((cell.config for cell in cells if not cell.config.stages), key=forward_units)
    splits = dry_run(split_stages(config)[0]).splits
    if splits is None or splits.train is None:
        raise UserError("the rows are on the Hub, and a probe asks nothing of it", where=task, hint="give data.source")
    with tempfile.TemporaryDirectory() as folder:
        run(change(config, _SHORT), Path(folder) / "probe", test=False)
        training = read_json(Path(folder) / "probe" / "evaluation.json")["training"]
    unit = training["seconds"] / (training["steps"] * forward_units(config))
    batch = config.train.global_batch_size or config.train.arguments.get("per_device_train_batch_size", 8)
    steps = -(-len(splits.train) // batch) * config.train.arguments["num_train_epochs"]
    rows = len(splits.test) if splits.test is not None else 0
    return Timing(unit, steps, rows * _evaluation_units(config) * unit / batch)


def _evaluation_units(config: RunConfig) -> int:
    """Forward-units of a test row: once clean, and at each radius every attempt with each loss of the attack."""
    attack = config.evaluation
    attempts = attack.restarts * (2 if attack.attack == "apgd" else 1)
    return 1 + len(attack.epsilons) * attempts * (2 * attack.steps + 1)


def time_left(study: StudyConfig, cells: Sequence[Cell], done: Sequence[bool], timings: Mapping[str, Timing]) -> float:
    """Seconds of one worker for all that is not done, the test stage that still waits for its selection included.

    Args:
        cells: the cells that are known, see `contraverse.recipes.study.ready`.
        done: for each, true where it is finished.
        timings: of every task.
    """
    seconds = sum(timings[c.task].seconds(c) for c, is_done in zip(cells, done, strict=True) if not is_done)
    tested = {(c.task, c.method) for c in cells if c.stage == "test"}
    for task, label in product(study.tasks, study.methods):
        if (task, label) not in tested:
            first = cell(study, "test", task, label, choices(study, label)[0], study.seeds[0])
            seconds += len(study.seeds) * timings[task].seconds(first)
    return seconds
