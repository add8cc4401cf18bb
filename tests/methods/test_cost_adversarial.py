"""What FreeLB's family costs at other settings than the defaults, in forward-units, counted exactly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.driving import gradients
from reference.tiny import random_batch
from torch.utils.flop_counter import FlopCounterMode

from contraverse.methods import METHODS
from contraverse.models import TextModel


@pytest.fixture
def encoder(tiny_model: Callable[..., TextModel]) -> Callable[..., TextModel]:
    """Deep and wide enough that a classifier and attention's own products weigh little."""
    return lambda heads: tiny_model(
        heads=heads, hidden_size=64, num_hidden_layers=4, intermediate_size=256
    ).train()  # fmt: skip


def full_rows() -> dict[str, Any]:
    """Eight rows of 16 real tokens."""
    batch = random_batch(8, 16)
    batch["input_ids"][batch["input_ids"] == 0] = 7
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    return batch


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("count", ["passes", "ascents"])
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name", ["freelb", "rar"])
def test_a_pass_costs_three_forwards(name: str, steps: int, count: str, encoder: Callable[..., TextModel]) -> None:
    """3K, or 3 (K + 1) where ascents are counted, whatever the start: the ascent's gradient is training's own.

    F is a pass with all that the method reads of it; RAR's decoder over the vocabulary is no small part of that.
    """
    method, batch = METHODS[name](steps=steps, count=count, gamma=0.3), full_rows()
    model = encoder(method.heads)
    forward = flops(lambda: model(batch, want=("logits", *method.heads)))
    passes = steps + (count == "ascents")
    assert flops(lambda: gradients(method, model, batch)) / forward == pytest.approx(3 * passes, rel=0.03)
    assert method.cost == f"{3 * passes}F"
    assert method.passes == passes
