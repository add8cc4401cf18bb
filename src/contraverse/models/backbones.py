"""Backbones by name: those of `contraverse.models.resnet`, drawn at random, and any of timm's."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from contraverse.errors import UserError
from contraverse.models.resnet import BACKBONES

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of pixels in [0, 1], a value for each channel."""

IMAGENET: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Normalisation of ImageNet, which the papers use on CIFAR too."""

TIMM = "timm/"
OURS = ("pretrained", "num_classes", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of ``timm.create_model`` that are not the architecture's; some of them name files that would be loaded."""


def is_backbone(name: str) -> bool:
    """True for a name of `BACKBONES`, and for one of timm's by its prefix."""
    return name in BACKBONES or name.startswith(TIMM)


def build_backbone(
    name: str, *, pretrained: bool, timm: Mapping[str, Any] | None = None
) -> tuple[nn.Module, int, Normalisation]:
    """A backbone, the width of its features, and the normalisation that belongs to it.

    Args:
        name: of `BACKBONES`, or ``timm/<name>``.
        pretrained: whether to load timm's weights; ours have none.
        timm: further arguments of ``timm.create_model``, as ``img_size``.

    Raises:
        UserError: no such backbone, timm is not installed, its weights cannot be had, or ``timm`` does not fit.
    """
    if not name.startswith(TIMM):
        if timm:
            raise UserError(f"{name} is none of timm's, and takes no {', '.join(timm)}", where="model.timm")
        if name not in BACKBONES:
            known = ", ".join(BACKBONES)
            hint = f"known: {known}; {TIMM}<name> for one of timm's; a folder or a file for a trained one"
            raise UserError(f"no backbone is called {name!r}", hint=hint)
        backbone = BACKBONES[name]()
        return backbone, int(backbone.width), IMAGENET  # type: ignore[arg-type]
    if refused := sorted(set(timm or ()).intersection(OURS)):
        raise UserError(f"{', '.join(refused)} cannot be set: it is no part of the architecture", where="model.timm")
    try:
        from timm import create_model
    except ImportError as error:
        raise UserError(f"{name} needs timm, which is not installed", hint="pip install 'contraverse[timm]'") from error
    try:
        settings = {"pretrained": pretrained, "num_classes": 0, **(timm or {})}
        encoder: Any = create_model(name.removeprefix(TIMM), **settings)
    except (RuntimeError, ValueError, OSError, TypeError, AssertionError, KeyError) as error:
        raise UserError(f"cannot load {name}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    trained = encoder.pretrained_cfg
    # Of some, features are wider than what is pooled for the classifier.
    width = getattr(encoder, "head_hidden_size", None) or encoder.num_features
    return encoder, int(width), (tuple(trained["mean"]), tuple(trained["std"]))


def switch_checkpointing(model: nn.Module, encoder: nn.Module) -> None:
    """See `ImageModel.activation_checkpointing_enable`."""
    where = "train.gradient_checkpointing"
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        what = "layers would run twice, and batch norm would count each batch twice"
        raise UserError(what, where=where, hint="leave it out, or take a backbone without batch norm")
    switch = getattr(encoder, "set_grad_checkpointing", None)
    if switch is None:
        raise UserError(f"a {type(encoder).__name__} cannot recompute its layers", where=where)
    switch(True)
