"""Cost of a training step in terms of one forward pass, of what the method declares, and of the optimizer's states."""

import copy
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from contraverse.methods import METHODS
from contraverse.models import AnyModel, TextModel
from contraverse.planning.measure import Forward, forward_of
from contraverse.recipes import RunConfig, TrainConfig
from contraverse.training.lars import build_optimizer
from contraverse.types import Method, TrainingInfo

GRADIENT_BYTES_OF_FEATURES = 4
"""Features are compared in fp32."""


@dataclass(frozen=True)
class Training:
    """Costs of one step of a method on a model.

    Attributes:
        forward: one forward pass of a row, F.
        units: cost of a step in F.
        graphs: forward passes whose activations are held at once.
        gathered: tensors of features (rows, ``width``) that a step gathers from all devices.
        width: of such features.
        weights: bytes of the model's weights and buffers.
        trained: number of weights that are trained.
        gradients: bytes of their gradients.
        optimizer: bytes of the optimizer's states.
        method: bytes of the method's own: a copy of the model, a memory bank.
        splits: True where ``train.fsdp`` takes model, method and optimizer.
    """

    forward: Forward
    units: float
    graphs: int
    gathered: int
    width: int
    weights: int
    trained: int
    gradients: int
    optimizer: float
    method: int
    splits: bool

    def flops(self, rows: int) -> float:
        """FLOPs of a step on ``rows``."""
        return self.units * self.forward.flops * rows

    def activations(self, rows: float, *, recompute: bool = False) -> float:
        """Bytes of the activations of ``rows``, and of one's gradient, at the peak of a step.

        Args:
            rows: of one device.
            recompute: layers are computed again in the backward pass.
        """
        kept = self.forward.recomputed if recompute else self.forward.kept
        assert kept is not None
        return self.graphs * rows * (kept + self.forward.largest)

    def fixed(self, devices: int, *, sharded: bool = False) -> float:
        """Bytes that a device holds whatever its rows: weights, gradients, states; DDP's buckets with several.

        Args:
            devices: in number.
            sharded: weights, gradients and states are split over them (FSDP).
        """
        split = devices if sharded else 1
        buckets = self.gradients if devices > 1 and not sharded else 0
        return (self.weights + self.gradients + self.optimizer) / split + buckets + self.method + self.forward.kept_once

    def memory(self, rows: float, devices: int = 1, *, recompute: bool = False, sharded: bool = False) -> float:
        """Bytes of a device at the peak of a step on ``rows`` of its own."""
        return self.fixed(devices, sharded=sharded) + self.activations(rows, recompute=recompute)

    def reduced(self, devices: int) -> int:
        """Bytes of gradients that a step sums over devices."""
        return self.gradients if devices > 1 else 0

    def gathered_bytes(self, rows: int, devices: int) -> int:
        """Bytes of features that a device receives in a step, its own ``rows`` included."""
        if devices == 1:
            return 0
        return self.gathered * devices * rows * self.width * GRADIENT_BYTES_OF_FEATURES


def training_of(
    model: AnyModel, method: Method, train: TrainConfig, length: int, *, bf16: bool = False, rows: int | None = None
) -> Training:
    """Measure ``model`` and add up what ``method`` and the optimizer of ``train`` need.

    Args:
        model: on the meta device; the method's heads are added, and it is left on fake tensors.
        method: before `Method.prepare`.
        train: names the optimizer.
        length: tokens of a row, or pixels of an image's side.
        bf16: train under autocast.
        rows: of the training set, for memory banks; None leaves these out.
    """
    _ready(model, method)
    return training_with(forward_of(model, method, length, bf16=bf16), model, method, train, rows=rows)


def training_with(
    forward: Forward, model: AnyModel, method: Method, train: TrainConfig, *, rows: int | None = None
) -> Training:
    """As `training_of`, with a forward pass of the model that is measured already."""
    _ready(model, method)
    weights = [*model.parameters(), *model.buffers()]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    size = sum(_bytes(weight) for weight in weights)
    own = size if method.needs_reference_model else 0
    if rows is not None:
        own += round(_buffers(method, model, rows))
    return Training(
        forward=forward,
        units=float(method.cost.removesuffix("F")),
        graphs=method.graphs,
        gathered=method.gathered,
        width=_width(model, method),
        weights=size,
        trained=sum(weight.numel() for weight in trained),
        gradients=sum(_bytes(weight) for weight in trained),
        optimizer=sum(_bytes(weight) for weight in trained) * states_per_weight(train),
        method=own,
        splits=isinstance(model, TextModel)
        and not (method.needs_reference_model or train.optimizer or train.arguments.get("fp16")),
    )


def _ready(model: AnyModel, method: Method) -> None:
    model.add_heads(method.heads)
    if method.trainable == "classifier":
        model.freeze_encoder()


def training_of_config(config: RunConfig, model: AnyModel, length: int, *, rows: int | None = None) -> Training:
    """As `training_of`, for the method and precision of ``config``."""
    method = METHODS[config.method.name](**config.method.settings)
    return training_of(model, method, config.train, length, bf16=bool(config.train.arguments.get("bf16")), rows=rows)


def states_per_weight(train: TrainConfig) -> float:
    """Numbers that the optimizer of ``train`` keeps for each weight, counted on a small matrix."""
    chosen = {name: train.arguments[name] for name in ("optim", "optim_args") if name in train.arguments}
    own = None if train.optimizer is None else train.optimizer.model_dump_json(exclude_none=True)
    return _states(own, json.dumps(chosen))


@cache
def _states(own: str | None, chosen: str) -> float:
    """As `states_per_weight`, of settings as JSON: ``train.optimizer``, and transformers' names where it is None."""
    weight = nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.ones_like(weight)
    if own is not None:
        settings = {"weight_decay": 0.0, **json.loads(own)}
        optimizer: Any = build_optimizer(settings.pop("name"), [weight], 0.1, **settings)
    else:
        from transformers import Trainer, TrainingArguments

        kind, arguments = Trainer.get_optimizer_cls_and_kwargs(
            TrainingArguments(output_dir="", use_cpu=True, report_to="none", **json.loads(chosen)),
            nn.Linear(1, 1),  # type: ignore[arg-type]
        )
        optimizer = kind([weight], **arguments)
    optimizer.step()
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    return sum(value.numel() for value in states if value.dim()) / weight.numel()


def _buffers(method: Method, model: AnyModel, rows: int) -> float:
    """Bytes of the method's buffers for ``rows`` training rows: those for a few, carried on in a straight line."""

    def size(count: int) -> int:
        prepared = copy.deepcopy(method)
        vocabulary = model.embedding_shape[0] if isinstance(model, TextModel) else None
        labels = torch.arange(count) % 2
        prepared.prepare(
            TrainingInfo(count, model.width, labels, epochs=2.0, vocab_size=vocabulary, mask_id=0, special_ids=(0,))
        )
        return sum(_bytes(buffer) for buffer in prepared.buffers())

    few, more = size(8), size(16)
    return few + (more - few) / 8 * (rows - 8)


def _width(model: AnyModel, method: Method) -> int:
    """Width of z, where the method has such a head, and of the features where it has not."""
    spec = method.heads.get("z")
    return spec.dim if spec is not None and spec.dim is not None else model.width


def _bytes(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()
