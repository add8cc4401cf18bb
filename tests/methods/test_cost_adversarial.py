"""What FreeLB's family costs at other settings than the defaults, in forward-units, counted exactly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.driving import CASES, gradients, make
from reference.tiny import random_batch
from torch.utils.flop_counter import FlopCounterMode

from contraverse.attacks import perturbation_inputs
from contraverse.functional import supervised_loss
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
@pytest.mark.parametrize(("name", "settings"), [("freelb", {}), ("rar", {"climb": "total"}), ("rar", {"climb": "ce"})])
def test_a_pass_costs_three_forwards(
    name: str, settings: dict[str, Any], steps: int, count: str, encoder: Callable[..., TextModel]
) -> None:
    """3K, or 3 (K + 1) where ascents are counted, whatever the start: the ascent's gradient is training's own.

    Of RAR's total it is. That of L_C alone is an input gradient more for each ascent.

    F is a pass with all that the method reads of it; RAR's decoder over the vocabulary is no small part of that.
    """
    method, batch = METHODS[name](steps=steps, count=count, gamma=0.3, **settings), full_rows()
    model = encoder(method.heads)
    forward = flops(lambda: model(batch, want=("logits", *method.heads)))
    passes = steps + (count == "ascents")
    expected = 3 * passes + (passes - 1) * (settings.get("climb") == "ce")
    assert flops(lambda: gradients(method, model, batch)) / forward == pytest.approx(expected, rel=0.03)
    assert method.cost == f"{expected}F"
    assert method.passes == passes


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("adversary", ["first", "last"])
@pytest.mark.parametrize("climb", ["ce", "total"])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("positive", ["bank", "current"])
def test_carl_costs_what_it_states_with_either_positive(
    positive: str,
    gamma: float,
    climb: str,
    adversary: str,
    steps: int,
    encoder: Callable[..., TextModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3K, 1 for each ascent from a pass that has L_D or waits for it; 3 more for a clean pass with a random start."""
    settings = {"positive": positive, "gamma": gamma, "climb": climb, "adversary": adversary, "steps": steps}
    monkeypatch.setitem(CASES, "mine", ("carl", settings))
    method, batch = make("mine", hidden_size=64), full_rows()
    model = encoder(method.heads)
    forward = flops(lambda: model(batch, want=("logits",)))
    counted = flops(lambda: gradients(method, model, batch)) / forward
    clean, first = gamma == 0, adversary == "first" and steps == 3
    ascents = clean + first if climb == "ce" else clean and positive == "current"
    assert method.cost == f"{3 * (steps + (gamma > 0)) + ascents}F"
    assert counted == pytest.approx(float(method.cost.removesuffix("F")), rel=0.03)


@pytest.mark.parametrize("name", ["rar", "carl"])
def test_climbing_the_classification_loss_costs_an_input_gradient_of_the_encoder_alone(
    name: str, encoder: Callable[..., TextModel]
) -> None:
    """Not of RAR's decoder, which is as much as a small encoder: L_C's gradient does not pass through it."""
    batch, counted = full_rows(), {}
    for climb in ("ce", "total"):
        CASES["mine"] = (name, {"climb": climb, "reconstruction": 0.1} if name == "carl" else {"climb": climb})
        try:
            method = make("mine", hidden_size=64)
        finally:
            del CASES["mine"]
        model = encoder(method.heads)
        counted[climb] = flops(lambda method=method, model=model: gradients(method, model, batch))
    delta = torch.zeros_like(perturbation_inputs(model, batch).values, requires_grad=True)
    ce = supervised_loss(model(batch, delta=delta).logits, batch["labels"])
    ascent = flops(lambda: torch.autograd.grad(ce, delta))
    assert counted["ce"] - counted["total"] == (method.passes - 1) * ascent
