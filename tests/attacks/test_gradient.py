"""FGM, FGSM and PGD against the equations, on a toy loss and on a tiny encoder."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference import equations
from reference.bfloat16 import within_rounding
from reference.climbing import Quadratic, everywhere, gradient, longer, mean, per_row
from reference.tiny import take
from torch import Tensor

from contraverse.attacks import NormBall, attack_step, fgm, perturbation_inputs, pgd
from contraverse.functional import norm
from contraverse.models import TextModel
from contraverse.types import Inputs

SCOPES = ("sequence", "token", "batch")


@pytest.fixture
def model(tiny_model: Callable[..., TextModel]) -> TextModel:
    return tiny_model(dropout=0.0)


# perturbation_inputs


def test_perturbable_is_one_lookup_without_gradient(model: TextModel, batch: Any) -> None:
    layers: list[Any] = []
    lookups: list[Any] = []
    model.encoder.base_model.encoder.register_forward_hook(lambda *a: layers.append(a))
    model.encoder.get_input_embeddings().register_forward_hook(lambda *a: lookups.append(a))
    values, mask, low, high = perturbation_inputs(model, batch)
    assert low is high is None
    assert (len(layers), len(lookups)) == (0, 1)
    assert not values.requires_grad
    assert torch.equal(values, model.encoder.get_input_embeddings().weight[batch["input_ids"]])
    assert mask.dtype == torch.bool
    assert torch.equal(mask, batch["attention_mask"].bool().unsqueeze(-1))
    assert torch.is_grad_enabled()


# FGM and FGSM


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("epsilon", [0.1, 0.3, 2.0])
def test_fgm_is_equation_3(model: TextModel, batch: Any, scope: Any, epsilon: float) -> None:
    ball = NormBall(epsilon, epsilon, "l2", scope)
    attack = fgm(mean(model, batch), ball, perturbation_inputs(model, batch))
    expected = equations.fgm(gradient(model, batch), epsilon, scope)
    np.testing.assert_allclose(attack.delta, expected, atol=1e-5 * epsilon, rtol=1e-3)
    assert not attack.delta.requires_grad
    assert int(attack.zero_grad_rows) == 0


def test_fgsm_is_equation_2(model: TextModel, batch: Any) -> None:
    attack = fgm(mean(model, batch), NormBall(0.1, 0.1, "linf"), perturbation_inputs(model, batch))
    grad = gradient(model, batch)
    sure = np.abs(grad) > 1e-7 * np.abs(grad).max()
    np.testing.assert_allclose(attack.delta.numpy()[sure], equations.fgsm(grad, 0.1)[sure], rtol=1e-6)
    assert (attack.delta[batch["attention_mask"] == 0] == 0).all()


def test_fgm_has_norm_epsilon_and_leaves_padding(model: TextModel, batch: Any) -> None:
    """T2, T3."""
    real = batch["attention_mask"].bool()
    for scope, expected in (
        ("sequence", torch.ones(4, 1, 1)),
        ("token", real.unsqueeze(-1)),
        ("batch", torch.ones(1, 1, 1)),
    ):
        delta = fgm(mean(model, batch), NormBall(0.3, 0.3, "l2", scope), perturbation_inputs(model, batch)).delta
        torch.testing.assert_close(norm(delta, "l2", scope), 0.3 * expected.float(), rtol=1e-5, atol=0)
        assert (delta[~real] == 0).all()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2", "mpnet"])
def test_more_padding_changes_neither_delta_nor_loss(
    tiny_model: Callable[..., TextModel], batch: Any, architecture: str
) -> None:
    """T3."""
    model = tiny_model(architecture, dropout=0.0)
    padded, ball, tokens = longer(batch), NormBall(0.3, 0.3), batch["input_ids"].shape[1]
    short = fgm(per_row(model, batch), ball, perturbation_inputs(model, batch)).delta
    long = fgm(per_row(model, padded), ball, perturbation_inputs(model, padded)).delta
    torch.testing.assert_close(long[:, :tokens], short, rtol=1e-3, atol=1e-5)
    assert (long[:, tokens:] == 0).all()
    torch.testing.assert_close(per_row(model, padded)(long), per_row(model, batch)(short), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("attack", ["fgm", "fgsm", "pgd"])
def test_a_row_alone_gets_the_same_perturbation(model: TextModel, batch: Any, scope: Any, attack: str) -> None:
    """T2, T8: except where the scope is the batch, and an L2 norm is shared."""
    ball = NormBall(0.3, 0.3 if attack != "pgd" else 0.15, "linf" if attack == "fgsm" else "l2", scope)

    def delta(rows: Any) -> Tensor:
        if attack == "pgd":
            return pgd(per_row(model, rows), ball, perturbation_inputs(model, rows), steps=3).delta
        return fgm(mean(model, rows), ball, perturbation_inputs(model, rows)).delta

    together = delta(batch)
    for i in range(4):
        alone = delta(take(batch, slice(i, i + 1)))[0]
        same = torch.allclose(alone, together[i], rtol=1e-3, atol=1e-4)
        assert same != (scope == "batch" and attack != "fgsm")


def test_rows_may_be_permuted(model: TextModel, batch: Any) -> None:
    """T8."""
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {name: value[order] for name, value in batch.items()}
    ball = NormBall(0.3, 0.3)
    delta = fgm(mean(model, batch), ball, perturbation_inputs(model, batch)).delta
    again = fgm(mean(model, shuffled), ball, perturbation_inputs(model, shuffled)).delta
    torch.testing.assert_close(again, delta[order], rtol=1e-3, atol=1e-5)


def test_the_sum_and_the_mean_are_climbed_alike(model: TextModel, batch: Any) -> None:
    ball, where = NormBall(0.3, 0.3), perturbation_inputs(model, batch)
    torch.testing.assert_close(
        fgm(per_row(model, batch), ball, where).delta, fgm(mean(model, batch), ball, where).delta
    )


@pytest.mark.parametrize("scale", [2.0**-24, 1024.0])
def test_a_scaled_loss_gives_the_same_perturbation(model: TextModel, batch: Any, scale: float) -> None:
    ball, where, loss = NormBall(0.3, 0.3), perturbation_inputs(model, batch), mean(model, batch)
    torch.testing.assert_close(fgm(lambda d: loss(d) * scale, ball, where).delta, fgm(loss, ball, where).delta)


def test_one_step_raises_the_loss(model: TextModel, batch: Any) -> None:
    where, loss = perturbation_inputs(model, batch), per_row(model, batch)
    before = loss(torch.zeros_like(where.values))
    for kind, epsilon in (("l2", 0.05), ("linf", 0.005)):
        assert (loss(fgm(loss, NormBall(epsilon, epsilon, kind), where).delta) > before).all()


def test_any_loss_can_be_climbed() -> None:
    where = everywhere()
    target = torch.randn_like(where.values)
    delta = fgm(Quadratic(target), NormBall(0.5, 0.5), where).delta
    np.testing.assert_allclose(delta, equations.fgm(-target.numpy(), 0.5), atol=1e-6)


def test_climb_keeps_the_graph_only_when_asked() -> None:
    where = everywhere()
    ball = NormBall(0.5, 0.5)
    for keep in (True, False):
        delta = ball.init(where)
        weight = torch.ones((), requires_grad=True)
        loss = (weight * (delta - 1).square()).sum()
        attack = attack_step(delta, ball, where, loss=loss, keep_graph=keep)
        assert not attack.delta.requires_grad
        assert weight.grad is None
        if keep:
            loss.backward()
            assert weight.grad is not None
        else:
            with pytest.raises(RuntimeError, match="second time"):
                loss.backward()


# dead gradients


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["l2", "linf"])
@pytest.mark.parametrize("scope", ["sequence", "token"])
def test_a_dead_gradient_gives_exactly_zero_and_is_counted(factor: float, kind: Any, scope: Any) -> None:
    """T17: row 1's gradient is zero or not finite; the others are untouched."""
    where = everywhere()

    def loss(delta: Tensor) -> Tensor:
        return (delta * torch.tensor([1.0, factor, -2.0]).reshape(3, 1, 1)).sum()

    ball = NormBall(0.3, 0.3, kind, scope)
    attack = fgm(loss, ball, where)
    assert (attack.delta[1] == 0).all()
    assert (attack.delta[[0, 2]] != 0).all()
    assert int(attack.zero_grad_rows) == 1


