"""Backbones by name: those of `contraverse.models.resnet`, drawn at random, and any of timm's."""

from typing import Any

from torch import nn

from contraverse.errors import UserError
from contraverse.models.resnet import BACKBONES

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of pixels in [0, 1], a value for each channel."""

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What the papers normalise with, on CIFAR too."""

TIMM = "timm/"


def is_backbone(name: str) -> bool:
    """Whether ``name`` is one of `BACKBONES`, or says that it is timm's."""
    return name in BACKBONES or name.startswith(TIMM)


def build_backbone(name: str, *, pretrained: bool) -> tuple[nn.Module, int, Normalisation]:
    """A backbone, the width of its features, and the normalisation that belongs to it.

    Args:
        name: of `BACKBONES`, or ``timm/<name>``.
        pretrained: whether to load timm's weights; ours have none.

    Raises:
        UserError: no such backbone, timm is not installed, or its weights cannot be had.
    """
    if not name.startswith(TIMM):
        if name not in BACKBONES:
            known = ", ".join(BACKBONES)
            hint = f"known: {known}; {TIMM}<name> for one of timm's; a folder or a file for a trained one"
            raise UserError(f"no backbone is called {name!r}", hint=hint)
        backbone = BACKBONES[name]()
        return backbone, int(backbone.width), IMAGENET  # type: ignore[arg-type]
    try:
        import timm
    except ImportError as error:
        raise UserError(f"{name} needs timm, which is not installed", hint="pip install 'contraverse[timm]'") from error
    try:
        encoder: Any = timm.create_model(name.removeprefix(TIMM), pretrained=pretrained, num_classes=0)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"cannot load {name}: {str(error).splitlines()[0]}") from error
    trained = encoder.pretrained_cfg
    # Of some, features are wider than what is pooled for the classifier.
    width = getattr(encoder, "head_hidden_size", None) or encoder.num_features
    return encoder, int(width), (tuple(trained["mean"]), tuple(trained["std"]))
