import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contraverse.evaluation import alignment, uniformity

vectors = hnp.arrays(np.float64, st.tuples(st.integers(2, 9), st.just(3)), elements=st.floats(0.1, 3)).map(
    lambda x: x * np.resize([1, -1, 1, 1], x.shape)
)


def unit(x: np.ndarray) -> list[np.ndarray]:
    return [row / math.sqrt(sum(v * v for v in row)) for row in x]


@given(vectors, st.sampled_from([1.0, 2.0]), st.integers(1, 10))
def test_both_equal_brute_force(x: np.ndarray, power: float, block: int) -> None:
    y = x[::-1] + 0.5
    distances = [math.sqrt(((a - b) ** 2).sum()) for a, b in zip(unit(x), unit(y), strict=True)]
    assert alignment(x, y, alpha=power) == pytest.approx(sum(d**power for d in distances) / len(x), abs=1e-9)

    rows = unit(x)
    pairs = [
        math.exp(-power * ((rows[i] - rows[j]) ** 2).sum()) for i in range(len(rows)) for j in range(len(rows)) if i < j
    ]
    assert uniformity(x, t=power, block=block) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-9)


def test_the_ends_of_the_scales() -> None:
    x = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert alignment(x, 3 * x) == pytest.approx(0)
    assert alignment(x, -x) == pytest.approx(4)
    assert uniformity(np.array([[1.0, 1.0], [2.0, 2.0], [0.5, 0.5]])) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)


def test_a_tensor_in_single_precision_is_taken_too() -> None:
    x = torch.randn(2000, 8, requires_grad=True)
    assert uniformity(x) == pytest.approx(uniformity(x.detach().numpy().astype(np.float64), block=300), abs=1e-6)
    assert alignment(x, x) == 0.0


def test_too_few_rows_or_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        uniformity(np.ones((1, 3)))
    with pytest.raises(ValueError, match="pairs"):
        alignment(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="pairs"):
        alignment(np.ones((0, 3)), np.ones((0, 3)))
