"""``contraverse list``: what there is to choose from."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from contraverse.cli.console import doing, print_text, result

if TYPE_CHECKING:
    from contraverse.data import ImageTask, Task


def list_(
    what: Annotated[Literal["methods", "recipes", "tasks", "attacks"], typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects, for programs.")] = False,
) -> None:
    """List methods, recipes, tasks or attacks."""
    rows = _ROWS[what]()
    if as_json:
        print_text(json.dumps(rows, indent=2))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, no_wrap=column not in ("summary", "paper", "equation"))
    for row in rows:
        table.add_row(*map(str, row.values()))
    result.print(table, soft_wrap=False)


def _methods() -> list[dict[str, Any]]:
    with doing("Loading PyTorch…"):
        from contraverse.methods import METHODS
    names = ("summary", "paper", "equation", "needs", "cost")
    # The cost of some depends on their settings: what is listed is that of the defaults.
    return [{"name": name} | {key: getattr(method(), key) for key in names} for name, method in METHODS.items()]


def _recipes() -> list[dict[str, Any]]:
    from contraverse.recipes import RECIPES

    return [
        {"name": recipe.name, "summary": recipe.summary, "paper": recipe.paper, "task": recipe.task}
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
    with doing("Loading PyTorch…"):
        from contraverse.attacks import ATTACKS
    return [attack._asdict() for attack in ATTACKS.values()]


_ROWS = {"methods": _methods, "recipes": _recipes, "tasks": _tasks, "attacks": _attacks}
