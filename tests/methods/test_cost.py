"""The cost that a method states, in forward-units, counted exactly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.driving import CASES, gradients, make
from reference.tiny import random_batch
from torch.utils.flop_counter import FlopCounterMode

from contraverse.models import TextModel

STATED = {"ce": 3, "cl": 6, "at": 7, "scal": 7, "simcse": 6, "uscal": 10}


@pytest.fixture
def encoder(tiny_model: Callable[..., TextModel]) -> Callable[..., TextModel]:
    """Deep and wide enough that heads and attention's own products weigh little."""
    return lambda heads: tiny_model(
        heads=heads, hidden_size=64, num_hidden_layers=4, intermediate_size=256
    ).train()  # fmt: skip


def full_rows() -> dict[str, Any]:
    """Eight rows of 16 tokens, their positives and negatives as long."""
    batch = random_batch(8, 16)
    batch["input_ids"][batch["input_ids"] == 0] = 7
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    other = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {**batch, "positive": other, "negative": other}


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("case", list(CASES))
def test_the_stated_cost_is_the_counted_one(case: str, encoder: Callable[..., TextModel]) -> None:
    method, batch = make(case), full_rows()
    model = encoder(method.heads)
    forward = flops(lambda: model(batch, want=("tokens",)))
    assert forward > 0
    cost = flops(lambda: gradients(method, model, batch)) / forward
    stated = float(method.cost.removesuffix("F"))
    assert cost == pytest.approx(stated, rel=0.03)
    name = CASES[case][0]
    assert stated == STATED.get(name, stated)
