"""Random numbers that a key decides by hashing: the same on every machine, whatever was drawn before."""

import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import floor
from typing import TypeVar

Item = TypeVar("Item")

_BLOCK = struct.Struct("<8Q")
_RANGE = 1 << 64


class Draws:
    """A stream of random numbers: BLAKE2b of a key and a counter, eight numbers of 64 bits at a time.

    No state is shared with any other stream, and none with `random` or NumPy. Two streams of the same key are equal.

    Args:
        key: hashed; the stream depends on nothing else.
    """

    __slots__ = ("_block", "_key", "_pending", "eligible")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._block = 0
        self._pending: list[int] = []
        self.eligible = 0
        """Places that `share_of` chose among."""

    def below(self, limit: int) -> int:
        """An integer in [0, limit), each with the same probability to within 2^-64 of it."""
        if not self._pending:
            counter = self._block.to_bytes(8, "little")
            self._pending = list(_BLOCK.unpack(blake2b(counter, key=self._key).digest()))
            self._block += 1
        return self._pending.pop() * limit >> 64

    def choice(self, items: Sequence[Item]) -> Item:
        """One of ``items``."""
        return items[self.below(len(items))]

    def share_of(self, places: Sequence[Item], share: float) -> Iterator[Item]:
        """Yield the share ``share`` (0 to 1) of ``places``, each at most once, in random order.

        Their number is ``share * n`` rounded down or up at random, so that its mean is ``share * n`` for short texts
        too. What a smaller share of the same places yields is the beginning of what a larger one does, and whatever
        is drawn between two yields is the same for both.
        """
        self.eligible = count = len(places)
        places = list(places)
        for i in range(self.count(share * count)):
            other = i + self.below(count - i)
            places[i], places[other] = places[other], places[i]
            yield places[i]

    def count(self, mean: float) -> int:
        """``mean`` rounded down or up at random, so that it is ``mean`` on average."""
        whole = floor(mean + 1e-9)
        return whole + (self.below(_RANGE) < (mean - whole) * _RANGE)
