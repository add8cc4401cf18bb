"""Attacks on pixels: inside the ball and inside [0, 1], and the model as it was afterwards."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.images import STD, buffers, image_batch, tiny
from torch import Tensor

from contraverse.attacks import NormBall, apgd, perturbation_inputs, pgd
from contraverse.functional import norm
from contraverse.models import evaluating
from contraverse.models.image import ImageModel
from contraverse.types import BNBranch, Inputs

EPSILON, STEP = 8 / 255, 2 / 255
LINF = NormBall(EPSILON, STEP, "linf")
L2 = NormBall(0.5, 0.125)
BALLS = {"linf": LINF, "l2": L2}
balls = pytest.mark.parametrize("kind", list(BALLS))
BOX = torch.ones(1, 1, 1, 1, dtype=torch.bool)


def loss_of(model: ImageModel, batch: Any, bn_branch: BNBranch = "clean") -> Callable[[Tensor], Tensor]:
    def loss(delta: Tensor) -> Tensor:
        logits = model(batch, delta=delta, bn_branch=bn_branch).logits
        assert logits is not None
        return F.cross_entropy(logits, batch["labels"], reduction="none")

    return loss


def in_box(pixels: Tensor, delta: Tensor) -> bool:
    perturbed = pixels + delta
    return bool(perturbed.min() >= 0 and perturbed.max() <= 1)


@given(seed=st.integers(0, 2**31), epsilon=st.sampled_from([0.0, 0.5 / 255, 2 / 255, EPSILON, 0.0314, 0.3, 2.0]))
@settings(max_examples=30)
def test_no_pixel_leaves_the_box_or_the_ball_by_a_single_bit(seed: int, epsilon: float) -> None:
    """Traps 8 and 16: compared in the pixels' own precision, without a tolerance; at the bounds too."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(2, 3, 5, 5, generator=random)
    pixels[0] = (pixels[0] * 255).round() / 255
    pixels[1, 0] = pixels[1, 0].round()
    inputs = Inputs(pixels, BOX, 0.0, 1.0)
    ball = NormBall(epsilon, epsilon / 4 + 1e-3, "linf")
    limit = torch.tensor(epsilon)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        delta = ball.init(inputs, random=True)
    for _ in range(6):
        assert delta.abs().max() <= limit
        assert in_box(pixels, delta)
        delta = ball.step(delta, torch.randn(delta.shape, generator=random), inputs)
    if epsilon == 0:
        assert (delta == 0).all()


def test_a_step_that_would_leave_the_box_ends_on_its_border() -> None:
    inputs = Inputs(torch.tensor([0.0, 0.01, 0.5, 0.99, 1.0]).reshape(1, 1, 1, 5), BOX, 0.0, 1.0)
    ball = NormBall(0.1, 0.1, "linf")
    up = ball.step(ball.init(inputs), torch.ones(1, 1, 1, 5), inputs)
    down = ball.step(ball.init(inputs), -torch.ones(1, 1, 1, 5), inputs)
    torch.testing.assert_close((inputs.values + up).flatten(), torch.tensor([0.1, 0.11, 0.6, 1.0, 1.0]))
    torch.testing.assert_close((inputs.values + down).flatten(), torch.tensor([0.0, 0.0, 0.4, 0.89, 0.9]))
    assert up.is_leaf
    assert up.requires_grad


def test_text_has_no_box() -> None:
    values = torch.tensor([[[5.0, -3.0]]])
    inputs = Inputs(values, torch.ones(1, 1, 1, dtype=torch.bool))
    delta = NormBall(None, 1.0, "linf").step(torch.zeros_like(values), torch.tensor([[[1.0, -1.0]]]), inputs)
    assert torch.equal(delta, torch.tensor([[[1.0, -1.0]]]))


@balls
@pytest.mark.parametrize("random_start", [False, True])
def test_an_attack_stays_in_the_ball_and_raises_the_loss(kind: str, random_start: bool) -> None:
    model, batch = tiny(), image_batch()
    inputs, loss = perturbation_inputs(model, batch), loss_of(model, batch)
    delta = pgd(loss, BALLS[kind], inputs, steps=5, random_start=random_start, restarts=2).delta
    limit = torch.tensor(BALLS[kind].epsilon)
    assert (norm(delta, kind) <= limit * (1 if kind == "linf" else 1 + 1e-6)).all()  # type: ignore[arg-type]
    assert in_box(batch["pixel_values"], delta)
    with torch.no_grad():
        before, after = loss(torch.zeros_like(delta)), loss(delta)
    assert (after > before).all()


