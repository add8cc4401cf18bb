"""Activations that autograd holds, counted while a step runs."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn


class Graphs:
    """Counts, inside, the bytes that graphs hold for their backward passes; ``peak``: the most at once.

    Weights, buffers and the batch itself do not count. What several graphs hold counts once.
    """

    def __init__(self, *owners: Any) -> None:
        self.now = self.peak = 0
        self._alive: Counter[int] = Counter()
        self._own = {tensor.untyped_storage().data_ptr() for owner in owners for tensor in _tensors(owner)}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda packed: packed[0])

    def _pack(self, value: Tensor) -> tuple[Tensor, Any]:
        place = value.untyped_storage().data_ptr()
        # Without its history: an output that its own graph holds would keep that graph alive.
        return value.detach(), None if place in self._own else _Held(self, place, value.untyped_storage().nbytes())

    def __enter__(self) -> "Graphs":
        self._hooks.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._hooks.__exit__(*exc)


class _Held:
    def __init__(self, graphs: Graphs, place: int, size: int) -> None:
        self.graphs, self.place, self.size = graphs, place, size
        if not graphs._alive[place]:
            graphs.now += size
            graphs.peak = max(graphs.peak, graphs.now)
        graphs._alive[place] += 1

    def __del__(self) -> None:
        self.graphs._alive[self.place] -= 1
        if not self.graphs._alive[self.place]:
            self.graphs.now -= self.size


def _tensors(owner: Any) -> list[Tensor]:
    if isinstance(owner, nn.Module):
        return [*owner.parameters(), *owner.buffers()]
    if isinstance(owner, dict):
        return [tensor for value in owner.values() for tensor in _tensors(value)]
    return [owner] if isinstance(owner, Tensor) else []
