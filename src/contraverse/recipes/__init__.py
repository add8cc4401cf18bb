"""Recipes: the papers' settings by name, and how a run is configured from one. Imports without torch."""

from contraverse.recipes.departures import Difference, differences, experiment_of, ours
from contraverse.recipes.image_experiments import CIFAR
from contraverse.recipes.image_schema import ImageDataConfig, ImageEvaluationConfig, ImageModelConfig, ImageRunConfig
from contraverse.recipes.recipe import RECIPES, Experiment, Ours, Recipe, find_recipe
from contraverse.recipes.resolve import change, configure, load, load_search, made_with, parse, refuse_trust
from contraverse.recipes.schema import (
    DataConfig,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    StageConfig,
    TrainConfig,
)
from contraverse.recipes.search_spaces import (
    PAPER_SPACES,
    SPACES,
    Choices,
    Range,
    SearchConfig,
    parse_range,
    read_space,
    space_of,
)
from contraverse.recipes.stages import Stage, split_stages
from contraverse.recipes.text_experiments import BERT, NLI_SENTENCES

__all__ = [
    "BERT",
    "CIFAR",
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
    "find_recipe",
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
