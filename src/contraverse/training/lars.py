"""LARS, with which SimCLR and ACL pre-train, and the optimizers by name."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from contraverse.errors import UserError


class LARS(Optimizer):
    """SGD with momentum whose rate is scaled for each tensor, after You, Gitman and Ginsburg (2017), Algorithm 1.

    For each tensor w with gradient g, in a step of rate gamma::

        lambda = trust * ||w|| / (||g|| + weight_decay * ||w||)        (1 where ||w|| or ||g|| is 0)
        v      = momentum * v + gamma * lambda * (g + weight_decay * w)
        w      = w - v

    ACL pre-trains with rate 5, momentum 0.9, trust 1e-3 and weight decay 1e-6, every tensor scaled. SimCLR leaves
    biases and batch norms out: ``exclude_vectors``.

    Args:
        params: tensors, or groups of them with settings of their own.
        lr: the global rate gamma, >= 0.
        momentum: in [0, 1).
        weight_decay: >= 0.
        trust: the coefficient of the scaling, > 0.
        exclude_vectors: whether tensors of one dimension (biases, batch norms) have lambda = 1 and no weight decay.

    Raises:
        UserError: a setting is out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
        exclude_vectors: bool = False,
    ) -> None:
        if not (lr >= 0 and 0 <= momentum < 1 and weight_decay >= 0 and trust > 0):
            raise UserError(
                f"LARS cannot run with lr {lr}, momentum {momentum}, weight_decay {weight_decay}, trust {trust}",
                hint="lr and weight_decay are at least 0, momentum is in [0, 1), trust above 0",
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "exclude_vectors": exclude_vectors,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` computes the loss anew, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                excluded = group["exclude_vectors"] and w.dim() <= 1
                decay = 0.0 if excluded else group["weight_decay"]
                update = w.grad.add(w, alpha=decay)
                if not excluded:
                    update *= _ratio(w, w.grad, group["trust"], decay)
                state = self.state[w]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(w)
                v = state["momentum_buffer"].mul_(group["momentum"]).add_(update, alpha=group["lr"])
                w.sub_(v)
        return loss


def _ratio(w: Tensor, g: Tensor, trust: float, decay: float) -> Tensor:
    """lambda, a scalar on the tensor's device: read nowhere on the CPU, so that a GPU does not wait."""
    size, slope = w.norm(), g.norm()
    ratio = trust * size / (slope + decay * size)
    return torch.where((size > 0) & (slope > 0), ratio, 1.0)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"lars": LARS, "sgd": SGD}
"""By name."""
SETTINGS = {
    "lars": {"momentum", "weight_decay", "trust", "exclude_vectors"},
    "sgd": {"momentum", "weight_decay", "nesterov"},
}
"""Settings of each optimizer."""


def build_optimizer(name: str, parameters: Iterable[Any], learning_rate: float, **settings: Any) -> Optimizer:
    """An optimizer of `OPTIMIZERS`.

    Args:
        name: ``"lars"`` or ``"sgd"``.
        parameters: tensors, or groups of them.
        learning_rate: at most, where a schedule scales it.
        settings: by the optimizer's own names: ``momentum``, ``weight_decay``; ``nesterov`` (sgd); ``trust``,
            ``exclude_vectors`` (lars).

    Raises:
        UserError: no such optimizer, a setting that it does not have, or one out of its range.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"no optimizer is called {name!r}", hint=f"use {' or '.join(OPTIMIZERS)}")
    if unknown := settings.keys() - SETTINGS[name]:
        hint = f"it has {', '.join(sorted(SETTINGS[name]))}"
        raise UserError(f"{name} has no setting {', '.join(sorted(unknown))}", where="train.optimizer", hint=hint)
    try:
        return OPTIMIZERS[name](parameters, lr=learning_rate, **settings)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be built: {error}", where="train.optimizer") from error