@pytest.mark.parametrize(("real", "padding", "zero_grad_rows"), [(0.0, 1.0, 1), (1.0, float("nan"), 0), (1.0, 0.0, 0)])
def test_gradients_on_padding_count_neither_as_alive_nor_as_dead(
    real: float, padding: float, zero_grad_rows: int
) -> None:
    where = Inputs(torch.zeros(1, 2, 3), torch.tensor([[True, False]]).unsqueeze(-1))
    slope = torch.tensor([[real, padding]]).unsqueeze(-1)
    attack = fgm(lambda d: (d * slope).sum(), NormBall(0.3, 0.3), where)
    assert attack.delta[0, 0].norm().item() == pytest.approx(0.3 if real else 0.0)
    assert int(attack.zero_grad_rows) == zero_grad_rows
    many = pgd(lambda d: (d * slope).nan_to_num().sum((1, 2)), NormBall(0.3, 0.3), where, steps=2)
    assert int(many.zero_grad_rows) == 2 * zero_grad_rows


# what is logged


def test_the_relative_size_counts_real_tokens_alone(model: TextModel, batch: Any) -> None:
    """T20: ||delta|| / ||E|| of each row, mean over rows."""
    where = perturbation_inputs(model, batch)
    attack = fgm(mean(model, batch), NormBall(0.3, 0.3), where)
    real = (where.values * where.mask).numpy()
    expected = [a / b for a, b in zip(equations.norms(attack.delta.numpy(), "l2", "sequence"),
                                      equations.norms(real, "l2", "sequence"), strict=True)]  # fmt: skip
    log = attack.log(where)
    assert float(log["rel_perturbation_norm"]) == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert float(log["zero_grad_rows"]) == 0
    padded = longer(batch)
    again = fgm(mean(model, padded), NormBall(0.3, 0.3), perturbation_inputs(model, padded))
    assert float(again.log(perturbation_inputs(model, padded))["rel_perturbation_norm"]) == pytest.approx(
        sum(expected) / 4, rel=1e-4
    )


