"""contraverse: train text encoders on adversarial views of their inputs, and measure how robust they are."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contraverse.attacks import EmbeddingBall, one_step, perturbable, pgd
    from contraverse.data import EncodedText, Splits, TextData, load_splits
    from contraverse.errors import UserError
    from contraverse.evaluation import evaluate, evaluate_sts, robust_accuracy
    from contraverse.methods import (
        METHODS,
        SCAL,
        USCAL,
        AdversarialTraining,
        Contrastive,
        CrossEntropy,
        SimCSE,
        SupervisedSimCSE,
    )
    from contraverse.models import TextModel
    from contraverse.pipeline import run
    from contraverse.recipes import RunConfig, configure
    from contraverse.training import Trainer, step
    from contraverse.types import Batch, HeadSpec, Inputs, Loss, Method, Model, Outputs

__version__ = "0.1.0"

# Loaded on first use: `import contraverse` and the command line's --help must not wait for PyTorch.
_WHERE = {
    "attacks": ("EmbeddingBall", "one_step", "perturbable", "pgd"),
    "data": ("EncodedText", "Splits", "TextData", "load_splits"),
    "errors": ("UserError",),
    "evaluation": ("evaluate", "evaluate_sts", "robust_accuracy"),
    "methods": (
        "METHODS",
        "SCAL",
        "USCAL",
        "AdversarialTraining",
        "Contrastive",
        "CrossEntropy",
        "SimCSE",
        "SupervisedSimCSE",
    ),
    "models": ("TextModel",),
    "pipeline": ("run",),
    "recipes": ("RunConfig", "configure"),
    "training": ("Trainer", "step"),
    "types": ("Batch", "HeadSpec", "Inputs", "Loss", "Method", "Model", "Outputs"),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "METHODS",
    "SCAL",
    "USCAL",
    "AdversarialTraining",
    "Batch",
    "Contrastive",
    "CrossEntropy",
    "EmbeddingBall",
    "EncodedText",
    "HeadSpec",
    "Inputs",
    "Loss",
    "Method",
    "Model",
    "Outputs",
    "RunConfig",
    "SimCSE",
    "Splits",
    "SupervisedSimCSE",
    "TextData",
    "TextModel",
    "Trainer",
    "UserError",
    "configure",
    "evaluate",
    "evaluate_sts",
    "load_splits",
    "one_step",
    "perturbable",
    "pgd",
    "robust_accuracy",
    "run",
    "step",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'contraverse' has no attribute {name!r}")
    return getattr(import_module(f"contraverse.{_MODULE_OF[name]}"), name)
