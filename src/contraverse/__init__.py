"""contraverse: train encoders on adversarial views of their inputs, and measure how robust they are."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contraverse.attacks import NormBall, apgd, fgm, perturbation_inputs, pgd
    from contraverse.data import EncodedText, ImageData, Splits, TextData, load_images, load_splits
    from contraverse.errors import UserError
    from contraverse.evaluation import evaluate, evaluate_nli, evaluate_sts, representation_shift, robust_accuracy
    from contraverse.methods import (
        ALUM,
        CARL,
        ISBERT,
        METHODS,
        RAR,
        SCAL,
        SMART,
        USCAL,
        AdversarialTraining,
        ConSERT,
        Contrastive,
        CrossEntropy,
        FreeLB,
        InfoBERT,
        MaskedLanguageModelling,
        SimCSE,
        SupervisedSimCSE,
    )
    from contraverse.models import ImageModel, TextModel, fit_flow, fit_whitening
    from contraverse.pipeline import run
    from contraverse.recipes import RunConfig, configure
    from contraverse.training import Trainer, step
    from contraverse.types import Batch, HeadSpec, Inputs, Loss, Method, Model, Outputs, TrainingInfo

__version__ = "0.1.0"

# Loaded on first use: `import contraverse` and the command line's --help must not wait for PyTorch.
_WHERE = {
    "attacks": (
        "NormBall",
        "apgd",
        "fgm",
        "perturbation_inputs",
        "pgd",
    ),
    "data": (
        "EncodedText",
        "ImageData",
        "Splits",
        "TextData",
        "load_images",
        "load_splits",
    ),
    "errors": ("UserError",),
    "evaluation": (
        "evaluate",
        "evaluate_nli",
        "evaluate_sts",
        "representation_shift",
        "robust_accuracy",
    ),
    "methods": (
        "ALUM",
        "CARL",
        "ISBERT",
        "METHODS",
        "RAR",
        "SCAL",
        "SMART",
        "USCAL",
        "AdversarialTraining",
        "ConSERT",
        "Contrastive",
        "CrossEntropy",
        "FreeLB",
        "InfoBERT",
        "MaskedLanguageModelling",
        "SimCSE",
        "SupervisedSimCSE",
    ),
    "models": (
        "ImageModel",
        "TextModel",
        "fit_flow",
        "fit_whitening",
    ),
    "pipeline": ("run",),
    "recipes": (
        "RunConfig",
        "configure",
    ),
    "training": (
        "Trainer",
        "step",
    ),
    "types": (
        "Batch",
        "TrainingInfo",
        "HeadSpec",
        "Inputs",
        "Loss",
        "Method",
        "Model",
        "Outputs",
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "ALUM",
    "CARL",
    "ISBERT",
    "METHODS",
    "RAR",
    "SCAL",
    "SMART",
    "USCAL",
    "AdversarialTraining",
    "Batch",
    "ConSERT",
    "Contrastive",
    "CrossEntropy",
    "EncodedText",
    "FreeLB",
    "HeadSpec",
    "ImageData",
    "ImageModel",
    "InfoBERT",
    "Inputs",
    "Loss",
    "MaskedLanguageModelling",
    "Method",
    "Model",
    "NormBall",
    "Outputs",
    "RunConfig",
    "SimCSE",
    "Splits",
    "SupervisedSimCSE",
    "TextData",
    "TextModel",
    "Trainer",
    "TrainingInfo",
    "UserError",
    "apgd",
    "configure",
    "evaluate",
    "evaluate_nli",
    "evaluate_sts",
    "fgm",
    "fit_flow",
    "fit_whitening",
    "load_images",
    "load_splits",
    "perturbation_inputs",
    "pgd",
    "representation_shift",
    "robust_accuracy",
    "run",
    "step",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'contraverse' has no attribute {name!r}")
    return getattr(import_module(f"contraverse.{_MODULE_OF[name]}"), name)
