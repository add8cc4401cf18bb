"""LARS against a NumPy loop; optimizers by name."""

import copy

import numpy as np
import pytest
import torch
from reference.lars_reference import lars
from torch import Tensor

from contraverse.errors import UserError
from contraverse.training.lars import LARS, build_optimizer

SHAPES = [(4, 3, 2), (5,), (3, 2), (2,)]
RATES = (0.5, 2.0, 2.0, 0.0, 1.0)


def drawn(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]


def start() -> list[Tensor]:
    """The second tensor is zero, as a fresh bias is."""
    weights = drawn(0)
    weights[1].zero_()
    return weights


def gradients() -> list[list[Tensor]]:
    """The fourth tensor has no slope in the second step."""
    found = [drawn(seed) for seed in range(1, len(RATES) + 1)]
    found[1][3].zero_()
    return found


def run(optimizer: torch.optim.Optimizer, weights: list[Tensor], gradients: list[list[Tensor]], rates: tuple) -> None:  # type: ignore[type-arg]
    for gradient, rate in zip(gradients, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for w, g in zip(weights, gradient, strict=True):
            w.grad = g.clone()
        optimizer.step()


@pytest.mark.parametrize("exclude_vectors", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 1e-6), (0.0, 0.1), (0.5, 0.0)])
def test_it_steps_as_the_algorithm_says(momentum: float, weight_decay: float, exclude_vectors: bool) -> None:
    settings = {"momentum": momentum, "weight_decay": weight_decay, "trust": 0.02, "exclude_vectors": exclude_vectors}
    expected = lars(
        [w.numpy() for w in start()], [[g.numpy() for g in step] for step in gradients()], RATES, **settings
    )  # type: ignore[arg-type]
    weights = [w.requires_grad_() for w in start()]
    run(LARS(weights, lr=1.0, **settings), weights, gradients(), RATES)  # type: ignore[arg-type]
    for w, reference in zip(weights, expected, strict=True):
        np.testing.assert_allclose(w.detach().numpy(), reference, rtol=1e-12, atol=1e-15)


def test_a_step_is_as_long_for_any_size_of_the_gradient() -> None:
    moved = []
    for scale in (1e-4, 1e4):
        w = torch.ones(3, 3, requires_grad=True)
        w.grad = scale * torch.eye(3)
        LARS([w], lr=2.0, trust=0.01).step()
        moved.append((w.detach() - 1).norm().item())
    assert moved == pytest.approx([2.0 * 0.01 * 3.0] * 2)  # rate * trust * ||w||


def test_it_continues_from_a_saved_state_bit_for_bit() -> None:
    rates, whole = RATES[:2], [w.requires_grad_() for w in start()]
    optimizer = LARS(whole, lr=1.0, weight_decay=0.1)
    run(optimizer, whole, gradients()[:2], rates)
    resumed = [w.detach().clone().requires_grad_() for w in whole]
    other = LARS(resumed, lr=9.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, whole, gradients()[2:], RATES[2:])
    run(other, resumed, gradients()[2:], RATES[2:])
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_groups_have_settings_of_their_own_and_a_weight_without_gradient_stays() -> None:
    a, b, c = (torch.ones(2, 2, requires_grad=True) for _ in range(3))
    a.grad, b.grad = torch.eye(2), torch.eye(2)
    LARS([{"params": [a, c]}, {"params": [b], "trust": 0.5}], lr=1.0, trust=0.25).step()
    assert torch.allclose((1 - b), 2 * (1 - a))
    assert torch.equal(c, torch.ones(2, 2))


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    w = torch.ones(2, requires_grad=True)
    optimizer = LARS([w], lr=1.0, trust=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert torch.allclose(w, torch.full((2,), 0.9))


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"trust": 0.0}])
def test_settings_have_ranges(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="cannot run"):
        LARS([torch.ones(1)], **{"lr": 1.0, **wrong})  # type: ignore[arg-type]


def test_optimizers_are_built_by_name() -> None:
    w = [torch.ones(2, requires_grad=True)]
    sgd = build_optimizer("sgd", w, 0.1, momentum=0.9, nesterov=True, weight_decay=2e-4)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.1, 0.9, True)
    found = build_optimizer("lars", w, 5.0, weight_decay=1e-6, exclude_vectors=True)
    assert isinstance(found, LARS)
    assert (found.defaults["lr"], found.defaults["trust"], found.defaults["exclude_vectors"]) == (5.0, 1e-3, True)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("adam", {}, "lars or sgd"),
        ("sgd", {"trust": 1.0}, "sgd has no setting trust"),
        ("sgd", {"nesterov": True}, "momentum"),
        ("lars", {"momentum": 2.0}, "momentum 2.0"),
    ],
)
def test_an_optimizer_that_cannot_be_built_says_why(name: str, settings: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_optimizer(name, [torch.ones(1, requires_grad=True)], 0.1, **settings)
