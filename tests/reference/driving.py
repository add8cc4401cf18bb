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

from contraverse.methods import CARL, METHODS, UAT, DynACL
from contraverse.training import step
from contraverse.types import Batch, ForwardCalls, HeadCall, Loss, Method, Outputs, TrainingInfo

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS}
CASES |= {
    "at-fgsm": ("at", {"attack": "fgsm", "epsilon": 0.01}),
    "at-token": ("at", {"scope": "token"}),
    "scal-fgsm": ("scal", {"attack": "fgsm", "epsilon": 0.01}),
    "scal-literal": ("scal", {"contrast": "literal"}),
    "scal-masked": ("scal", {"same_class": "masked"}),
    "scal-positives": ("scal", {"same_class": "positives", "contrast": "literal", "projection": "pooler"}),
    "cl-positives": ("cl", {"same_class": "positives"}),
    "uscal-pooler": ("uscal", {"projection": "pooler"}),
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
    "carl-current": ("carl", {"negatives": 2, "positive": "current", "gamma": 0.3, "steps": 2}),
    "carl-total": ("carl", {"negatives": 2, "climb": "total"}),
    "rar-total": ("rar", {"climb": "total"}),
    "rar-start": ("rar", {"gamma": 0.3, "epsilon": 0.25}),
    "mlm-most": ("mlm", {"mlm_probability": 0.5}),
    "consert-cut": ("consert", {"first": "token-cutoff", "second": "dropout", "token_rate": 0.4}),
    "consert-adversarial": ("consert", {"first": "adversarial", "second": "shuffle"}),
    "acl-a2a-l2": ("acl-a2a", {"norm": "l2", "epsilon": 0.5, "step_size": 0.2, "steps": 3}),
    "acl-ds-mean": ("acl-ds", {"alpha": 0.5, "reduction": "mean", "norm": "l2", "epsilon": 0.5, "step_size": 0.2}),
    "dynacl-alone": ("dynacl", {"momentum": None, "steps": 2}),
    "dynacl-late": ("dynacl", {"period": 1}),
    "pgd-at-l2": ("pgd-at", {"epsilon": 0.3, "step_size": 0.1, "steps": 3, "norm": "l2"}),
    "trades-l2": ("trades", {"epsilon": 0.3, "step_size": 0.1, "steps": 3, "sigma": 0.02, "norm": "l2"}),
    "probe-pgd": ("probe", {"attack": "pgd"}),
    "uat-offline": ("uat", {"alpha": 0.3, "temperature": 2.0, "steps": 3}),
    "uat-online": ("uat", {"target": "online"}),
    "selfie-clean": ("selfie", {"clean": 1.0}),
    "selfie-adversarial": ("selfie", {"clean": 0.0, "norm": "l2", "epsilon": 0.3, "step_size": 0.1}),
}
"""Every method with its defaults, and settings of some that change what is computed."""

TEXT_CASES = [case for case, (name, _) in CASES.items() if METHODS[name].modality != "images"]
"""Those of them that a model of texts can be trained with."""

DRAWS = {"mlm", "carl", "consert", "smart", "alum", "acl-a2a", "acl-a2s", "acl-ds", "dynacl", "deacl"}
DRAWS |= {"pgd-at", "trades", "uat", "selfie"}
"""Methods that draw at random by design, whatever dropout; FreeLB's family does with a gamma (`draws`)."""


FACTS = TrainingInfo(
    num_examples=8,
    hidden_size=32,
    labels=random_batch(8)["labels"],
    epochs=4.0,
    vocab_size=len(VOCABULARY),
    mask_id=SPECIAL.index("[MASK]"),
    special_ids=tuple(range(len(SPECIAL))),
)
"""What a trainer would tell a method of the rows of ``random_batch(8)`` and a tiny model."""


def make(case: str, **training_info: Any) -> Method:
    """A fresh method of ``CASES``, told of `FACTS`; ``facts`` override them.

    CARL comes with full banks, its L_D on; DynACL with half of its training behind it; ``uat-offline`` with targets,
    and with labels for every third row.
    """
    name, settings = CASES[case]
    method, told = METHODS[name](**settings), replace(FACTS, **training_info)
    if isinstance(method, UAT) and case == "uat-offline":
        targets = torch.randn(told.num_examples, len(LABELS), generator=torch.Generator().manual_seed(6))
        method.set_targets(targets, torch.arange(told.num_examples) % 3 == 0)
    method.prepare(told)
    if isinstance(method, CARL):
        random = torch.Generator().manual_seed(5)
        for bank in (method.clean, method.adversarial):
            bank.update(
                torch.arange(told.num_examples), torch.randn(told.num_examples, told.hidden_size, generator=random), 0.0
            )
        method.seen.fill_(100 * told.num_examples)
    if isinstance(method, DynACL):
        method.seen.fill_(2 * told.num_examples)
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


def draws(method: Method) -> bool:
    """Whether a step draws at random without dropout."""
    probed = method.name == "probe" and hasattr(method, "ball")
    return method.name in DRAWS or probed or getattr(method, "gamma", 0) > 0


def ready(method: Method, model: nn.Module) -> None:
    """What a trainer does before training; a copy that is wanted has other weights: those of earlier on."""
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
    return Still() if (draws(method) if still is None else still) else nullcontext()


def losses_of(method: Method, model: nn.Module, batch: Any, still: bool | None = None) -> list[Loss]:
    """Every loss that the method yields, each back-propagated as the driver does.

    What a method draws is the same each time (`Still`), unless ``still`` is False. Batch norm's statistics stay.
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
    """Only what the method says that it needs."""
    extra = {"labels": ("labels",), "inputs": (), "pairs": ("positive", "negative")}[method.requires]
    inputs = ("pixel_values",) if "pixel_values" in full else ("input_ids", "attention_mask")
    return {name: full[name] for name in (*inputs, "index", *extra)}
