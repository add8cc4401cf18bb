"""``contraverse study``: a table with error bars and tests, from one file."""

import os
import shlex
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from contraverse.cli.console import doing, print_text, quiet, say
from contraverse.errors import UserError
from contraverse.recipes.study import Finished, load_study, ready, total_cells, with_data
from contraverse.recipes.study_file import StudyConfig, shipped_studies


class Format(StrEnum):
    """Forms of a report."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    html = "html"


def study(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE | NAME | report | list",
            help="A study's YAML file, or the name of a shipped one; or report, then the file; or list.",
        ),
    ],
    file: Annotated[Path | None, typer.Argument(help="The study's file, after report.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the cells in hand. (default: runs/study-NAME)")] = None,
    results: Annotated[
        Path | None, typer.Option(help="JSON lines of finished cells. (default: OUTPUT/results.jsonl)")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Shared by all workers: a database URL or a journal file. (default: SQLite in OUTPUT)"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the rows of each task in FOLDER/TASK, in the place of the Hub's.")
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker", help="Take cells of --storage, which others share, and print no table.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Workers on this machine, one thread each.")] = 1,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep weights, not the figures alone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and their cost; train nothing.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --dry-run: time a few steps of each task, to estimate the hours.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Form of the report.")] = Format.markdown,
) -> None:
    """Train every cell of a study, or report what is finished: means, paired differences, intervals, tests."""
    if what == "list":
        print_text(_shipped())
        return
    if what == "report" and file is None:
        raise UserError("a report is of a study's file", hint="contraverse study report FILE")
    path = Path(what) if file is None else file
    with doing("Loading PyTorch…"):
        plan = load_study(path)
    if data is not None:
        plan = with_data(plan, data)
    if plan.archived and what != "report":
        raise UserError("an archived study cannot be trained", where=str(path), hint="contraverse study report FILE")
    if worker and storage is None:
        raise UserError("--worker takes cells of --storage, which is not given")
    output = output or Path("runs") / f"study-{plan.name}"
    results = results or output / "results.jsonl"
    if what == "report":
        print_text(_report(plan, results, form))
    elif dry_run:
        print_text(_listing(plan, results, probe))
    else:
        command = [str(path), "--output", str(output), "--results", str(results)]
        command += ["--data", str(data)] if data is not None else []
        command += ["--keep-models"] if keep_models else []
        _work(plan, command, output, results, storage or f"sqlite:///{output / 'cells.db'}", jobs, keep_models)
        if not worker:
            print_text(_report(plan, results, Format.markdown))


def _work(
    plan: StudyConfig, command: list[str], output: Path, results: Path, storage: str, jobs: int, keep_models: bool
) -> None:
    """Train cells in this process and in ``jobs`` - 1 workers beside it; ``command``: file and options of all."""
    quiet()
    from contraverse import pipeline

    workers = [sys.executable, "-m", "contraverse", "study", *command, "--storage", storage, "--worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    others = [subprocess.Popen(workers, env=environment) for _ in range(jobs - 1)]
    try:
        progress = pipeline.run_study(plan, output, storage, results=results, keep_models=keep_models, say=say)
    except KeyboardInterrupt as stopped:
        again = shlex.join(["contraverse", "study", *command, "--storage", storage])
        say(f"Stopped. To go on:\n  {again}")
        raise typer.Exit(130) from stopped
    finally:
        for other in others:
            other.wait()
    say(f"{progress.done} of {progress.total} cells are done, {progress.failed} failed")


def _report(plan: StudyConfig, results: Path, form: Format) -> str:
    from contraverse.pipeline._results import next_section, study_tables
    from contraverse.pipeline.study import read_lines
    from contraverse.reporting import study as tables

    made = study_tables(plan, read_lines(results))
    if form is Format.csv:
        return tables.csv_lines(made)
    if form is Format.latex:
        return "\n".join(map(tables.latex, made))
    if form is Format.html:
        from contraverse.reporting.study_html import html

        return html(made, name=plan.name, question=plan.question, text=plan.text)
    parts = [f"## {plan.question}\n", plan.text, *(tables.markdown(table) for table in made)]
    return "\n".join([*parts, next_section(plan, made)])


def _listing(plan: StudyConfig, results: Path, probe: bool) -> str:
    """Cells with their cost, and an estimate of hours from finished lines or a probe of each task."""
    from contraverse.pipeline.study import read_lines
    from contraverse.pipeline.study_estimate import forward_units, measured_timing, probe_timing, time_left
    from contraverse.reporting.names import duration

    finished = Finished(read_lines(results))
    cells = list(ready(plan, finished))
    lines = [finished.line(cell) for cell in cells]
    answered = [(line, cell) for line, cell in zip(lines, cells, strict=True) if line is not None]
    timings = measured_timing([line for line, _ in answered], [cell for _, cell in answered])
    if probe:
        for task in plan.tasks:
            if task not in timings:
                say(f"Timing a few steps of {task}")
                timings[task] = probe_timing(plan, task)
    listed = []
    for cell, line in zip(cells, lines, strict=True):
        seconds = duration(timings[cell.task].seconds(cell)) if cell.task in timings else ""
        listed.append(f"{'done' if line else '    '} {forward_units(cell.config):>4}F {seconds:>14}  {cell.title}")
    listed.append(f"{len(cells)} of {total_cells(plan)} cells are known; the rest waits for the selection")
    if timings.keys() >= plan.tasks.keys():
        left = duration(time_left(plan, cells, [line is not None for line in lines], timings))
        source = "a few steps of each task" if probe and not answered else "finished cells"
        listed.append(f"About {left} on one worker for what is left, by {source}")
    else:
        listed.append("Hours are estimated from finished cells; --probe times a few steps of each task instead")
    return "\n".join(listed)


def _shipped() -> str:
    """Shipped studies, two lines each: name, scale, the paper's tables, cells; the question."""
    listed = []
    for name, path in shipped_studies().items():
        plan = load_study(path)
        listed += [
            f"{name:<16} {plan.scale or '':<6} {total_cells(plan):>4} cells  {plan.shows}",
            f"    {plan.question}",
        ]
    return "\n".join([*listed, "contraverse study NAME --dry-run lists the cells of one"])
