"""A plan of a run: the batch that fits, steps a second, hours, and what to switch on."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from contraverse.data import IMAGE_TASKS, TASKS
from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import AnyModel, TextModel
from contraverse.planning.cost import Training, training_of_config
from contraverse.planning.shapes import build_model, known_shape
from contraverse.recipes import ImageRunConfig, RunConfig, split_stages

RESERVE = 0.1
"""Share of a device's memory that is left to the allocator, the libraries and short-lived tensors."""


@dataclass(frozen=True)
class Resources:
    """Devices to train on.

    ``devices``: in number, all alike. ``memory``: bytes of one; None where it is not known. ``rate``: FLOPs a second
    that one sustains.

    Raises:
        UserError: no device, or a rate that is not above 0.
    """

    devices: int = 1
    memory: float | None = None
    rate: float = 1e14

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise UserError(f"{self.devices} devices cannot train", where="--devices", hint="give 1 or more")
        if not 0 < self.rate < math.inf:
            raise UserError("the rate of a device is above 0", where="--rate", hint="in TFLOP a second, as 150")

    @property
    def usable(self) -> float:
        """Bytes that a training may fill."""
        return math.inf if self.memory is None else self.memory * (1 - RESERVE)


@dataclass(frozen=True)
class Layout:
    """Layout of a step on the devices.

    ``recompute``: layers again in the backward pass. ``sharded``: weights, gradients and states are split over the
    devices. ``at_once``: rows of a device whose activations are held at a time; None for all of them.
    """

    recompute: bool = False
    sharded: bool = False
    at_once: int | None = None

    @property
    def name(self) -> str:
        """Words for a table."""
        parts = ["sharded"] * self.sharded + ["checkpointing"] * self.recompute
        return " + ".join(parts) or "as it is"


@dataclass(frozen=True)
class Plan:
    """The plan of one training.

    Attributes:
        config: its settings.
        model: name of the model.
        training: costs of a step.
        resources: what it runs on.
        share: rows of one device in a step of the optimizer.
        accumulated: parts that it computes them in, ``train.gradient_accumulation_steps``.
        layout: the cheapest that fits; None where none does.
        fits: the most rows at a time that fit a device, by layout; 0 where the weights alone do not.
        steps: of the optimizer in the whole training; None where the number of rows is not known.
    """

    config: RunConfig
    model: str
    training: Training
    resources: Resources
    share: int
    accumulated: int
    layout: Layout | None
    fits: dict[Layout, int] = field(default_factory=dict)
    steps: int | None = None

    @property
    def steps_a_second(self) -> float:
        """Steps of the optimizer in a second at the stated rate, with the layout that fits."""
        layout = self.layout or Layout()
        return self.resources.rate / (self.training.flops(self.share) * self.factor(layout))

    @property
    def hours(self) -> float | None:
        """Hours of training alone, at the stated rate."""
        return None if self.steps is None else self.steps / self.steps_a_second / 3600

    def factor(self, layout: Layout) -> float:
        """Arithmetic of a step in ``layout`` over that of a plain one, at most.

        Layers computed again, and a batch in chunks, cost F more for each backward pass, those of attacks included; a
        pass forward and backward costs 2F or 3F.
        """
        chunks = layout.at_once is not None and self.contrastive
        return 1 + layout.recompute / 2 + chunks / 2

    @property
    def contrastive(self) -> bool:
        """True where negatives are the other rows of the batch, which accumulation would take away."""
        return METHODS[self.config.method.name].in_batch_negatives


def plan(config: RunConfig, resources: Resources, *, rows: int | None = None) -> list[Plan]:
    """Plan every stage of ``config``; needs neither weights nor rows nor a network.

    Args:
        config: checked settings.
        resources: what it is to run on.
        rows: of training data, for hours and memory banks.

    Raises:
        UserError: no shape is known for the model, or the batch cannot be shared out.
    """
    return [_plan(stage.config, resources, rows) for stage in split_stages(config)]


def _plan(config: RunConfig, resources: Resources, rows: int | None) -> Plan:
    method = METHODS[config.method.name]
    batch, share, accumulated = _shares(config, resources.devices)
    model = build_model(config, _labels(config) if method.requires == "labels" else None)
    training = training_of_config(config, model, input_length(config, model), rows=rows)
    epochs, most = config.train.arguments.get("num_train_epochs", 3), config.train.arguments.get("max_steps", -1)
    steps = most if most > 0 else None if rows is None else math.ceil(rows / batch) * math.ceil(epochs)
    fits = {layout: rows_that_fit(training, resources, layout) for layout in _layouts(training, resources.devices)}
    result = Plan(config, config.model.name, training, resources, share, accumulated, None, fits, steps)
    return replace(result, layout=_cheapest(result))


