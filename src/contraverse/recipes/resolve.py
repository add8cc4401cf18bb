"""From a recipe, a file and single values to a whole, checked `RunConfig`, before any work starts."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contraverse.errors import UserError
from contraverse.recipes import notation
from contraverse.recipes.checks import check_method, check_task, check_train, explain, nearest
from contraverse.recipes.config import RunConfig
from contraverse.recipes.papers import RECIPES, Recipe


def configure(
    recipe: str | None = None,
    *,
    file: str | Path | None = None,
    task: str | None = None,
    source: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunConfig:
    """A recipe's defaults, then what ``file`` sets, then the arguments, all checked and filled in.

    Args:
        recipe: a name from `RECIPES`; None takes the one that ``file`` names.
        file: YAML with any part of a configuration; a run's ``config.yaml`` gives that run again.
        task: short for the setting ``task``.
        source: short for the setting ``data.source``.
        settings: by dotted name, ``{"method.epsilon": 0.3, "train.num_train_epochs": 1}``; text is converted.

    Raises:
        UserError: an unknown name (the nearest is suggested), a value outside its range, settings that do not go
            together, or a file that cannot be read.
    """
    given = {name: value for name, value in (("task", task), ("data.source", source)) if value is not None}
    config = _merged(recipe, file, {**given, **(settings or {})})
    method = check_method(config.method)
    check_task(config.task, method.name)
    return config.model_copy(update={"method": method, "train": check_train(config.train)})


def load(file: str | Path) -> RunConfig:
    """A run's ``config.yaml`` as it was written: to know what a run did, where it need not be possible to repeat.

    Raises:
        UserError: the file cannot be read, or is no configuration.
    """
    return _merged(None, file, {})


def _merged(recipe: str | None, file: str | Path | None, settings: Mapping[str, Any]) -> RunConfig:
    written = _read(Path(file)) if file is not None else {}
    base = _choose(recipe, written.pop("recipe", None), file)().model_dump()
    above: dict[str, Any] = {}
    for name, value in settings.items():
        above = _merge(above, _nest(name, value))
    if "recipe" in above:
        raise UserError("is not a setting: name the recipe itself", where="recipe")
    try:
        return RunConfig.model_validate(_merge(_merge(base, written), above))
    except ValidationError as error:
        raise explain(error, RunConfig) from error


def parse(assignments: Sequence[str]) -> dict[str, Any]:
    """``["method.epsilon=.3", "evaluation.epsilons=[.1, .3]"]`` as values by dotted name.

    Raises:
        UserError: an assignment without ``=``, or a value that is not YAML.
    """
    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise UserError("a setting is written key=value, for example method.epsilon=.3", where=repr(assignment))
        values[name.strip()] = notation.read(value, name.strip())
    return values


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot be read: {reason}", where=str(file)) from error
    written = notation.read(text, str(file))
    if not isinstance(written, dict):
        raise UserError("holds no configuration: sections with settings are expected", where=str(file))
    # A section whose lines are all commented out reads as null.
    return {name: section for name, section in written.items() if section is not None}


def _choose(asked: str | None, written: str | None, file: str | Path | None) -> Recipe:
    if asked and written and asked != written:
        raise UserError(f"is a configuration of the recipe {written}, not {asked}", where=str(file))
    name = asked or written
    if name is None:
        raise UserError("no recipe is named", hint=f"give one of {', '.join(RECIPES)}, or a file that names one")
    if name not in RECIPES:
        raise UserError(f'no recipe is called "{name}"', hint=nearest(str(name), RECIPES))
    return RECIPES[name]


def _nest(name: str, value: Any) -> dict[str, Any]:
    *sections, last = name.split(".")
    nested = {last: value}
    for section in reversed(sections):
        nested = {section: nested}
    return nested


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(deepcopy(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            # The settings of one method mean nothing to another.
            names = {section["name"] for section in (merged[key], value) if key == "method" and "name" in section}
            merged[key] = dict(value) if len(names) > 1 else _merge(merged[key], value)
        else:
            merged[key] = deepcopy(value)
    return merged
