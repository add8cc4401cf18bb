"""Dropout that several passes of a step share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SharedDropout:
    """The same dropout masks in every forward pass of a step: ``with masks(): out = model(...)``.

    The first pass draws from the device's generators; each later one draws the same again and leaves them where
    the first did. So a step draws as much as one pass, whatever module it is that draws: FreeLB's authors hand masks
    to the modules that they rewrote, and miss the others.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: tuple[Tensor, Tensor | None] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Around one forward pass."""
        cuda = [self.device] if self.device.type == "cuda" else []
        if self._before is None:
            self._before = torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if cuda else None
            yield
            return
        with torch.random.fork_rng(devices=cuda):
            cpu, other = self._before
            torch.set_rng_state(cpu)
            if other is not None:
                torch.cuda.set_rng_state(other, self.device)
            yield
