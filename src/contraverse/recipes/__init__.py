"""Recipes: the papers' settings by name, and how a run is configured from one. Imports without torch."""

from contraverse.recipes.config import (
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from contraverse.recipes.papers import RECIPES, Recipe
from contraverse.recipes.resolve import configure, load, parse

__all__ = [
    "RECIPES",
    "DataConfig",
    "EvaluationConfig",
    "MethodConfig",
    "ModelConfig",
    "Recipe",
    "RunConfig",
    "TrainConfig",
    "configure",
    "load",
    "parse",
]
