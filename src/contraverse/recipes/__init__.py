"""Recipes: the papers' settings by name, and how a run is configured from one. Imports without torch."""

from contraverse.recipes.config import (
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    SearchConfig,
    StageConfig,
    TrainConfig,
)
from contraverse.recipes.image_papers import ACL_PAPER as _registered  # noqa: F401
from contraverse.recipes.images import ImageDataConfig, ImageEvaluationConfig, ImageModelConfig, ImageRunConfig
from contraverse.recipes.papers import RECIPES, Recipe
from contraverse.recipes.resolve import change, configure, load, load_search, parse
from contraverse.recipes.spaces import SPACES, Choices, Range, parse_range, read_space, space_of
from contraverse.recipes.stages import Stage, split_stages

__all__ = [
    "RECIPES",
    "SPACES",
    "Choices",
    "DataConfig",
    "EvaluationConfig",
    "ImageDataConfig",
    "ImageEvaluationConfig",
    "ImageModelConfig",
    "ImageRunConfig",
    "MethodConfig",
    "ModelConfig",
    "Range",
    "Recipe",
    "RunConfig",
    "SearchConfig",
    "Stage",
    "StageConfig",
    "TrainConfig",
    "change",
    "configure",
    "load",
    "load_search",
    "parse",
    "parse_range",
    "read_space",
    "space_of",
    "split_stages",
]
