"""Which tokens RAR and CARL reconstruct, and when the encoder learns from it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference import rar_reference as reference
from reference.driving import CASES, Watched, gradients, losses_of, make
from torch import Tensor

from contraverse.models import TextModel
from contraverse.types import Method

Make = Callable[..., TextModel]
both = pytest.mark.parametrize("name", ["rar", "carl"])


def build(name: str, **settings: Any) -> Method:
    """A method that was told of eight rows; CARL with RAR's loss."""
    own: dict[str, Any] = {"negatives": 2, "reconstruction": 0.1} if name == "carl" else {}
    CASES["mine"] = (name, own | settings)
    try:
        return make("mine")
    finally:
        del CASES["mine"]


def array(tensor: Tensor) -> Any:
    return tensor.detach().double().numpy()


@both
@pytest.mark.parametrize("skip", [False, True])
def test_special_tokens_are_left_out_on_request(tiny_model: Make, batch: Any, name: str, skip: bool) -> None:
    method = build(name, skip_special=skip)
    watched = Watched(tiny_model(dropout=0.0, heads=method.heads).train())
    loss = losses_of(method, watched, batch)[-1]
    scores, ids = watched.watch.passes()[-1].out.heads["reconstruction"], batch["input_ids"]
    real = batch["attention_mask"] * (ids > 4) if skip else batch["attention_mask"]  # below 5: [PAD] to [MASK]
    assert (real.sum(1) == batch["attention_mask"].sum(1) - 2 * skip).all()
    rows = [
        reference.reconstruction_loss(array(scores[i : i + 1]), [ids[i].tolist()], [real[i].tolist()]) for i in range(4)
    ]
    assert float(loss.parts["reconstruction"]) == pytest.approx(np.mean(rows), rel=1e-4)


@both
def test_in_a_warm_up_the_head_learns_alone(tiny_model: Make, batch: Any, name: str) -> None:
    """An epoch of eight rows is two steps of four; encoder, words and classifier learn what they would without it."""
    method = build(name, head_warmup=1.0, climb="ce")
    model = tiny_model(dropout=0.0, heads=method.heads).train()
    without = build(name, **({"weight": 0.0} if name == "rar" else {"reconstruction": 0.0}))
    expected = gradients(without, model, batch)
    exact = gradients(build(name, climb="ce"), model, batch)
    for step in range(3):
        got = gradients(method, model, batch)
        # CARL's normaliser and banks are of the step; the first one is compared, and which parameters learn in each.
        if step == 0:
            for parameter, grad in got.items():
                if not parameter.startswith("heads."):
                    torch.testing.assert_close(grad, expected[parameter], rtol=1e-4, atol=1e-6)
                else:
                    torch.testing.assert_close(grad, exact[parameter], rtol=1e-4, atol=1e-6)
        words = got["encoder.bert.embeddings.word_embeddings.weight"]
        unread = sorted(set(range(len(words))) - set(batch["input_ids"].unique().tolist()))
        assert bool(words[unread].any()) == (step == 2), "a tied decoder moves words that no row has"


@both
def test_a_warm_up_costs_no_pass_and_yields_as_often(tiny_model: Make, batch: Any, name: str) -> None:
    method = build(name, head_warmup=1.0)
    watched = Watched(tiny_model(dropout=0.0, heads=method.heads).train())
    for _ in range(3):
        watched.watch.calls.clear()
        assert len(losses_of(method, watched, batch)) == method.passes
        assert len(watched.watch.passes()) == method.passes


@both
def test_a_warm_up_goes_on_after_a_checkpoint(tiny_model: Make, batch: Any, name: str) -> None:
    method, again = build(name, head_warmup=1.0), build(name, head_warmup=1.0)
    losses_of(method, tiny_model(dropout=0.0, heads=method.heads).train(), batch)
    again.load_state_dict(method.state_dict())
    part: Any = again.reconstruction if name == "rar" else again.reconstructed
    assert int(part.seen) == 4
    assert part.warming
    part.count(4)
    assert not part.warming


def test_nothing_is_counted_without_a_warm_up() -> None:
    assert not build("rar").state_dict()
