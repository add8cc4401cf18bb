"""The generator: decided by its key, uniform, and shares that contain one another."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contraverse.noise.draws import Draws


def draws(key: int = 0) -> Draws:
    return Draws(key.to_bytes(32, "little"))


def test_a_key_decides_every_number() -> None:
    assert [draws(3).below(1000) for _ in range(1)] == [draws(3).below(1000)]
    first, second, other = draws(1), draws(1), draws(2)
    numbers = [first.below(10**9) for _ in range(100)]
    assert numbers == [second.below(10**9) for _ in range(100)]
    assert numbers != [other.below(10**9) for _ in range(100)]


def test_the_numbers_are_those_of_blake2b() -> None:
    """A value for all time: BLAKE2b of the counter under the key, its last 64 bits first."""
    digest = blake2b((0).to_bytes(8, "little"), key=bytes(32)).digest()
    numbers = np.frombuffer(digest, "<u8")[::-1]
    stream = draws()
    assert [stream.below(1 << 64) for _ in range(8)] == numbers.tolist()
    again = blake2b((1).to_bytes(8, "little"), key=bytes(32)).digest()
    assert stream.below(1 << 64) == int(np.frombuffer(again, "<u8")[-1])


def test_numbers_are_uniform() -> None:
    stream = draws(5)
    counts = np.bincount([stream.below(7) for _ in range(70_000)], minlength=7)
    assert np.abs(counts - 10_000).max() < 400  # four standard deviations


@given(st.integers(0, 2**40), st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_share_begins_a_larger_one(key: int, count: int, one: float, other: float) -> None:
    small, large = sorted((one, other))
    few, many = (list(draws(key).share_of(range(count), share)) for share in (small, large))
    assert many[: len(few)] == few
    assert len(set(many)) == len(many)
    assert np.floor(large * count) - 1e-6 <= len(many) <= np.ceil(large * count)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.35, 0.5, 1.0])
def test_the_share_is_kept_on_average_in_short_texts_too(share: float) -> None:
    counts = [len(list(draws(key).share_of("abc", share))) for key in range(4000)]
    assert abs(np.mean(counts) / 3 - share) < 0.012