def test_one_epsilon_is_another_relative_size_in_albert(tiny_model: Callable[..., TextModel], batch: Any) -> None:
    """T20: of embeddings drawn alike, 128 dimensions are shorter than 768 by sqrt(6)."""
    sizes = []
    for architecture, settings in (("albert", {"embedding_size": 128}), ("bert", {"hidden_size": 768})):
        model = tiny_model(architecture, dropout=0.0, num_hidden_layers=1, **settings)
        where = perturbation_inputs(model, batch)
        attack = fgm(mean(model, batch), NormBall(0.3, 0.3), where)
        sizes.append(attack.log(where)["rel_perturbation_norm"].log().item())
    assert sizes[0] - sizes[1] == pytest.approx(math.log(6) / 2, abs=0.1)


# what an attack leaves behind


@pytest.mark.parametrize("training", [True, False])
def test_an_attack_leaves_no_trace_on_the_model(
    tiny_model: Callable[..., TextModel], batch: Any, training: bool
) -> None:
    """T9: parameter gradients, modes, requires_grad, buffers and weights are as they were."""
    model = tiny_model()
    model.train(training)
    frozen = model.encoder.get_input_embeddings().weight.requires_grad_(False)
    grads = {}
    for name, p in model.named_parameters():
        p.grad = torch.randn_like(p) if p is not frozen else None
        grads[name] = None if p.grad is None else p.grad.clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    where = perturbation_inputs(model, batch)
    fgm(mean(model, batch), NormBall(0.3, 0.3), where)
    pgd(per_row(model, batch), NormBall(0.3, 0.1), where, steps=2, restarts=2)
    for name, p in model.named_parameters():
        assert p.grad is None if grads[name] is None else torch.equal(p.grad, grads[name])
    assert all(module.training is training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_a_frozen_model_can_be_attacked(model: TextModel, batch: Any) -> None:
    where = perturbation_inputs(model, batch)
    free = fgm(mean(model, batch), NormBall(0.3, 0.3), where).delta
    model.requires_grad_(False)
    assert torch.equal(fgm(mean(model, batch), NormBall(0.3, 0.3), where).delta, free)


def test_attacks_without_randomness_leave_the_generators_alone(model: TextModel, batch: Any) -> None:
    state = torch.get_rng_state()
    where = perturbation_inputs(model, batch)
    fgm(mean(model, batch), NormBall(0.3, 0.3), where)
    pgd(per_row(model, batch), NormBall(0.3, 0.1), where, steps=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_bfloat16_autocast_keeps_the_direction(model: TextModel, batch: Any) -> None:
    """T17."""
    where, ball = perturbation_inputs(model, batch), NormBall(0.3, 0.3)

    def attack() -> Tensor:
        return fgm(mean(model, batch), ball, where).delta.float().flatten(1)

    assert within_rounding(attack, attack(), dim=1)
