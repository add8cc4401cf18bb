"""Driving a method in tests, and watching what it does to the model."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from reference.draws import Still
from reference.tiny import LABELS, SPECIAL, VOCABULARY, random_batch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from contraverse.methods import METHODS
from contraverse.methods._memory_bank import MemoryBank
from contraverse.training import step
from contraverse.types import Batch, ForwardCalls, HeadCall, Loss, Method, Outputs, TrainingInfo

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS}
CASES |= {
    case: (name, dict(settings))
    for name, method in METHODS.items()
    for case, settings in vars(method).get("test_settings", {}).items()
}
"""Every method with its defaults, and the further settings that it names for these tests."""

TEXT_CASES = [case for case, (name, _) in CASES.items() if METHODS[name].modality != "images"]
"""Cases that a model of texts can be trained with."""

FACTS = TrainingInfo(
    num_examples=8,
    hidden_size=32,
    labels=random_batch(8)["labels"],
    epochs=4.0,
    vocab_size=len(VOCABULARY),
    mask_id=SPECIAL.index("[MASK]"),
    special_ids=tuple(range(len(SPECIAL))),
)
"""Training info of the rows of ``random_batch(8)`` and a tiny model, as a trainer gives it."""


LONGEST = 3
"""Steps of an attack at most: further ones are like the third, and take most of the tests' time."""


def make(case: str, *, longest: int = LONGEST, **training_info: Any) -> Method:
    """A fresh method of ``CASES`` in the last quarter of training, prepared with `FACTS` and ``training_info``.

    A counter of rows, the buffer ``seen``, stands at three of four epochs, and memory banks are full, so that terms
    that start late are on. Further cases of a method that learns a teacher's predictions have targets, and labels for
    every third row; with its defaults the model is its own teacher. Attacks take ``longest`` steps at most.
    """
    name, settings = CASES[case]
    method, info = METHODS[name](**settings), replace(FACTS, **training_info)
    rows = info.num_examples
    if method.teacher == "targets" and settings:
        targets = torch.randn(rows, len(LABELS), generator=torch.Generator().manual_seed(6))
        method.set_targets(targets, torch.arange(rows) % 3 == 0)
    if getattr(method, "steps", 0) > longest:
        method.steps = longest
    method.prepare(info)
    random = torch.Generator().manual_seed(5)
    for bank in method.modules():
        if isinstance(bank, MemoryBank):
            bank.update(torch.arange(rows), torch.randn(rows, info.hidden_size, generator=random), 0.0)
    if "seen" in dict(method.named_buffers(recurse=False)):
        method.seen.fill_(3 * rows)
    return method


@dataclass
class Call:
    """Arguments and outputs of one forward pass; ``head``: its name, where one head ran alone."""

    delta: Tensor | None
    want: tuple[str, ...]
    out: Outputs
    grad_enabled: bool
    head: str | None = None


@dataclass
class Watch:
    """Calls of a `Watched` model, in order."""

    calls: list[Call] = field(default_factory=list)

    def passes(self) -> list[Call]:
        """Those that ran the network."""
        return [call for call in self.calls if call.want != ("inputs",) and call.head is None]


class Watched(nn.Module):
    """A wrapper, as DDP or a compiled model is: it has nothing of the model's but its forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model
        self.watch = Watch()

    def forward(self, batch: Any, **arguments: Any) -> Any:
        if isinstance(batch, ForwardCalls):
            return batch.run(self)
        out: Outputs = self.module(batch, **arguments)
        delta = arguments.get("delta")
        want = tuple(arguments.get("want", ("logits",)))
        head = batch.head if isinstance(batch, HeadCall) else None
        self.watch.calls.append(
            Call(None if delta is None else delta.detach().clone(), want, out, torch.is_grad_enabled(), head)
        )
        return out


class Replayed(Watched):
    """A wrapper that perturbs by ``deltas``, recorded call by call, in the place of those it is handed.

    An attack that follows a sign is not continuous: the least rounding may send it elsewhere. With the perturbations of
    another run, a step is a smooth function of the weights, and two precisions can be compared.
    """

    def __init__(self, model: nn.Module, deltas: list[Tensor | None]) -> None:
        super().__init__(model)
        self.deltas = iter(deltas)

    def forward(self, batch: Any, **arguments: Any) -> Any:
        if not isinstance(batch, ForwardCalls) and (delta := next(self.deltas)) is not None:
            arguments["delta"].data.copy_(delta)
        return super().forward(batch, **arguments)


def ready(method: Method, model: nn.Module) -> None:
    """Prepare training as a trainer does: freeze the encoder, set a reference model, here with earlier weights."""
    if method.trainable == "classifier":
        getattr(model, "module", model).freeze_encoder()
    if method.needs_reference_model and not hasattr(method, "reference_model"):
        earlier = copy.deepcopy(getattr(model, "module", model))
        with torch.no_grad():
            for parameter in earlier.parameters():
                parameter.mul_(0.9)
        method.set_reference_model(earlier)
        for copied, own in zip(earlier.modules(), getattr(model, "module", model).modules(), strict=True):
            if isinstance(own, _BatchNorm) and not own.training:
                copied.eval()  # the model was `settled`, and so is its copy


def settled(model: nn.Module) -> None:
    """Batch norm in eval mode, so that a row's features do not depend on the other rows."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Statistics of batch norms as they were afterwards: a model can be driven again and compared with itself."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    yield
    for norm, values in zip(norms, before, strict=True):
        for name, value in norm.named_buffers():
            value.copy_(values[name])


def _still(method: Method, still: bool | None) -> AbstractContextManager[Any]:
    return Still() if (method.stochastic if still is None else still) else nullcontext()


def losses_of(method: Method, model: nn.Module, batch: Any, still: bool | None = None) -> list[Loss]:
    """Every loss that the method yields, each back-propagated as the driver does.

    Random draws are the same each time (`Still`), unless ``still`` is False. Batch norm's statistics stay.
    """
    ready(method, model)
    seen = []
    with _still(method, still), _put_back(model):
        for loss in method.losses(model, batch):
            loss.total.backward()
            seen.append(Loss(loss.total.detach(), loss.parts))
    return seen


def gradients(
    method: Method, model: nn.Module, batch: Any, scale: float = 1.0, still: bool | None = None
) -> dict[str, Tensor]:
    """Parameter gradients after one step, from zero; those without one are left out. ``still``: see `losses_of`."""
    ready(method, model)
    model.zero_grad()
    with _still(method, still), _put_back(model):
        step(method, model, batch, backward=lambda loss: (loss * scale).backward())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for _, g in sorted(grads.items())])


def needed(method: Method, full: Batch) -> dict[str, Any]:
    """Fields of a batch that the method requires."""
    extra = {"labels": ("labels",), "inputs": (), "pairs": ("positive", "negative")}[method.requires]
    inputs = ("pixel_values",) if "pixel_values" in full else ("input_ids", "attention_mask")
    return {name: full[name] for name in (*inputs, "index", *extra)}
