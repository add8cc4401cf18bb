"""Resolve a recipe, a file and single values to a whole, checked `RunConfig`, before any work starts."""

import copy
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contraverse.errors import UserError, suggestion
from contraverse.recipes import notation
from contraverse.recipes.checks import check_method, check_task, check_train, explain
from contraverse.recipes.image_schema import ImageRunConfig
from contraverse.recipes.recipe import RECIPES, Recipe, find_recipe, is_image_task
from contraverse.recipes.schema import RunConfig, StageConfig, merge, nested
from contraverse.recipes.search_spaces import SearchConfig
from contraverse.recipes.stages import SECTIONS, split_stages, with_token

TRUST = "model.trust_remote_code"


def configure(
    recipe: str | None = None,
    *,
    file: str | Path | None = None,
    task: str | None = None,
    source: str | None = None,
    paper: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Lay ``file`` over a recipe's settings, and the arguments over both; check the result and fill it in.

    Args:
        recipe: name of a recipe or method; None takes the one that ``file`` names.
        file: YAML with any part of a configuration; a run's ``config.yaml`` gives that run again.
        task: short for the setting ``task``.
        source: short for the setting ``data.source``.
        paper: the recipe's defaults are those of the paper's experiment on the task (the setting ``paper``); where
            papers ran several models, that which ``model.name`` is, or one of its family.
        settings: by dotted name, ``{"method.epsilon": 0.3, "train.num_train_epochs": 1}``; text is converted.

    Raises:
        UserError: an unknown name (the nearest is suggested), a value outside its range, settings that do not go
            together, or a file that cannot be read.
    """
    short = {"task": task, "data.source": source, "paper": paper or None}
    named = {name: value for name, value in short.items() if value is not None}
    config = _checked(_merged(recipe, file, {**named, **(settings or {})}))
    refuse_trust(config, (settings or {}).get(TRUST) is True)
    return config


def refuse_trust(config: RunConfig, asked: bool) -> None:
    """Stop where a file, and not its reader, allows code that comes with a model.

    Raises:
        UserError: ``config`` allows it, in a stage too, and it was not ``asked`` for.
    """
    runs = [config, *(stage.config for stage in split_stages(config))] if config.stages else [config]
    if not asked and any(getattr(run.model, "trust_remote_code", False) for run in runs):
        hint = "if you trust it, give --trust-remote-code"
        raise UserError("a file does not decide that a model's own code is run", where=TRUST, hint=hint)


def change(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """``config`` with single settings by dotted name changed, checked as `configure` does.

    Raises:
        UserError: no such setting, or a value outside its range.
    """
    base, above = config.model_dump(), nested(settings)
    return _checked(with_token(_validated(merge(merge(base, shortened(base, above)), above)), config))


def _checked(config: RunConfig) -> RunConfig:
    method = check_method(config.method)
    check_task(config.task, method.name)
    config = config.model_copy(update={"method": method, "train": check_train(config.train)})
    if not config.stages:
        return config
    alone = [stage.config for stage in split_stages(config)]
    stages = {
        name: _checked_stage(f"stages.{name}", stage, run)
        for (name, stage), run in zip(config.stages.items(), alone[:-1], strict=True)
    }
    return config.model_copy(update={"stages": stages})


def _checked_stage(where: str, stage: StageConfig, alone: RunConfig) -> StageConfig:
    """``stage`` with its method's settings filled in, and what else it says converted to its type."""
    try:
        run = _checked(alone)
    except UserError as error:
        raise UserError(
            error.what, where=f"{where}.{error.where}" if error.where else where, hint=error.hint
        ) from error
    whole = run.model_dump()
    written = {section: {key: whole[section][key] for key in getattr(stage, section)} for section in SECTIONS}
    return stage.model_copy(update={"method": run.method, **written})


def load(file: str | Path, *, unknown: list[str] | None = None) -> RunConfig:
    """A run's ``config.yaml`` as it was written: to know what a run did, where it need not be possible to repeat.

    Args:
        file: what a run wrote.
        unknown: gets the names of settings that this version does not know, which then are left out; None: they are
            refused.

    Raises:
        UserError: the file cannot be read, or is no configuration.
    """
    return _merged(None, file, {}, unknown)


def made_with(file: str | Path) -> str | None:
    """The version of contraverse that wrote ``file``, a run's or a search's settings; None where it does not say."""
    with Path(file).open(encoding="utf-8") as lines:
        match = re.match(r"# contraverse (\S+)$", lines.readline().strip())
    return match[1] if match else None


def load_search(file: str | Path) -> SearchConfig:
    """A search's ``search.yaml`` as it was written.

    Raises:
        UserError: the file cannot be read, or is no search.
    """
    try:
        return SearchConfig.model_validate(_read(Path(file)))
    except ValidationError as error:
        raise explain(error, SearchConfig) from error


def _merged(
    recipe: str | None, file: str | Path | None, settings: Mapping[str, Any], unknown: list[str] | None = None
) -> RunConfig:
    written = _read(Path(file)) if file is not None else {}
    chosen, above = _choose(recipe, written.pop("recipe", None), file), nested(settings)
    asked = merge(written, above)
    task, model = asked.get("task"), asked["model"].get("name") if isinstance(asked.get("model"), dict) else None
    base = chosen(
        task if isinstance(task, str) else None,
        paper=asked.get("paper") is True,
        model=model if isinstance(model, str) else None,
    ).model_dump()
    if "recipe" in above:
        raise UserError("is not a setting: name the recipe itself", where="recipe")
    base = merge(base, chosen.following(merge(merge(base, written), above)))
    base = merge(base, shortened(base, asked))
    return _validated(merge(merge(base, written), above), unknown)


def shortened(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten the warm-up and the milestones of ``base`` in proportion, where ``settings`` make a training shorter.

    So a recipe of 1,000 epochs, ten of them warm-up, has one epoch of warm-up when it is run for 100. Epochs and steps
    are rounded, and milestones that meet become one.

    Args:
        base: the configuration, section by section.
        settings: to be laid over it; their own warm-up and milestones, laid over the result, win.

    Returns:
        The settings to be laid between the two; none where no training gets shorter.
    """
    changes: dict[str, Any] = {}
    if train := _shortened(_section(base, "train"), _section(settings, "train")):
        changes["train"] = train
    stages = _section(base, "stages")
    for name, stage in _section(settings, "stages").items():
        if isinstance(stage, Mapping) and (
            train := _shortened(_section(_section(stages, name), "train"), _section(stage, "train"))
        ):
            changes.setdefault("stages", {})[name] = {"train": train}
    return changes


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of ``values``; empty where it is missing or no section, which validation refuses."""
    section = values.get(name)
    return section if isinstance(section, Mapping) else {}


def _shortened(train: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    share = next((share for name in _LENGTHS if (share := _share(settings.get(name), train.get(name)))), 1.0)
    if share >= 1:
        return {}
    changes: dict[str, Any] = {}
    for name in ("warmup_steps", "eval_delay"):
        steps = train.get(name)
        if isinstance(steps, int | float) and steps >= 1:  # below 1 it is a share of the run already
            changes[name] = round(steps * share)
    schedule = _section(train, "schedule")
    if warmup := schedule.get("warmup_epochs"):
        changes["schedule"] = {"warmup_epochs": round(warmup * share)}
    if epochs := schedule.get("epochs"):
        # Counted from 1: of 25 epochs, 14 are whole before the 15th.
        later = {1 + round((epoch - 1) * share) for epoch in epochs}
        changes["schedule"] = {"epochs": sorted(later)}
    return changes


_LENGTHS = ("max_steps", "num_train_epochs")


def _share(length: Any, before: Any) -> float | None:
    """``length / before``; None where one of them is no length."""
    numbers = []
    for value in (length, before):
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            return None
    return numbers[0] / numbers[1] if min(numbers) > 0 and math.isfinite(numbers[1]) else None


def _validated(values: Mapping[str, Any], unknown: list[str] | None = None) -> RunConfig:
    stages = values["stages"] if isinstance(values["stages"], Mapping) else {}
    for name, stage in stages.items():
        if isinstance(stage, Mapping) and "method" not in stage:
            others = [other for other in stages if other != name]
            hint = f"a stage of your own needs a method; {suggestion(str(name), others)}"
            raise UserError("no such stage", where=f"stages.{name}", hint=hint)
    try:
        return config_class(values.get("task")).model_validate(values)
    except ValidationError as error:
        extra = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
        if unknown is None or not extra:
            raise explain(error, config_class(values.get("task"))) from error
        left = copy.deepcopy(dict(values))
        for path in extra:
            unknown.append(".".join(map(str, path)))
            _drop(left, path)
        return _validated(left, unknown)


def _drop(values: dict[str, Any], path: Sequence[int | str]) -> None:
    inside: Any = values
    for part in path[:-1]:
        inside = inside[part]
    del inside[path[-1]]


def config_class(task: Any) -> type[RunConfig]:
    """Class of the configuration of a run on this task."""
    return ImageRunConfig if isinstance(task, str) and is_image_task(task) else RunConfig


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
    written = notation.read_file(file)
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
    return find_recipe(str(name))
