"""Draws that belong to rows: so that some rows of a batch draw what they would draw within the whole of it."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_LIKE = {aten.rand_like, aten.randn_like, aten.randint_like, aten.bernoulli, aten.bernoulli_, aten.uniform_,
         aten.normal_, aten.random_, aten.exponential_, aten.native_dropout}  # fmt: skip
_SIZED = {aten.rand, aten.randn, aten.randint}


class RowsOf(TorchDispatchMode):
    """Within it, what is drawn for ``rows`` rows is drawn for ``parts`` times as many, of which part ``number`` stays.

    What is drawn for twice as many is for two views: the first ones of all rows, then the second ones. With the same
    seed on every rank, two ranks of four rows so draw what one process with eight rows does. A draw whose first
    dimension is neither is left as it is: the same on every rank.
    """

    def __init__(self, number: int, parts: int, rows: int) -> None:
        super().__init__()
        self.number, self.parts, self.rows = number, parts, rows

    def _mine(self, drawn: Tensor) -> Tensor:
        views = drawn.split(self.parts * self.rows)
        return torch.cat([view[self.number * self.rows : (self.number + 1) * self.rows] for view in views])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        if packet in _LIKE and args[0].dim() > 0 and len(args[0]) in (self.rows, 2 * self.rows):
            whole = torch.cat([args[0]] * self.parts)
            drawn = func(whole, *args[1:], **kwargs)
            if func._schema.is_mutable:
                return args[0].copy_(self._mine(drawn))
            return tuple(map(self._mine, drawn)) if isinstance(drawn, tuple) else self._mine(drawn)
        if packet in _SIZED:
            place = next(i for i, argument in enumerate(args) if isinstance(argument, (list, tuple)))
            size = list(args[place])
            if size and size[0] in (self.rows, 2 * self.rows):
                size[0] *= self.parts
                return self._mine(func(*args[:place], size, *args[place + 1 :], **kwargs)).contiguous()
        return func(*args, **kwargs)


class Still(TorchDispatchMode):
    """Within it, what is drawn is the same at every start, for every row, and whatever the padding; dropout is not.

    So that a method that draws can be compared with itself on permuted, longer or repeated batches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(11)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        if packet not in _LIKE | _SIZED or packet in (aten.native_dropout, aten.bernoulli_):
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if out.dim() == 0:
            return out
        # More than any batch here has, so that a wider one draws the same where the narrow one did.
        sizes = [1, *(max(64, n) for n in out.shape[1:])]
        if out.dtype.is_floating_point:
            normal = packet in (aten.randn, aten.randn_like, aten.normal_)
            drawn = (torch.randn if normal else torch.rand)(sizes, generator=self.generator)
            if packet is aten.uniform_:
                low, high = (*args[1:], *[0.0, 1.0][len(args) - 1 :])
                drawn = low + (high - low) * drawn
            elif packet is aten.normal_:
                mean, std = (*args[1:], *[0.0, 1.0][len(args) - 1 :])
                drawn = mean + std * drawn
            elif packet is aten.bernoulli:
                drawn = (drawn < args[0].max().item()).float()
        else:
            limits = [a for a in args if isinstance(a, int)]
            low, high = (0, limits[0]) if len(limits) == 1 else limits[:2]
            drawn = torch.randint(low, high, sizes, generator=self.generator)
        for place, n in enumerate(out.shape[1:], 1):
            drawn = drawn.narrow(place, 0, n)
        return out.copy_(drawn.to(out.dtype))
