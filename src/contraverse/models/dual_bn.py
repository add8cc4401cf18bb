"""Dual batch norm: statistics and weights of their own for clean and for adversarial inputs (Xie et al., 2020)."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from contraverse.types import Route


class DualBatchNorm(nn.Module):
    """Two batch norms in the place of one; ``route`` says which of them the next pass uses and updates.

    The route is read in the forward pass alone, so that a backward pass may come at any later time. It may not run
    the forward pass again, as checkpointing of activations does.

    Args:
        norm: both begin as it is; ``clean`` is it, ``adversarial`` a copy.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        # A group of processes cannot be copied, and both are to be synchronised over the same one.
        group = getattr(norm, "process_group", None)
        self.clean, self.adversarial = norm, copy.deepcopy(norm, {id(group): group})
        self.route: Route = "clean"

    def of(self, route: Route) -> _BatchNorm:
        """The batch norm of ``route``.

        Raises:
            ValueError: there is no such route.
        """
        return self.clean if _checked(route) == "clean" else self.adversarial

    def forward(self, x: Tensor) -> Tensor:
        """As batch norm does."""
        normed: Tensor = self.of(self.route)(x)
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


def to_plain(module: nn.Module, route: Route) -> nn.Module:
    """``module`` with every dual batch norm replaced by the one of ``route``, in place.

    Returns:
        ``module``, or what takes its place where it is a dual batch norm itself.

    Raises:
        ValueError: there is no such route.
    """
    _checked(route)
    return replaced(module, lambda part: part.of(route) if isinstance(part, DualBatchNorm) else None, {})


def replaced(
    module: nn.Module, new: Callable[[nn.Module], nn.Module | None], made: dict[nn.Module, nn.Module]
) -> nn.Module:
    """``module`` with what ``new`` makes in the place of a part; where that is None, the part's own parts are next."""
    if module not in made:
        found = new(module)
        made[module] = module if found is None else found
        if found is None:
            # named_children leaves out a module's second name.
            for name, child in list(module._modules.items()):
                if child is not None:
                    module._modules[name] = replaced(child, new, made)
    return made[module]


@contextmanager
def routed(module: nn.Module, route: Route) -> Iterator[None]:
    """Every dual batch norm in ``module`` on ``route`` inside, heads included; as they were afterwards.

    Raises:
        ValueError: there is no such route.
    """
    _checked(route)
    duals = [(dual, dual.route) for dual in module.modules() if isinstance(dual, DualBatchNorm)]
    for dual, _ in duals:
        dual.route = route
    try:
        yield
    finally:
        for dual, before in duals:
            dual.route = before


def _checked(route: Route) -> Route:
    if route not in get_args(Route):
        raise ValueError(f"a route is one of {', '.join(get_args(Route))}, not {route!r}")
    return route
