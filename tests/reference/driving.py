"""Driving a method in tests, and watching what it does to the model."""

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from reference.draws import Still
from reference.tiny import SPECIAL, VOCABULARY, random_batch
from torch import Tensor, nn

from contraverse.methods import CARL, METHODS
from contraverse.training import step
from contraverse.types import Facts, HeadCall, Loss, Method, Outputs

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS}
CASES |= {
    "at-fgsm": ("at", {"attack": "fgsm", "epsilon": 0.01}),
    "at-token": ("at", {"scope": "token"}),
    "scal-fgsm": ("scal", {"attack": "fgsm", "epsilon": 0.01}),
    "scal-literal": ("scal", {"contrast": "literal"}),
    "scal-alpha-0": ("scal", {"alpha": 0.0}),
    "uscal-fgsm": ("uscal", {"attack": "fgsm", "epsilon": 0.01}),
    "freelb-start": ("freelb", {"gamma": 0.3, "epsilon": 0.25, "steps": 2, "count": "ascents"}),
    "freelb-linf": ("freelb", {"norm": "linf", "step_size": 0.01, "epsilon": 0.015}),
    "smart-far": ("smart", {"epsilon": 0.1, "step_size": 0.1, "sigma": 0.02, "steps": 2}),
    "alum-far": ("alum", {"epsilon": 0.1, "step_size": 0.1, "sigma": 0.02, "norm": "l2", "scope": "token"}),
    "infobert-far": ("infobert", {"gamma": 0.0, "step_size": 0.3, "alpha": 0.1, "beta": 0.1}),
    "carl": ("carl", {"negatives": 2}),
    "carl-start": ("carl", {"gamma": 0.3, "epsilon": 0.25, "steps": 2, "negatives": 2, "estimator": "softmax"}),
    "carl-rar": ("carl", {"negatives": 2, "positive": "current", "z": "running", "reconstruction": 0.1}),
    "carl-ce": ("carl", {"negatives": 2, "climb": "ce"}),
    "rar-ce": ("rar", {"climb": "ce"}),
    "rar-start": ("rar", {"gamma": 0.3, "epsilon": 0.25}),
    "mlm-most": ("mlm", {"mlm_probability": 0.5}),
    "consert-cut": ("consert", {"first": "token-cutoff", "second": "dropout", "token_rate": 0.4}),
    "consert-adversarial": ("consert", {"first": "adversarial", "second": "shuffle"}),
}
"""Every method with its defaults, and settings of some that change what is computed."""

DRAWS = {"mlm", "carl", "consert", "smart", "alum"}
"""Methods that draw at random by design, whatever dropout; FreeLB's family does with a gamma (`draws`)."""


FACTS = Facts(
    rows=8,
    width=32,
    labels=random_batch(8)["labels"],
    vocabulary=len(VOCABULARY),
    mask_id=SPECIAL.index("[MASK]"),
    special_ids=tuple(range(len(SPECIAL))),
)
"""What a trainer would tell a method of the rows of ``random_batch(8)`` and a tiny model."""


def make(case: str, **facts: Any) -> Method:
    """A fresh method of ``CASES``, told of `FACTS`; ``facts`` override them. CARL comes with full banks, its L_D on."""
    name, settings = CASES[case]
    method, told = METHODS[name](**settings), replace(FACTS, **facts)
    method.prepare(told)
    if isinstance(method, CARL):
        random = torch.Generator().manual_seed(5)
        for bank in (method.clean, method.adversarial):
            bank.update(torch.arange(told.rows), torch.randn(told.rows, told.width, generator=random), 0.0)
        method.seen.fill_(100 * told.rows)
    return method


@dataclass
class Call:
    """One forward: what it was given and gave; ``head``, where one head alone ran."""

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

    def forward(self, batch: Any, **arguments: Any) -> Outputs:
        out: Outputs = self.module(batch, **arguments)
        delta = arguments.get("delta")
        want = tuple(arguments.get("want", ("logits",)))
        head = batch.head if isinstance(batch, HeadCall) else None
        self.watch.calls.append(
            Call(None if delta is None else delta.detach().clone(), want, out, torch.is_grad_enabled(), head)
        )
        return out


def draws(method: Method) -> bool:
    """Whether a step draws at random without dropout."""
    return method.name in DRAWS or getattr(method, "gamma", 0) > 0


def ready(method: Method, model: nn.Module) -> None:
    """What a trainer does before training; a copy that is wanted has other weights: those of earlier on."""
    if method.trains == "classifier":
        getattr(model, "module", model).freeze_encoder()
    if method.wants_copy and not hasattr(method, "frozen"):
        earlier = copy.deepcopy(getattr(model, "module", model))
        with torch.no_grad():
            for parameter in earlier.parameters():
                parameter.mul_(0.9)
        method.receive(earlier)


def _still(method: Method, still: bool | None) -> AbstractContextManager[Any]:
    return Still() if (draws(method) if still is None else still) else nullcontext()


def losses_of(method: Method, model: nn.Module, batch: Any, still: bool | None = None) -> list[Loss]:
    """Every loss that the method yields, each back-propagated as the driver does.

    What a method draws is the same each time (`Still`), unless ``still`` is False.
    """
    ready(method, model)
    seen = []
    with _still(method, still):
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
    with _still(method, still):
        step(method, model, batch, backward=lambda loss: (loss * scale).backward())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for _, g in sorted(grads.items())])
