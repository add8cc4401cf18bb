"""Recipes by name: settings on texts and on images, and the papers' experiments with them. Imports without torch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

from contraverse.errors import UserError, unknown
from contraverse.recipes.image_schema import ImageRunConfig
from contraverse.recipes.schema import RunConfig, merge, nested

NOT_RUN = "paper scale: not run"

Build = TypeVar("Build", bound=Callable[[], RunConfig])
BuildFor = TypeVar("BuildFor", bound=Callable[[str], RunConfig])
Follow = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From all settings as they would be, section by section, to those that change where nobody set them."""
Modality = Literal["text", "images"]
Requires = Literal["labels", "inputs", "pairs"]


class Ours(NamedTuple):
    """A setting (by dotted name, or ``data`` for all rows) that is not the paper's, and the reason."""

    setting: str
    why: str


@dataclass(frozen=True)
class Experiment:
    """A paper's experiment: ``contraverse train RECIPE --task TASK --paper``.

    ``source``: paper, tables and section. ``model``: the encoder, on the Hugging Face Hub. ``settings``: by dotted
    name, over those of the recipe. ``own``: the settings of the method that go with the data set; they hold without
    ``--paper`` as well. ``ours``: settings that the paper leaves open or has otherwise. ``run``: at which scale the
    project ran it.
    """

    source: str
    tasks: tuple[str, ...]
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    ours: tuple[Ours, ...] = ()
    run: str = NOT_RUN

    @property
    def all_settings(self) -> dict[str, Any]:
        """Model, settings and the method's own, by dotted name."""
        return {"model.name": self.model, **self.own, **self.settings}


def choose(experiments: Sequence[Experiment], task: str, model: str | None = None) -> Experiment | None:
    """Choose the experiment on ``task``: that with ``model``, else one with a model of its family, else the first."""
    on_task = [experiment for experiment in experiments if task in experiment.tasks]
    if model is not None:
        exact = [experiment for experiment in on_task if _short_name(experiment.model) == _short_name(model)]
        family = [experiment for experiment in on_task if _family(experiment.model) == _family(model)]
        on_task = exact or family or on_task
    return on_task[0] if on_task else None


def _short_name(model: str) -> str:
    return Path(model).name.lower()


def _family(model: str) -> str:
    """``roberta`` of ``FacebookAI/roberta-base``, or the model type in a folder's configuration."""
    try:
        written = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        return str(written["model_type"]).lower()
    except (OSError, ValueError, KeyError, TypeError):
        return _short_name(model).split("-")[0]


