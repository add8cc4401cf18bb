"""Split a configuration with stages into its ordinary runs."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from contraverse.errors import UserError, suggestion
from contraverse.recipes.checks import explain
from contraverse.recipes.recipe import find_recipe
from contraverse.recipes.schema import START, ModelConfig, RunConfig, StageConfig, merge

SECTIONS = ("model", "data", "evaluation", "train")


class Stage(NamedTuple):
    """One run of several.

    ``folder``: its folder's name inside the whole run's, ``1-itpt``. ``init_from``: the folder's name of the stage
    that it starts from, None for ``config.model.name``. ``teacher``: that of the stage whose model predicts missing
    labels, None where ``config.data.pseudo_labels`` is no stage.
    """

    folder: str
    config: RunConfig
    init_from: str | None
    teacher: str | None = None


def split_stages(config: RunConfig) -> list[Stage]:
    """The runs that ``config`` consists of, in order; one without stages is its own only one.

    A stage is the whole configuration with what the stage says laid over it, under the recipe of its method, so that
    its own ``config.yaml`` repeats it. ``model.keep_layers`` and ``model.reinit_layers`` are of the first start: a
    stage from another's model takes that as it is.

    Raises:
        UserError: ``init_from`` names no earlier stage, or settings of a stage are not possible.
    """
    folders: dict[str, str] = {}
    runs = []
    for number, (name, run, init_from) in enumerate(_runs(config), start=1):
        folder = f"{number}-{name}"
        before = _before(init_from, folders, name, last=number > len(config.stages))
        if before is not None:
            first = {"keep_layers": None, "reinit_layers": 0} if isinstance(run.model, ModelConfig) else {}
            start = run.model.model_copy(update=first)
            run = run.model_copy(update={"model": start})
        teacher = getattr(run.data, "pseudo_labels", None)
        runs.append(Stage(folder, run, before, folders.get(teacher) if teacher else None))
        folders[name] = folder
    return runs


def _runs(config: RunConfig) -> Iterator[tuple[str, RunConfig, str | None]]:
    for name, stage in config.stages.items():
        yield name, _alone(config, name, stage), stage.init_from
    whole: dict[str, Any] = {"stages": {}, "init_from": None}
    if config.stages:  # together they are the paper's experiment, and none is one by itself
        whole |= {"recipe": _recipe_of(config.method.name, config.recipe), "paper": False}
    alone = config.model_copy(update=whole)
    yield config.method.name, alone, config.init_from


def _alone(config: RunConfig, name: str, stage: StageConfig) -> RunConfig:
    below = config.model_dump(exclude={"stages", "init_from", "method"})
    written = {section: getattr(stage, section) for section in SECTIONS if getattr(stage, section)}
    recipe = _recipe_of(stage.method.name, config.recipe)
    written |= {"method": stage.method.model_dump(), "recipe": recipe, "paper": False}
    written |= {"task": stage.task} if stage.task is not None else {}
    try:
        return with_token(type(config).model_validate(merge(below, written)), config)
    except ValidationError as error:
        raise explain(error, type(config), f"stages.{name}") from error


def with_token(config: RunConfig, origin: RunConfig) -> RunConfig:
    """``config`` with the token of ``origin``, which no dump of a configuration holds."""
    token = getattr(origin.model, "token", None)
    if token is None or getattr(config.model, "token", None) is not None:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"token": token})})


def _recipe_of(method: str, otherwise: str) -> str:
    """The method's own recipe; ``otherwise`` where there is no such method, which is refused later."""
    try:
        return find_recipe(method).name
    except UserError:
        return otherwise


def _before(init_from: str | None, folders: Mapping[str, str], name: str, *, last: bool) -> str | None:
    if init_from is None:
        return list(folders.values())[-1] if folders else None
    if init_from == START:
        return None
    if init_from not in folders:
        where = "init_from" if last else f"stages.{name}.init_from"
        hint = suggestion(init_from, folders) if folders else "the first stage starts from model.name"
        raise UserError(f'there is no stage "{init_from}" before it', where=where, hint=hint)
    return folders[init_from]
