"""An independent bfloat16 computation, by which the error of autocast is judged on any processor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default,
    aten.bmm.default,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten.convolution_backward.default,
}
"""What autocast computes in bfloat16, in the forward and in the backward pass, as the dispatcher sees it."""
DRAWS = 4
"""Roundings that `within_rounding` tries at most."""


class RoundedProducts(TorchDispatchMode):
    """Rounds what matrix products and convolutions read and give to bfloat16; all else stays in fp32.

    Rounding is at random, up or down in proportion to the distance (``seed``), so that several seeds show how far
    a result of bfloat16 may lie from the exact one: another processor adds in another order, and rounds otherwise.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)

    def rounded(self, x: Any) -> Any:
        """``x`` rounded, if it is a tensor of fp32."""
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            return x
        bits = x.contiguous().view(torch.int32)
        dither = torch.randint(0, 1 << 16, x.shape, generator=self.random, dtype=torch.int32)
        return ((bits + dither) & -(1 << 16)).view(torch.float32).view(x.shape)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in PRODUCTS:
            return func(*args, **(kwargs or {}))
        out = func(*map(self.rounded, args), **(kwargs or {}))
        return tuple(map(self.rounded, out)) if isinstance(out, tuple) else self.rounded(out)


def within_rounding(
    compute: Callable[[], Tensor], exact: Tensor, dim: int | None = None, *, half: Tensor | None = None
) -> bool:
    """True where ``half``, else ``compute()`` under bfloat16 autocast, is as near to ``exact`` as bfloat16 is.

    As near is twice as far as the farthest of `DRAWS` random roundings (`RoundedProducts`): a bound that follows from
    the precision and from how well conditioned the computation is, and not from the processor. The farthest of the
    first few is a smaller bound than that of all, so drawing ends as soon as it is met: the verdict is the same.
    Distances are relative, of the whole tensor or, with ``dim``, of each row along the others.

    Raises:
        AssertionError: rounding decides the result (a relative distance of a half), so that nothing would be tested.
    """

    def distance(result: Tensor) -> Tensor:
        return (result.detach() - exact).norm(dim=dim) / exact.norm(dim=dim)

    if half is None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = compute()
    distances: list[Tensor] = []
    for seed in range(DRAWS):
        with RoundedProducts(seed):
            distances.append(distance(compute()))
        allowed = 2 * torch.stack(distances).amax(0)
        assert (allowed < 0.5).all(), f"rounding decides: a relative distance of {allowed}"
        if bool((distance(half) <= allowed).all()):
            return True
    return False
