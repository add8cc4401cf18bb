"""Part of a Markdown page that the studies' files and their committed JSON lines generate.

``python -m contraverse.pipeline._results studies docs/results docs/results.md`` writes it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from contraverse.pipeline.study import Line, read_lines
from contraverse.recipes.study import Finished, StudyConfig, load_study, ready, total_cells
from contraverse.reporting.study import StudyTable, markdown, tabulate

BEGIN, END = "<!-- studies: written by make results -->", "<!-- studies end -->"


def study_tables(study: StudyConfig, lines: Sequence[Line]) -> list[StudyTable]:
    """The study's tables, one a task, from those of ``lines`` that answer its cells of today."""
    finished = Finished(lines)
    own = [line for cell in ready(study, finished) if (line := finished.line(cell)) is not None]
    pairs = [(label, study.baseline) for label in study.methods if label != study.baseline] + study.pairs
    return [tabulate(own, task, pairs, list(study.methods), study.metrics) for task in study.tasks]


def section(file: Path, results: Path) -> str:
    """A study as a section: its question, its text, how many cells are finished, and the tables of tasks with any."""
    study, lines = load_study(file), read_lines(results)
    finished = Finished(lines)
    done = sum(finished.line(cell) is not None for cell in ready(study, finished))
    command = f"`contraverse study studies/{file.name} --results docs/results/{results.name}`"
    parts = [
        f"### {study.name}\n",
        f"**{study.question}**\n",
        study.text.strip() + "\n" if study.text else "",
        f"{command}: {done} of {total_cells(study)} cells are finished.\n",
    ]
    parts += [markdown(table, study.printed, level=4) for table in study_tables(study, lines) if table.methods]
    return "\n".join(filter(None, parts))


def page(text: str, studies: Path, results: Path) -> str:
    """``text`` with the part between its two marks made anew.

    Raises:
        ValueError: a mark is missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs {BEGIN} and {END}")
    files = sorted(studies.glob("*.yaml"))
    sections = [section(file, results / f"{file.stem}.jsonl") for file in files]
    return "\n".join([head + BEGIN, "", *sections, END]) + tail


def main() -> None:
    """Write the part into the page that the command line names, after the folders of studies and results."""
    studies, results, path = map(Path, sys.argv[1:])
    path.write_text(page(path.read_text(encoding="utf-8"), studies, results), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
