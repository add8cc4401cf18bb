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
from contraverse.recipes.departures import Difference, differences, experiment_of, ours
from contraverse.recipes.experiments import Experiment, Ours
from contraverse.recipes.image_experiments import CIFAR as _registered  # noqa: F401
from contraverse.recipes.images import ImageDataConfig, ImageEvaluationConfig, ImageModelConfig, ImageRunConfig
from contraverse.recipes.papers import RECIPES, Recipe
from contraverse.recipes.resolve import change, configure, load, load_search, made_with, parse, refuse_trust
from contraverse.recipes.spaces import PAPER_SPACES, SPACES, Choices, Range, parse_range, read_space, space_of
from contraverse.recipes.stages import Stage, split_stages
from contraverse.recipes.text_experiments import BERT, NLI_SENTENCES

__all__ = [
    "BERT",
    "NLI_SENTENCES",
    "PAPER_SPACES",
    "RECIPES",
    "SPACES",
    "Choices",
    "DataConfig",
    "Difference",
    "EvaluationConfig",
    "Experiment",
    "ImageDataConfig",
    "ImageEvaluationConfig",
    "ImageModelConfig",
    "ImageRunConfig",
    "MethodConfig",
    "ModelConfig",
    "Ours",
    "Range",
    "Recipe",
    "RunConfig",
    "SearchConfig",
    "Stage",
    "StageConfig",
    "TrainConfig",
    "change",
    "configure",
    "differences",
    "experiment_of",
    "load",
    "load_search",
    "made_with",
    "ours",
    "parse",
    "parse_range",
    "read_space",
    "refuse_trust",
    "space_of",
    "split_stages",
]
