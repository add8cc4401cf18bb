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
            alike: dict[tuple[bool, torch.device, torch.dtype], list[Tensor]] = {}
            for w in group["params"]:
                if w.grad is not None:
                    excluded = group["exclude_vectors"] and w.dim() <= 1
                    alike.setdefault((excluded, w.device, w.dtype), []).append(w)
            for (excluded, _, _), weights in alike.items():
                self._step_together(weights, group, excluded)
        return loss

    def _step_together(self, weights: list[Tensor], group: dict[str, Any], excluded: bool) -> None:
        """Move ``weights``, of one device and type, by a few operations over the list: a GPU starts few kernels."""
        gradients: list[Tensor] = [w.grad for w in weights if w.grad is not None]
        decay = 0.0 if excluded else group["weight_decay"]
        updates = torch._foreach_add(gradients, weights, alpha=decay)
        if not excluded:
            torch._foreach_mul_(updates, _ratios(weights, gradients, group["trust"], decay))
        for w in weights:
            if "momentum_buffer" not in self.state[w]:
                self.state[w]["momentum_buffer"] = torch.zeros_like(w)
        velocities = [self.state[w]["momentum_buffer"] for w in weights]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates, alpha=group["lr"])
        torch._foreach_sub_(weights, velocities)


def _ratios(weights: list[Tensor], gradients: list[Tensor], trust: float, decay: float) -> list[Tensor]:
    """lambda of each tensor, scalars on its device: read nowhere on the CPU, so that a GPU does not wait."""
    sizes = torch.stack(torch._foreach_norm(weights))  # (P,)
    slopes = torch.stack(torch._foreach_norm(gradients))  # (P,)
    ratios = trust * sizes / (slopes + decay * sizes)
    return list(torch.where((sizes > 0) & (slopes > 0), ratios, 1.0).unbind())


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
