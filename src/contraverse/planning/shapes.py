"""Models without weights: their shapes on torch's meta device, where they take no memory and no download."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig

from contraverse.errors import UserError, suggestion
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.models.adapters import add_adapter
from contraverse.models.backbones import TIMM, is_backbone
from contraverse.models.encoding import token_classifier
from contraverse.models.loading import DTYPES, Origin, labelled, load_config
from contraverse.models.resnet import BACKBONES
from contraverse.recipes import ImageRunConfig, RunConfig

_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")


@dataclass(frozen=True)
class Shape:
    """A known model.

    ``summary``: its size in words. ``type`` and ``settings``: of its configuration in transformers, over the defaults
    of that type. ``backbone``: name of an image model's network, in place of them. ``size``: height and width of its
    images, None for texts. ``names``: of the model on the Hugging Face Hub.
    """

    summary: str
    type: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    size: int | None = None
    names: tuple[str, ...] = ()


SHAPES: dict[str, Shape] = {
    "bert-base": Shape("BERT-base, uncased", "bert", names=("google-bert/bert-base-uncased", "bert-base-uncased")),
    "modernbert-large": Shape(
        "ModernBERT-large",
        "modernbert",
        {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 28, "num_attention_heads": 16},
        names=("answerdotai/ModernBERT-large",),
    ),
    "mistral-7b": Shape("Mistral-7B, a decoder", "mistral", names=("mistralai/Mistral-7B-v0.1",)),
    "resnet18": Shape("ResNet-18 for 32 x 32 pixels", backbone="resnet18", size=32),
    "resnet50": Shape("ResNet-50 for 32 x 32 pixels", backbone="resnet50", size=32),
    "vit-b": Shape(
        "ViT-B/16 for 224 x 224 pixels",
        "vit",
        size=224,
        names=("google/vit-base-patch16-224", "timm/vit_base_patch16_224"),
    ),
}
"""Models whose shapes need no file: the settings are those of their published configurations."""


class _Transformer(nn.Module):
    """A vision transformer of transformers as a backbone: pixels (B, C, H, W) -> features (B, H) of the first token."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.width = int(network.config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network(pixel_values=pixels).last_hidden_state[:, 0]
        return features

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Recompute layers in the backward pass, as timm's backbones name it."""
        if enable:
            self.network.activation_checkpointing_enable({"use_reentrant": False})


def known_shape(name: str) -> Shape | None:
    """The shape called ``name``, by its name here or on the Hub; None where there is none."""
    for own, shape in SHAPES.items():
        if name.lower() in {own, *(known.lower() for known in shape.names)}:
            return shape
    return None


def build_model(config: RunConfig, labels: Sequence[str] | None) -> AnyModel:
    """The model that ``config`` trains, on torch's meta device: shapes alone, no weights, in training mode.

    Attention's own dropout is left out: a fused kernel draws it again in the backward pass, and keeps no matrix of it.

    Args:
        config: its ``model`` section names one of `SHAPES`, a backbone, a folder with a ``config.json``, or that file.
        labels: class names, for a classifier; None for an encoder.

    Raises:
        UserError: neither; the Hub is not asked.
    """
    name = config.model.name
    shape = known_shape(name)
    of_images = isinstance(config, ImageRunConfig)
    if shape is not None and (shape.size is not None) != of_images:
        kinds = ("images", "texts") if of_images else ("texts", "images")
        raise UserError(f"{name} is a model of {kinds[1]}, and {config.task} is a task of {kinds[0]}", where="--model")
    with torch.device("meta"):
        if isinstance(config, ImageRunConfig):
            return _image_model(config, shape, labels).train()
        return _text_model(config, shape, labels).train()


def _text_model(config: RunConfig, shape: Shape | None, labels: Sequence[str] | None) -> TextModel:
    settings = config.model
    if shape is not None and shape.type is not None:
        described: PretrainedConfig = AutoConfig.for_model(shape.type, **shape.settings)
    else:
        described = _local_config(settings.name)
    described._attn_implementation = settings.attn_implementation
    for dropout in _ATTENTION_DROPOUT:
        if hasattr(described, dropout):
            setattr(described, dropout, 0.0)
    text = described.get_text_config()
    if getattr(text, "pad_token_id", None) is None:
        text.pad_token_id = 0
    text.use_cache = False
    if settings.keep_layers is not None:
        text.num_hidden_layers = settings.keep_layers
    kind = AutoModel if labels is None else AutoModelForSequenceClassification
    try:
        encoder = kind.from_config(described if labels is None else labelled(described, labels))
    except ValueError as error:
        raise UserError(str(error).splitlines()[0], where=settings.name) from error
    encoder = encoder.to(DTYPES[settings.dtype])
    model = TextModel(
        encoder,
        None,
        labels=labels,
        pooling=settings.pooling,
        embedding=settings.embedding,
        max_length=settings.max_length,
    )
    if settings.peft is not None:
        add_adapter(model, settings.peft, Origin(settings.name))
    reads_one = getattr(encoder, "score", None) is not None
    model.reads_last = labels is not None and reads_one and token_classifier(encoder) is not None
    return model


def _local_config(name: str) -> PretrainedConfig:
    path = Path(name)
    folder = path.parent if path.name == "config.json" else path
    if name != "minilm" and not (folder / "config.json").is_file():
        raise UserError(
            f"no shape is known for {name!r}, and the Hub is not asked",
            where="--model",
            hint=f"give a folder with its config.json; {suggestion(name, ['minilm', *SHAPES])}",
        )
    return load_config(Origin(name if name == "minilm" else str(folder)))


def _image_model(config: ImageRunConfig, shape: Shape | None, labels: Sequence[str] | None) -> ImageModel:
    settings = config.model
    if shape is not None and shape.type is not None:
        described = AutoConfig.for_model(shape.type, **shape.settings)
        transformer = _Transformer(AutoModel.from_config(described, add_pooling_layer=False))
        return ImageModel(transformer, transformer.width, labels=labels, dual=settings.dual)
    name = shape.backbone if shape is not None and shape.backbone is not None else settings.name
    if not is_backbone(name) and not Path(name).exists():
        raise UserError(
            f"no shape is known for {name!r}",
            where="--model",
            hint=f"give a folder with a model, {TIMM}<name>; {suggestion(name, dict.fromkeys([*SHAPES, *BACKBONES]))}",
        )
    if is_backbone(name):
        return ImageModel.from_pretrained(
            name, labels=labels, dual=settings.dual, pretrained=False, timm=settings.timm or None
        )
    return ImageModel.from_pretrained(name, labels=labels, dual=settings.dual).to("meta")
