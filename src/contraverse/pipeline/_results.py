"""Parts of a Markdown page that the studies' files and their committed JSON lines generate.

``python -m contraverse.pipeline._results studies docs/results docs/results.md`` writes them.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contraverse.pipeline.study import Line, read_lines
from contraverse.recipes.study import Finished, load_study, ready, total_cells
from contraverse.recipes.study_file import StudyConfig
from contraverse.reporting.study import StudyTable, markdown, tabulate
from contraverse.reporting.study_answers import answers, next_lines, next_seeds

BEGIN, END = "<!-- {}: written by make results -->", "<!-- {} end -->"
ANSWERS, STUDIES = "answers", "studies"
"""Names of the two parts."""
ARCHIVE = "archive"
"""Folder of studies, and of lines, that were made before studies were a command."""

EARLIER = """## Earlier studies

Made by scripts before `contraverse study` was a command: settings were selected with one seed on 300 validation rows,
and which test rows were right was not kept, so that differences are paired over seeds alone. The scripts are gone;
their lines are kept in `docs/results/archive/`, each with its settings, seed, figures and commit.
"""


def study_tables(study: StudyConfig, lines: Sequence[Line]) -> list[StudyTable]:
    """The study's tables, one a task, from those of ``lines`` that answer its cells of today."""
    own: list[Mapping[str, Any]] = list(lines)
    if not study.archived:
        finished = Finished(lines)
        own = [line for cell in ready(study, finished) if (line := finished.line(cell)) is not None]
    labels = list(study.methods)
    return [tabulate(own, task, study.compared, labels, study.metrics, study.printed.get(task)) for task in study.tasks]


def next_section(study: StudyConfig, tables: Sequence[StudyTable]) -> str:
    """Seeds that the stopping rule asks for, as Markdown; empty without a rule, or before anything is compared."""
    if study.stopping is None or not any(table.comparisons for table in tables):
        return ""
    asked, rule = next_lines(next_seeds(study, tables)), study.stopping
    decided = f"an interval leaves 0 out or lies within {rule.margin:g} of it"
    head = f"Stopping rule: until {decided}, at most {rule.most} seeds."
    return f"{head} Next:\n\n" + "".join(f"- {line}\n" for line in asked) if asked else f"{head} All is decided.\n"


def section(study: StudyConfig, file: Path, results: Path) -> str:
    """A study as a section: question, text, number of finished cells, and the tables of tasks with any."""
    lines = read_lines(results)
    if study.archived:
        progress = f"Lines: [`{results.name}`](results/{ARCHIVE}/{results.name}), made before studies were a command."
    else:
        finished = Finished(lines)
        done = sum(finished.line(cell) is not None for cell in ready(study, finished))
        command = f"`contraverse study studies/{file.name} --results docs/results/{results.name}`"
        progress = f"{command}: {done} of {total_cells(study)} cells are finished."
    tables = study_tables(study, lines)
    parts = [
        f"### {study.name}\n",
        f"**{study.question}**\n",
        study.text.strip() + "\n" if study.text else "",
        progress + "\n",
        *(markdown(table, level=4) for table in tables if table.methods),
        next_section(study, tables),
    ]
    return "\n".join(filter(None, parts))


def page(text: str, studies: Path, results: Path) -> str:
    """``text`` with the parts between their marks made anew.

    Raises:
        ValueError: a mark is missing.
    """
    files = [(file, results / f"{file.stem}.jsonl") for file in sorted(studies.glob("*.yaml"))]
    archived = sorted((studies / ARCHIVE).glob("*.yaml"))
    files += [(file, results / ARCHIVE / f"{file.stem}.jsonl") for file in archived]
    plans = [(load_study(file), file, lines) for file, lines in files]
    made = [(plan, study_tables(plan, read_lines(lines))) for plan, _, lines in plans]
    text = _replaced(text, ANSWERS, answers(made))
    current = [section(*plan) for plan in plans if not plan[0].archived]
    earlier = [section(*plan) for plan in plans if plan[0].archived]
    return _replaced(text, STUDIES, "\n".join([*current, *([EARLIER, *earlier] if earlier else [])]))


def _replaced(text: str, name: str, part: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    head, begins, rest = text.partition(begin)
    _, ends, tail = rest.partition(end)
    if not begins or not ends:
        raise ValueError(f"the page needs {begin} and {end}")
    return f"{head}{begin}\n\n{part}\n{end}{tail}"


def main() -> None:
    """Write the parts into the page that the command line names, after the folders of studies and results."""
    studies, results, path = map(Path, sys.argv[1:])
    path.write_text(page(path.read_text(encoding="utf-8"), studies, results), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
