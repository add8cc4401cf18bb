"""Adversarial training by PGD, against the slow one."""

import copy

import pytest
import reference.supervised_image_reference as slow
import torch
from reference.attacking import close, fresh, grads, run, tracked
from reference.images import image_batch
from torch import Tensor

from contraverse.methods import PGDAdversarialTraining
from contraverse.methods.pgd_at import EPSILON, STEP_SIZE


def test_the_defaults_are_pixels_of_the_field() -> None:
    method = PGDAdversarialTraining()
    assert (EPSILON * 255, STEP_SIZE * 255) == (8, 2)
    assert (method.ball.epsilon, method.ball.step_size, method.steps) == (EPSILON, STEP_SIZE, 10)


@pytest.mark.parametrize("dual", [False, True])
def test_a_step_is_madrys(dual: bool) -> None:
    method, images = PGDAdversarialTraining(steps=4), image_batch()
    model = fresh(method, dual=dual)
    before = copy.deepcopy(model)
    passes, total = run(method, model, images)

    attacked = copy.deepcopy(before).eval()
    x, start = images["pixel_values"], passes[0].delta
    assert start is not None

    def loss(delta: Tensor) -> Tensor:
        logits = attacked({"pixel_values": x}, delta=delta, bn_branch="adversarial").logits
        return slow.adversarial_training(logits, images["labels"])

    delta = slow.climb(loss, x, start, epsilon=EPSILON, step_size=STEP_SIZE, steps=4)
    found = passes[-1].delta
    assert found is not None
    # A gradient that is all rounding may have either sign.
    assert ((found - delta).abs() < 1e-6).float().mean() > 0.995

    expected = slow.adversarial_training(before(images, delta=found, bn_branch="adversarial").logits, images["labels"])
    expected.backward()
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    close(grads(model), grads(before))


def test_without_an_epsilon_to_speak_of_it_is_cross_entropy() -> None:
    method, images = PGDAdversarialTraining(epsilon=1e-9, steps=1), image_batch()
    model = fresh(method)
    before = copy.deepcopy(model)
    _, total = run(method, model, images)
    expected = torch.nn.functional.cross_entropy(before(images).logits, images["labels"])
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)


def test_it_does_not_train_on_clean_images() -> None:
    method, images = PGDAdversarialTraining(steps=2), image_batch()
    passes, _ = run(method, fresh(method), images)
    assert all(one.delta is not None for one in passes)


def test_an_attack_in_training_mode_moves_the_statistics_at_each_step() -> None:
    """As Adv-SS does it; the default leaves them alone."""
    for mode, batches in (("eval", 1), ("train", 4)):
        method = PGDAdversarialTraining(steps=3, attack_mode=mode)  # type: ignore[arg-type]
        model = fresh(method)
        passes, _ = run(method, model, image_batch())
        assert tracked(model) == {"": {batches}}
        assert [one.training for one in passes] == [mode == "train"] * 3 + [True]