@balls
def test_every_attacked_input_is_in_the_box_as_the_network_sees_it(kind: str) -> None:
    """Trap 9: the random start too, and both on the pixels and, by trap 8, after the normalisation."""
    model, batch = tiny(), image_batch()
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach()))
    with torch.no_grad():
        model(batch)
    pgd(loss_of(model, batch), BALLS[kind], perturbation_inputs(model, batch), steps=3, random_start=True)
    assert len(seen) == 5
    low, high = (model.normalise(torch.full((1, 3, 1, 1), v)) for v in (0.0, 1.0))
    for x in seen:
        assert (x >= low).all()
        assert (x <= high).all()
    if kind == "linf":
        std = torch.tensor(STD).reshape(3, 1, 1)
        largest = torch.stack([((x - seen[0]) * std).abs().max() for x in seen[1:]])
        assert (largest <= EPSILON + 1e-6).all()
        assert largest.max() > 0.9 * EPSILON


@balls
def test_an_epsilon_of_zero_is_the_clean_input(kind: str) -> None:
    model, batch = tiny(), image_batch()
    ball = NormBall(0.0, STEP, kind)  # type: ignore[arg-type]
    delta = pgd(loss_of(model, batch), ball, perturbation_inputs(model, batch), steps=3, random_start=True).delta
    assert (delta == 0).all()
    with torch.no_grad():
        assert torch.equal(model(batch, delta=delta).logits, model(batch).logits)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bn_branch", ["clean", "adversarial"])
def test_an_attack_leaves_the_model_and_the_generators_bit_equal(bn_branch: BNBranch, frozen: bool) -> None:
    """Traps 1, 5 and 18: statistics, gradients, requires_grad, the mode of every module, the random stream."""
    model, batch = tiny(dual=True).train(), image_batch()
    model.encoder.get_submodule("layer1").eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen and "layer1" not in name)

    def training_info() -> list[Any]:
        return [
            [m.training for m in model.modules()],
            [(p.requires_grad, p.grad is None) for p in model.parameters()],
            [getattr(m, "bn_branch", None) for m in model.modules()],
        ]

    before, state, modes, random = (
        buffers(model),
        copy.deepcopy(model.state_dict()),
        training_info(),
        torch.get_rng_state(),
    )
    with evaluating(model):
        attack = pgd(loss_of(model, batch, bn_branch), LINF, perturbation_inputs(model, batch), steps=3)
    assert (attack.delta != 0).any()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert training_info() == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_an_attack_follows_its_route() -> None:
    """The gradient is that of the plain network with the same set."""
    model, batch = tiny(dual=True), image_batch()
    inputs = perturbation_inputs(model, batch)
    single = {
        bn_branch: model.copy_for_task(model.labels, bn_branch=bn_branch) for bn_branch in ("clean", "adversarial")
    }  # type: ignore[arg-type]
    found = {bn_branch: pgd(loss_of(model, batch, bn_branch), LINF, inputs, steps=3).delta for bn_branch in single}  # type: ignore[arg-type]
    for bn_branch, plain in single.items():
        assert torch.equal(found[bn_branch], pgd(loss_of(plain, batch), LINF, inputs, steps=3).delta)
    assert not torch.equal(found["clean"], found["adversarial"])


@balls
def test_apgd_runs_on_pixels_and_each_row_is_its_own(kind: str) -> None:
    model, batch = tiny(), image_batch(rows=3)
    inputs, ball = perturbation_inputs(model, batch), NormBall(BALLS[kind].epsilon, 2 * BALLS[kind].epsilon, kind)  # type: ignore
    delta = apgd(loss_of(model, batch), ball, inputs, steps=6).delta
    assert in_box(batch["pixel_values"], delta)
    assert (norm(delta, kind) <= torch.tensor(BALLS[kind].epsilon) * (1 + 1e-6)).all()  # type: ignore[arg-type]
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        alone = apgd(loss_of(model, one), ball, perturbation_inputs(model, one), steps=6).delta
        torch.testing.assert_close(delta[row : row + 1], alone, rtol=0, atol=1e-4)
