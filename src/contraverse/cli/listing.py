"""``contraverse list``: methods, recipes, tasks, attacks and kinds of noise."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from contraverse.attacks.table import ATTACKS
from contraverse.cli.console import doing, print_text, result

if TYPE_CHECKING:
    from contraverse.data import ImageTask, Task


def list_(
    what: Annotated[
        Literal["methods", "recipes", "tasks", "attacks", "noise"], typer.Argument(help="Kind of thing to list.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects, for programs.")] = False,
) -> None:
    """List methods, recipes, tasks, attacks or kinds of noise."""
    rows = _ROWS[what]()
    if as_json:
        print_text(json.dumps(rows, indent=2))
        return
    if columns := _ONE_LINE.get(what):
        _show_lines([{key: str(row[key]) for key in columns} for row in rows])
        return
    if what != "recipes":
        _show(rows)
        return
    _show([{key: value for key, value in row.items() if key not in ("experiments", "run")} for row in rows])
    _show_experiments(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, no_wrap=column not in _WRAPPED)
    for row in rows:
        table.add_row(*map(str, row.values()))
    result.print(table, soft_wrap=False)


def _show_lines(rows: list[dict[str, str]]) -> None:
    """A line for each row, as wide as the terminal: the last column is shortened where it does not fit."""
    *columns, last = rows[0]
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    room = max(20, result.width - sum(widths.values()) - 2 * len(widths))
    for row in [{column: column for column in rows[0]}, *rows]:
        text = row[last] if len(row[last]) <= room else row[last][: room - 1].rstrip() + "…"
        result.print("  ".join([*(row[column].ljust(widths[column]) for column in columns), text]), markup=False)


_ONE_LINE = {
    "methods": ("name", "requires", "cost", "summary"),
    "attacks": ("name", "norms", "measured_by", "summary"),
}
"""Columns of lists with a line for each row; ``--json`` has the others."""
_WRAPPED = ("summary", "paper", "equation", "experiment", "tasks", "recipes", "run", "why")


def _show_experiments(recipes: list[dict[str, Any]]) -> None:
    """The papers' experiments, and the settings in them that are no paper's, each once with its recipes."""
    experiments: dict[tuple[str, str, str], tuple[list[str], list[str]]] = {}
    ours: dict[tuple[str, str], list[str]] = {}
    for recipe in recipes:
        for experiment in recipe["experiments"]:
            key = experiment["source"], experiment["model"], experiment["run"]
            names, tasks = experiments.setdefault(key, ([], []))
            names.append(recipe["name"])
            tasks += experiment["tasks"]
            for own in experiment["ours"]:
                ours.setdefault((own["setting"], own["why"]), []).append(recipe["name"])
    result.print("With --paper, the paper's experiment:")
    _show(
        [
            {"experiment": source, "model": model, "recipes": _once(names), "tasks": _once(tasks), "run": run}
            for (source, model, run), (names, tasks) in experiments.items()
        ]
    )
    result.print("Settings in them that are ours, where the paper is silent or has another:")
    _show([{"setting": setting, "why": why, "recipes": _once(names)} for (setting, why), names in ours.items()])


def _once(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _methods() -> list[dict[str, Any]]:
    with doing("Loading PyTorch…"):
        from contraverse.methods import METHODS
    names = ("summary", "paper", "equation", "requires", "cost")
    # The cost of some depends on their settings: what is listed is that of the defaults.
    return [{"name": name} | {key: getattr(method(), key) for key in names} for name, method in METHODS.items()]


def _recipes() -> list[dict[str, Any]]:
    from contraverse.recipes import RECIPES

    return [
        {
            "name": recipe.name,
            "summary": recipe.summary,
            "paper": recipe.paper,
            "task": recipe.task,
            "run": recipe.run,
            "experiments": [
                {
                    "source": experiment.source,
                    "tasks": list(experiment.tasks),
                    "model": experiment.model,
                    "run": experiment.run,
                    "settings": experiment.all_settings,
                    "ours": [own._asdict() for own in experiment.ours],
                }
                for experiment in recipe.experiments
            ],
        }
        for recipe in RECIPES.values()
    ]


def _tasks() -> list[dict[str, Any]]:
    with doing("Loading PyTorch…"):
        from contraverse.data import IMAGE_TASKS, TASKS
    tasks: list[Task | ImageTask] = [*TASKS.values(), *IMAGE_TASKS.values()]
    return [
        {
            "name": task.name,
            "summary": task.summary,
            "kind": task.kind,
            "metric": task.metric,
        }
        for task in tasks
    ]


def _attacks() -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "norms": ", ".join(spec.norms),
            "measured_by": spec.measured_by or "",
            "summary": spec.summary,
            "paper": spec.paper,
        }
        for spec in ATTACKS.values()
    ]


def _noise() -> list[dict[str, Any]]:
    from contraverse.noise import KINDS

    return [
        {
            "name": kind.name,
            "summary": kind.summary,
            "shares": " ".join(f"{100 * share:g}" for share in kind.shares) + " %",
            "of": f"Latin {kind.places}" if kind.latin else kind.places,
        }
        for kind in KINDS.values()
    ]


_ROWS = {"methods": _methods, "recipes": _recipes, "tasks": _tasks, "attacks": _attacks, "noise": _noise}
