"""Networks that were made elsewhere, as models that can be attacked and measured: their weights are shared."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from contraverse.errors import UserError
from contraverse.models.modes import evaluating
from contraverse.models.opening import check_model

if TYPE_CHECKING:
    from contraverse.models.image import ImageModel
    from contraverse.models.text import TextModel

SIZES = (32, 28, 224, 64, 96)
"""Heights and widths of the grey image that counts a network's classes; the first that the network accepts is used."""


class Network(nn.Module):
    """A network on pixels in the default layout, which ``view`` needs, and in the precision of its weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C): the network's output, or the field ``logits`` of it, as transformers' networks have."""
        weights = (parameter.dtype for parameter in self.network.parameters() if parameter.is_floating_point())
        outputs = self.network(pixels.contiguous().to(next(weights, pixels.dtype)))
        logits: Tensor = getattr(outputs, "logits", outputs)
        return logits


def image_model(
    kind: "type[ImageModel]",
    network: nn.Module,
    labels: Sequence[str] | None,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: Sequence[int] | None,
) -> "ImageModel":
    """See `ImageModel.from_module`."""
    if not isinstance(network, nn.Module):
        raise UserError(f"expected a torch.nn.Module, not a {type(network).__name__}")
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    sizes = [tuple(image_size)] if image_size is not None else [(size, size) for size in SIZES]
    names = list(labels or map(str, range(_count_classes(network, len(mean), sizes, device))))
    # The network is put in afterwards: a model lays its encoder's weights out anew, and draws those of a classifier.
    model = kind(nn.Identity(), len(names), mean=mean, std=std, image_size=image_size).to(device)
    model.labels, model.encoder, model.classifier = names, Network(network), nn.Identity()  # type: ignore[assignment]
    return model.eval()


def _count_classes(network: nn.Module, channels: int, sizes: Sequence[tuple[int, ...]], device: torch.device) -> int:
    reasons = []
    with evaluating(network), torch.no_grad():
        for size in sizes:
            try:
                logits = Network(network)(torch.full((1, channels, *size), 0.5, device=device))
            except Exception as error:  # a network can fail in any way
                reasons.append(f"{size[0]} x {size[1]}: {type(error).__name__}: {str(error).splitlines()[:1]}")
                continue
            if isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == 1:
                return logits.shape[1]
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            reasons.append(f"{size[0]} x {size[1]}: gives {shape}, not (1, classes)")
    raise UserError(
        "the network gives no logits for an image of any usual size:\n  " + "\n  ".join(reasons),
        hint=f"Wanted: pixels (B, {channels}, H, W) in [0, 1] -> logits (B, classes).",
    )


def text_model(
    kind: "type[TextModel]",
    network: PreTrainedModel,
    tokenizer: Any,
    labels: Sequence[str] | None,
    max_length: int | None,
) -> "TextModel":
    """See `TextModel.from_transformers`."""
    name = type(network).__name__
    if not isinstance(network, PreTrainedModel) or not name.endswith("ForSequenceClassification"):
        hint = "load it with AutoModelForSequenceClassification"
        raise UserError(f"expected a classifier of transformers, not a {name}", hint=hint)
    if not hasattr(tokenizer, "pad") or not hasattr(tokenizer, "model_max_length"):
        hint = "give it as tokenizer=AutoTokenizer.from_pretrained(...)"
        raise UserError(f"expected the model's tokenizer, not a {type(tokenizer).__name__}", hint=hint)
    config = network.config
    names: dict[Any, Any] = config.id2label or {}
    own = [str(names.get(i, f"LABEL_{i}")) for i in range(len(names))]
    if labels is not None and len(labels) != len(own):
        raise UserError(f"{len(labels)} labels, and the model has {len(own)} classes: {', '.join(own[:5])}")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    text = config.get_text_config()
    if getattr(text, "pad_token_id", None) is None:
        text.pad_token_id = tokenizer.pad_token_id
    text.use_cache = False
    model = kind(network, tokenizer, labels=own if labels is None else list(labels))
    model.max_length = max_length or model.max_seq_length
    check_model(model, name, choose_pooling=True)
    return model.eval()


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Restore afterwards the modes of all modules, and the configuration's padding token and cache."""
    text = network.config.get_text_config() if isinstance(network, PreTrainedModel) else None
    before = {name: getattr(text, name) for name in ("pad_token_id", "use_cache") if hasattr(text, name)}
    with evaluating(network):
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(text, name, value)