@dataclass(frozen=True)
class Recipe:
    """Settings by name: calling it gives its `RunConfig`, with the method's own defaults not yet filled in.

    ``task``: the one it runs on by default. ``text`` and ``images``: its settings on either. Where one is None, a
    recipe that is named after a method has the baselines' settings for what the method requires, if the method trains
    on that modality. ``experiments``: of papers, with this recipe. ``follow``: on images, settings that depend on
    others.
    """

    name: str
    summary: str
    paper: str
    task: str
    text: Callable[[], RunConfig] | None = None
    images: Callable[[], RunConfig] | None = None
    experiments: tuple[Experiment, ...] = ()
    follow: Follow | None = None

    def __call__(self, task: str | None = None, *, paper: bool = False, model: str | None = None) -> RunConfig:
        """Build the configuration for the modality of ``task``, with the settings that the method has on that task.

        Args:
            task: None for the recipe's own.
            paper: take the settings of the paper's experiment on the task.
            model: of several experiments, the one with this model or one of its family.

        Raises:
            UserError: it does not train on that modality, or no paper ran it on that task.
        """
        task = task or self.task
        config = self._build(task)
        experiment = choose(self.experiments, task, model)
        if paper and experiment is None:
            raise UserError(f"no paper's experiment of {self.name} on {task}", where="paper", hint=self._alternatives)
        if experiment is None:
            return config
        settings: Mapping[str, Any] = experiment.own
        if paper:
            settings = {**experiment.all_settings, "paper": True}
        return type(config).model_validate(merge(config.model_dump(), nested(settings)))

    def _build(self, task: str) -> RunConfig:
        images = is_image_task(task)
        if (build := self.images if images else self.text) is not None:
            return build()
        baseline = _baseline(self.name, "images" if images else "text")
        if baseline is None:
            kinds = ("images", "texts") if images else ("texts", "images")
            raise UserError(f"{self.name} trains on {kinds[1]}, and {task} is a task of {kinds[0]}", where="task")
        return baseline(self.name)

    @property
    def run(self) -> str:
        """Scale at which the project ran it."""
        return self.experiments[0].run if self.experiments else NOT_RUN

    @property
    def tried(self) -> tuple[str, ...]:
        """Tasks on which a paper ran it."""
        return tuple(dict.fromkeys(task for experiment in self.experiments for task in experiment.tasks))

    @property
    def _alternatives(self) -> str:
        others = [recipe.name for recipe in RECIPES.values() if recipe.experiments]
        has = (
            f"there is one on {', '.join(self.tried)}" if self.tried else f"recipes that have one: {', '.join(others)}"
        )
        return f"{has}; without --paper a recipe trains on any task of its kind"

    def following(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings in the place of its defaults, by all ``settings``, which were not checked yet."""
        task = settings.get("task")
        if self.follow is None or not isinstance(task, str) or not is_image_task(task):
            return {}
        return self.follow(settings)


RECIPES: dict[str, Recipe] = {}
_BASELINES: dict[tuple[Modality, Requires], Callable[[str], RunConfig]] = {}


def find_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``, or make one of the method called so: with the baselines' settings.

    Raises:
        UserError: neither is called so; the nearest names are listed.
    """
    if name in RECIPES:
        return RECIPES[name]
    from contraverse.methods import METHODS  # loads torch, which naming a recipe does without

    if name not in METHODS:
        raise unknown("recipe or method", name, dict.fromkeys([*RECIPES, *METHODS]))
    method = METHODS[name]
    on_texts = {"labels": "text", "inputs": "sentences", "pairs": "nli"}[method.requires]
    return Recipe(name, method.summary, method.paper, "cifar10" if method.modality == "images" else on_texts)


def _baseline(name: str, modality: Modality) -> Callable[[str], RunConfig] | None:
    """Settings of the baselines for the method called ``name``; None where it does not train on that modality."""
    from contraverse.methods import METHODS

    method = METHODS.get(name)
    if method is None or method.modality not in ("both", modality):
        return None
    return _BASELINES.get((modality, method.requires))


def is_image_task(name: str) -> bool:
    """True for a task of images."""
    from contraverse.data import IMAGE_TASKS  # loads torch, which naming a recipe does without

    return name in IMAGE_TASKS


def baseline(modality: Modality, *requires: Requires) -> Callable[[BuildFor], BuildFor]:
    """Register the settings, by the method's name, of methods of this modality that have none of their own."""

    def register(build: BuildFor) -> BuildFor:
        _BASELINES.update({(modality, required): build for required in requires})
        return build

    return register


def plain(name: str, *, summary: str, paper: str, task: str) -> None:
    """Register a recipe that is its method with the baselines' settings."""
    RECIPES[name] = Recipe(name, summary, paper, task)


def recipe(name: str, *, summary: str, paper: str, task: str) -> Callable[[Build], Build]:
    """Register a recipe whose settings are for the modality of its own ``task``."""

    def register(build: Build) -> Build:
        images = issubclass(get_type_hints(build)["return"], ImageRunConfig)
        text, pictures = (None, build) if images else (build, None)
        RECIPES[name] = Recipe(name, summary, paper, task, text=text, images=pictures)
        return build

    return register


def on_images(name: str) -> Callable[[Build], Build]:
    """Register the settings on images of a recipe that trains on texts."""

    def register(build: Build) -> Build:
        RECIPES[name] = replace(RECIPES[name], images=build)
        return build

    return register


def on_texts(name: str) -> Callable[[Build], Build]:
    """Register the settings on texts of a recipe that trains on images."""

    def register(build: Build) -> Build:
        RECIPES[name] = replace(RECIPES[name], text=build)
        return build

    return register


def follows(*names: str) -> Callable[[Follow], Follow]:
    """Register settings of these recipes on images that depend on others; explicit ones stay."""

    def register(follow: Follow) -> Follow:
        RECIPES.update({name: replace(RECIPES[name], follow=follow) for name in names})
        return follow

    return register


def experiment(*names: str, **described: Any) -> None:
    """Add an `Experiment` to each of these recipes; of several on one task the first is the default."""
    for name in names:
        known = RECIPES[name]
        RECIPES[name] = replace(known, experiments=(*known.experiments, Experiment(**described)))
