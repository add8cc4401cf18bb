"""Dual batch norm: statistics and weights of their own for clean and for adversarial inputs (Xie et al., 2020)."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from contraverse.models.modes import setting
from contraverse.types import BNBranch


class DualBatchNorm(nn.Module):
    """Two batch norms in the place of one; ``bn_branch`` says which of them the next pass uses and updates.

    The branch is read in the forward pass alone, so that a backward pass may come at any later time. It may not run
    the forward pass again, as checkpointing of activations does.

    Args:
        norm: becomes ``clean``; ``adversarial`` starts as a copy of it.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        # A group of processes cannot be copied, and both are to be synchronised over the same one.
        group = getattr(norm, "process_group", None)
        self.clean, self.adversarial = norm, copy.deepcopy(norm, {id(group): group})
        self.bn_branch: BNBranch = "clean"

    def of(self, bn_branch: BNBranch) -> _BatchNorm:
        """The batch norm of ``bn_branch``.

        Raises:
            ValueError: there is no such branch.
        """
        return self.clean if _checked(bn_branch) == "clean" else self.adversarial

    def forward(self, x: Tensor) -> Tensor:
        """As batch norm does."""
        normed: Tensor = self.of(self.bn_branch)(x)
        return normed


def to_dual(module: nn.Module) -> nn.Module:
    """``module`` with every batch norm in it made dual, in place; one that is dual stays as it is.

    Batch norm of every dimension, `SyncBatchNorm` included, and what is derived from them. One that is used in several
    places stays one. Layer, group and instance norm, which keep no statistics of a batch, are left alone.

    Returns:
        ``module``, or what takes its place where it is a batch norm itself.
    """

    def dual(part: nn.Module) -> nn.Module | None:
        if isinstance(part, _BatchNorm):
            return DualBatchNorm(part)
        return part if isinstance(part, DualBatchNorm) else None

    return replaced(module, dual, {})


def to_plain(module: nn.Module, bn_branch: BNBranch) -> nn.Module:
    """``module`` with every dual batch norm replaced by the one of ``bn_branch``, in place.

    Returns:
        ``module``, or what takes its place where it is a dual batch norm itself.

    Raises:
        ValueError: there is no such branch.
    """
    _checked(bn_branch)
    return replaced(module, lambda part: part.of(bn_branch) if isinstance(part, DualBatchNorm) else None, {})


def replaced(
    module: nn.Module, new: Callable[[nn.Module], nn.Module | None], made: dict[nn.Module, nn.Module]
) -> nn.Module:
    """``module`` with every part replaced by ``new(part)``; where that is None, its children are tried instead."""
    if module not in made:
        replacement = new(module)
        made[module] = module if replacement is None else replacement
        if replacement is None:
            # named_children leaves out a module's second name.
            for name, child in list(module._modules.items()):
                if child is not None:
                    module._modules[name] = replaced(child, new, made)
    return made[module]


@contextmanager
def routed(module: nn.Module, bn_branch: BNBranch) -> Iterator[None]:
    """Every dual batch norm in ``module`` on ``bn_branch`` inside, heads included; as they were afterwards.

    Raises:
        ValueError: there is no such branch.
    """
    _checked(bn_branch)
    with setting([dual for dual in module.modules() if isinstance(dual, DualBatchNorm)], "bn_branch", bn_branch):
        yield


def _checked(bn_branch: BNBranch) -> BNBranch:
    if bn_branch not in get_args(BNBranch):
        raise ValueError(f"a branch is one of {', '.join(get_args(BNBranch))}, not {bn_branch!r}")
    return bn_branch
