"""TRADES, against the slow one."""

import copy

import pytest
import reference.supervised_image_reference as slow
import torch
from reference.attacking import close, fresh, grads, run
from reference.images import image_batch
from reference.tiny import random_batch
from torch import Tensor

from contraverse.attacks import perturbation_inputs
from contraverse.methods import TRADES
from contraverse.methods.pgd_at import EPSILON, STEP_SIZE
from contraverse.methods.trades import NoisyStart


def test_the_weight_is_acls() -> None:
    assert TRADES().beta == 6


@pytest.mark.parametrize("dual", [False, True])
def test_a_step_is_the_papers(dual: bool) -> None:
    method, images = TRADES(steps=3, sigma=0.02, beta=2.5), image_batch()
    model = fresh(method, dual=dual)
    before = copy.deepcopy(model)
    passes, total = run(method, model, images)

    attacked, x = copy.deepcopy(before).eval(), images["pixel_values"]
    target, start = attacked(images).logits.detach(), passes[1].delta
    assert start is not None

    def loss(delta: Tensor) -> Tensor:
        return slow.trades_attacked(target, attacked({"pixel_values": x}, delta=delta, bn_branch="adversarial").logits)

    delta = slow.climb(loss, x, start, epsilon=EPSILON, step_size=STEP_SIZE, steps=3)
    found = passes[-1].delta
    assert found is not None
    assert ((found - delta).abs() < 1e-6).float().mean() > 0.995

    clean = before(images).logits  # first, where one batch norm sees both
    adversarial = before(images, delta=found, bn_branch="adversarial").logits
    expected = slow.trades(clean, adversarial, images["labels"], 2.5)
    expected.backward()
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    close(grads(model), grads(before))


def test_the_start_differs_from_the_image() -> None:
    """At the image itself the gradient of KL is rounding noise, whose sign still moves 2/255."""
    method, images = TRADES(steps=1), image_batch(rows=8)
    torch.manual_seed(5)  # the seed of the pixels would draw noise that goes with them
    passes, _ = run(method, fresh(method), images)
    start = passes[1].delta
    assert start is not None
    inside = start[1:]  # the first image is all 0 and 1: half of its noise is cut
    assert (inside != 0).float().mean() > 0.99
    assert float(inside.std()) == pytest.approx(1e-3, rel=0.1)
    assert (start[0] == 0).float().mean() == pytest.approx(0.5, abs=0.15)


def test_the_start_is_brought_into_the_ball() -> None:
    ball, images = NoisyStart(EPSILON, STEP_SIZE, "linf", sigma=1.0), image_batch()
    inputs = perturbation_inputs(fresh(TRADES()), images)
    start = ball.init(inputs, random=True)
    assert start.abs().max() <= EPSILON
    assert start.requires_grad
    assert (ball.init(inputs) == 0).all()


def test_the_divergence_trains_the_clean_prediction_too() -> None:
    """Trap: a clean side that is detached has the same value and another gradient."""
    images, found = image_batch(), []
    for beta in (0.0, 6.0):
        method = TRADES(steps=1, beta=beta)
        model = fresh(method, dual=True)
        run(method, model, images)
        found.append(grads(model)["encoder.bn1.clean.weight"])
    assert not torch.allclose(found[0], found[1], rtol=1e-3)


def test_the_clean_prediction_that_is_attacked_is_made_once() -> None:
    """Others make it anew at each step, or twice in training."""
    method = TRADES(steps=3)
    passes, _ = run(method, fresh(method), image_batch())
    assert [(one.delta is None, one.training) for one in passes] == [
        (True, False), (False, False), (False, False), (False, False), (True, True), (False, True),
    ]  # fmt: skip


def test_scores_of_a_regression_are_held_together(tiny_model: object) -> None:
    model = tiny_model(labels=("score",), dropout=0.0).train()  # type: ignore[operator]
    batch = random_batch()
    batch["labels"] = torch.rand(4)
    (loss,) = TRADES(steps=2).losses(model, batch)
    assert loss.parts["kl"] > 0
    loss.total.backward()
