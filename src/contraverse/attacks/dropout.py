"""Random draws that several passes share: dropout masks of a step, and those of a pass that is run again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RandomState:
    """State of the random generators of the CPU and of ``device``, at the moment."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw from this state inside; the generators are afterwards as they were before."""
        with torch.random.fork_rng(devices=[] if self.cuda is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield


class SharedDropout:
    """The same dropout masks in every forward pass of a step: ``with masks(): out = model(...)``.

    The first pass draws from the device's generators; each later one draws the same again and leaves them where
    the first did. So a step draws as much as one pass, whatever module it is that draws: FreeLB's authors hand masks
    to the modules that they rewrote, and miss the others.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._first: RandomState | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Around one forward pass."""
        if self._first is None:
            self._first = RandomState(self.device)
            yield
            return
        with self._first.again():
            yield
