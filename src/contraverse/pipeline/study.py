"""A study: its cells trained one after the other, each an ordinary run of which the figures are kept."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contraverse.pipeline.board import Board
from contraverse.pipeline.fingerprint import environment
from contraverse.pipeline.folder import CONFIG, EVALUATION
from contraverse.pipeline.lock import exclusive
from contraverse.pipeline.result import Interrupted, Say, silent
from contraverse.pipeline.run import run
from contraverse.pipeline.study_stages import begin_with_stages, keep_stages
from contraverse.recipes import change
from contraverse.recipes.study import Cell, Finished, ready, total_cells
from contraverse.recipes.study_file import StudyConfig
from contraverse.reporting.names import duration
from contraverse.writing import append_json_line, read_json_lines

Line = dict[str, Any]
POLL = 5.0
"""Seconds between two looks for work, where all that is left is in the hands of others."""


@dataclass(frozen=True)
class Progress:
    """Number of cells done, failed, and in all."""

    done: int
    failed: int
    total: int


class Pace:
    """Time that a study still needs, by the cells that all workers have finished since this one began."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._done: int | None = None

    def left(self, progress: Progress) -> str:
        """``", about 41 min left"``; nothing before a cell is finished."""
        if self._done is None:
            self._done = progress.done
        finished = progress.done - self._done
        if finished == 0:
            return ""
        seconds = (time.monotonic() - self._begun) / finished * (progress.total - progress.done - progress.failed)
        return f", about {duration(seconds)} left"


def run_study(
    study: StudyConfig,
    output: Path,
    storage: str,
    *,
    results: Path | None = None,
    keep_models: bool = False,
    say: Say = silent,
    train: Callable[[Cell, Path], Line] | None = None,
) -> Progress:
    """Train cells until none is left: several workers may do so at the same time, on any machines.

    Args:
        study: the study; its cells are the same for all workers.
        output: folder of the cells in hand, ``cells/KEY``; a cell that was cut short there goes on.
        storage: database URL or journal file that the workers share, see `Board`.
        results: JSON lines of earlier sessions, whose cells count as done; each finished cell is added.
        keep_models: keep the folder of each run, with its weights, and not the figures alone.
        say: called with each cell in a line.
        train: from a cell and its folder to its line; `train_cell` unless a test has another.

    Raises:
        UserError: the storage cannot be opened.
        KeyboardInterrupt: Ctrl-C; the cell in hand goes on next time.
    """
    board = Board(storage, study.name)
    earlier = read_lines(results)
    begun = Pace(time.monotonic())

    while True:
        board.release()
        lines = board.lines()
        finished, failed = Finished([*earlier, *lines]), board.failures()
        cells = {cell.key: cell for cell in ready(study, finished)}
        if results is not None:
            append_lines(results, lines, cells.values())
        done = {key for key, cell in cells.items() if finished.line(cell) is not None}
        progress = Progress(len(done), len(failed.keys() & cells.keys()), total_cells(study))
        board.offer(key for key in cells if key not in done)

        def finish(key: str, cells: Mapping[str, Cell] = cells, progress: Progress = progress) -> Line:
            cell, begun_cell = cells[key], time.monotonic()
            say(f"{progress.done} of {progress.total} cells done{begun.left(progress)}; next: {cell.title}")
            try:
                line = (train or train_cell)(cell, output / "cells" / key)
            except Interrupted as stopped:  # no fault of the cell's: it is put up again, and the worker stops
                raise KeyboardInterrupt from stopped
            return line | {"study": study.name, "wall_seconds": round(time.monotonic() - begun_cell, 1)}

        key = board.work(finish)
        if key is None:
            if board.running() == 0 and board.waiting() == 0:
                return progress
            time.sleep(POLL)
        elif not keep_models and key not in board.failures():
            shutil.rmtree(output / "cells" / key, ignore_errors=True)


def train_cell(cell: Cell, folder: Path) -> Line:
    """Run ``cell`` in ``folder``, where it goes on if it was cut short there.

    Stages before the last, such as a pre-training, are kept beside ``folder``, in ``../../stages``: another cell with
    the same stage, by all its settings and its seed, starts from the model that is there.

    Returns:
        A line of the results: the cell, ``metrics``, ``right`` (for each metric of single rows, which rows were right,
        as `contraverse.evaluation.paired` compares them), ``seconds`` of training, and ``made_with``.
    """
    evaluation, kept = folder / EVALUATION, folder.parent.parent / "stages"
    if not evaluation.is_file():
        quiet = change(cell.config, {"train.disable_tqdm": True})  # bars of several workers would run into each other
        begin_with_stages(quiet, folder, kept)
        try:
            run(quiet, folder, resume=(folder / CONFIG).is_file(), test=cell.stage == "test")
        finally:
            keep_stages(quiet, folder, kept)
    report = json.loads(evaluation.read_text(encoding="utf-8"))
    return {
        "stage": cell.stage,
        "task": cell.task,
        "method": cell.method,
        "settings": cell.settings,
        "seed": cell.seed,
        "metrics": _stage_metrics(folder) | report["metrics"] | _shift(report.get("shift")),
        "right": report.get("right", {}),
        "split": report["split"],
        "steps": report["training"]["steps"],
        "seconds": report["training"]["seconds"],
        "config": json.loads(cell.config.model_dump_json()),
        "made_with": environment(),
    }


def read_lines(results: Path | None) -> list[Line]:
    """Finished cells of a file of JSON lines; none where there is no file. A last line cut short is left out.

    Raises:
        UserError: another line is no JSON.
    """
    return [] if results is None else read_json_lines(results)


def append_lines(results: Path, lines: Iterable[Line], cells: Iterable[Cell]) -> None:
    """Add those of ``lines`` that answer one of ``cells`` which the file has no line of.

    The file is locked meanwhile: workers share it, and each cell has one line in it, whoever finished it.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(results):
        present, new = Finished(read_lines(results)), Finished(list(lines))
        for cell in cells:
            if present.line(cell) is None and (line := new.line(cell)) is not None:
                append_json_line(results, line)


def _stage_metrics(folder: Path) -> dict[str, float]:
    """Accuracy of linear probes of the pre-trained encoder, of a run in stages."""
    metrics: dict[str, float] = {}
    for evaluation in sorted(folder.glob(f"*/{EVALUATION}")):
        own = json.loads(evaluation.read_text(encoding="utf-8"))["metrics"]
        metrics |= {name: value for name, value in own.items() if name.startswith("probe")}
    return metrics


def _shift(shift: Mapping[str, Any] | None) -> dict[str, float]:
    """Cosine and distance of representations moved by the attack, by radius: ``cosine@0.1``.

    ``relative@0.1`` is the distance in units of that between the means of two classes.
    """
    moved = shift["at"] if shift else []
    names = ("cosine", "euclidean", "relative")
    return {f"{name}@{at['epsilon']:g}": at[name] for at in moved for name in names if name in at}