def rows_that_fit(training: Training, resources: Resources, layout: Layout) -> int:
    """The most rows at a time whose activations fit a device beside what it holds anyway; 0 where nothing does."""
    free = resources.usable - training.fixed(resources.devices, sharded=layout.sharded)
    a_row = training.activations(1, recompute=layout.recompute)
    if free < 0 or math.isinf(free) or a_row == 0:
        return 0 if free < 0 else 2**31
    return int(free // a_row)


def chunk_that_fits(plan: Plan, layout: Layout) -> int:
    """The most rows of a chunk (``train.contrast_chunk``): one graph at a time, and one more copy of the gradients."""
    training, resources = plan.training, plan.resources
    free = resources.usable - training.fixed(resources.devices, sharded=layout.sharded) - training.gradients
    row = training.activations(1, recompute=layout.recompute) / max(1, training.graphs)
    return max(0, int(free // row)) if row else 0


def _layouts(training: Training, devices: int) -> Iterator[Layout]:
    for sharded in (False, True) if devices > 1 and training.splits else (False,):
        for recompute in (False, True) if training.forward.recomputed is not None else (False,):
            yield Layout(recompute, sharded)


def _cheapest(plan: Plan) -> Layout | None:
    """The layout of least arithmetic in which a step fits, whole weights before split ones."""
    possible, rows = [], -(-plan.share // plan.accumulated)
    for layout, most in plan.fits.items():
        if most >= rows:
            possible.append(layout)
        elif plan.contrastive:
            # Split weights take no chunks, and a compiled model none either: its second pass draws other masks.
            whole = not (layout.sharded or plan.config.train.arguments.get("torch_compile"))
            if whole and (chunk := chunk_that_fits(plan, layout)):
                possible.append(Layout(layout.recompute, at_once=min(chunk, rows)))
        elif most >= 1:
            possible.append(Layout(layout.recompute, layout.sharded, most))
    return min(possible, key=lambda layout: (layout.sharded, plan.factor(layout)), default=None)


def _shares(config: RunConfig, devices: int) -> tuple[int, int, int]:
    """Rows of a step, rows of one device in it, and the parts that it computes them in."""
    accumulated = config.train.arguments.get("gradient_accumulation_steps", 1)
    batch = config.train.global_batch_size
    if batch is None:
        share = config.train.arguments.get("per_device_train_batch_size", 8) * accumulated
        return share * devices, share, accumulated
    if batch % (devices * accumulated):
        raise UserError(
            f"{batch} rows cannot be shared out over {devices} devices x {accumulated} accumulated batches",
            where="train.global_batch_size",
            hint="give a multiple: --set train.global_batch_size=...",
        )
    return batch, batch // devices, accumulated


def _labels(config: RunConfig) -> list[str]:
    """Names of classes: the task's, or a few where its data tell."""
    tasks: dict[str, Any] = {**TASKS, **IMAGE_TASKS}
    task = tasks[config.task]
    if task.labels is not None:
        return list(task.labels)
    if task.metric in ("pearson", "spearman"):
        return ["score"]
    return ["0", "1"]


def input_length(config: RunConfig, model: AnyModel) -> int:
    """Tokens that a text is cut to, or pixels of an image's side."""
    if not isinstance(config, ImageRunConfig):
        assert isinstance(model, TextModel)
        return min(config.model.max_length, model.positions or config.model.max_length)
    shape = known_shape(config.model.name)
    size = config.data.size or IMAGE_TASKS[config.task].size
    if shape is not None and shape.size is not None and shape.size > 32 and config.data.size is None:
        return shape.size
    return size or 32


_SIZE = re.compile(r"(\d+(?:\.\d+)?)(KB|KIB|MB|MIB|GB|GIB|TB|TIB)", re.IGNORECASE)
_UNITS = {"KB": 1e3, "KIB": 2**10, "MB": 1e6, "MIB": 2**20, "GB": 1e9, "GIB": 2**30, "TB": 1e12, "TIB": 2**40}


def parse_memory(written: str) -> float:
    """Bytes of ``80GB``, ``80GiB``, ``640MB``.

    Raises:
        UserError: something else.
    """
    match = _SIZE.fullmatch(written)
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    if not match or size <= 0:
        raise UserError(f"{written!r} is no amount of memory", where="--memory", hint="write 80GB, 24GiB or 640MB")
    return size
