"""CARL's eq. (2) with both views of one step, its pull and its push apart, and rows that no epoch has seen yet."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import carl_reference
from reference import nce as loops
from reference.driving import Watched, gradients, losses_of
from reference.weighted_words import WeightedWords, ragged, random_classifier
from torch import Tensor

from contraverse.functional import class_cosines, log_partition, nce, sampled_softmax
from contraverse.methods import CARL
from contraverse.methods.carl import z_momentum
from contraverse.types import TrainingInfo

LENGTHS, LABELS = (6, 4, 3, 5, 2, 6), (0, 1, 2, 0, 1, 1)
ORDER = torch.tensor([4, 0, 5, 2, 1, 3])
TEMPERATURE = 0.2


def ready(rows: Any = slice(None), **settings: Any) -> tuple[CARL, Watched, dict[str, Tensor]]:
    """A classifier of words and ``rows`` of a batch of six, in another order than the data's; an epoch is six rows."""
    method = CARL(**{"start": 1, "negatives": None, "temperature": TEMPERATURE, "step_size": 0.3, **settings})
    method.prepare(TrainingInfo(num_examples=6, hidden_size=4, labels=torch.tensor(LABELS)))
    batch = {name: value[ORDER] for name, value in ragged(LENGTHS)[0].items()}
    batch |= {"labels": torch.tensor(LABELS)[ORDER], "index": ORDER}
    return method, Watched(WeightedWords(random_classifier())), {name: value[rows] for name, value in batch.items()}


def moved(watched: Watched) -> None:
    """Weights of another step, so that the banks are of yesterday."""
    random = torch.Generator().manual_seed(4)
    for parameter in watched.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)


# eq. (2) as printed


@pytest.mark.parametrize("estimator", ["nce", "softmax"])
@pytest.mark.parametrize("adversary", ["first", "last"])
@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_both_positives_are_of_the_step_and_have_a_gradient(estimator: Any, adversary: Any, gamma: float) -> None:
    """The whole step's loss and gradient at every parameter, against eq. (2) on both views in one graph."""
    settings: dict[str, Any] = {"weight": 0.7, "steps": 3, "gamma": gamma, "adversary": adversary}
    method, watched, batch = ready(positive="current", estimator=estimator, **settings)
    losses_of(method, watched, batch, still=False)
    moved(watched)
    banks = method.clean.rows.double(), method.adversarial.rows.double()
    watched.watch.calls.clear()
    watched.zero_grad()
    assert method.contrasts
    losses = losses_of(method, watched, batch, still=False)
    calls = watched.watch.passes()
    assert len(losses) == (3 if gamma else 2)
    assert len(calls) == (4 if gamma else 3)

    weights = {name: value.detach().double().requires_grad_() for name, value in watched.module.named_parameters()}
    mask, places = batch["attention_mask"].double().unsqueeze(-1), watched.module.places.double()

    def features(delta: Tensor | None) -> Tensor:
        words = weights["table"][batch["input_ids"]] + (0 if delta is None else delta.double())
        return (words * mask * places.view(1, -1, 1)).sum(1)

    h = [features(call.delta) for call in calls]
    freelb = h[1:] if gamma else h
    adversarial = freelb[1 if adversary == "first" else 2]
    clean, adversarial = (F.normalize(x, dim=1) for x in (h[0], adversarial))
    index, n = batch["index"].tolist(), len(LABELS)
    side = [carl_reference.by_softmax] * 2
    if estimator == "nce":
        scored = [
            carl_reference.pairs(*views, index, bank, LABELS, TEMPERATURE)
            for views, bank in (((clean, adversarial), banks[1]), ((adversarial, clean), banks[0]))
        ]
        side = [carl_reference.by_nce(carl_reference.constant(s, n), n) for s in scored]
    expected = 0.7 * carl_reference.contrast(clean, adversarial, index, banks, LABELS, TEMPERATURE, (side[0], side[1]))
    for x in freelb:
        expected = expected + F.cross_entropy(x @ weights["weight"].T + weights["bias"], batch["labels"]) / 3
    assert sum(loss.total.item() for loss in losses) == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    for name, parameter in watched.module.named_parameters():
        grad = weights[name].grad
        assert grad is not None
        np.testing.assert_allclose(parameter.grad, grad, rtol=1e-3, atol=1e-5 * float(grad.abs().max()))


@pytest.mark.parametrize("climb", ["ce", "total"])
def test_the_clean_pass_waits_and_the_ascent_from_it_is_that_of_the_classification_loss(climb: Any) -> None:
    """Its L_D is not known before the adversary is: what is climbed is what there is, eq. (6)'s L_C."""
    method, watched, batch = ready(positive="current", climb=climb, steps=2)
    losses_of(method, watched, batch)
    watched.watch.calls.clear()
    (loss,) = losses_of(method, watched, batch)
    clean, adversarial = watched.watch.passes()
    delta = torch.zeros_like(adversarial.delta, requires_grad=True)  # type: ignore[arg-type]
    ce = F.cross_entropy(watched.module(batch, delta=delta).logits, batch["labels"], reduction="sum")
    (grad,) = torch.autograd.grad(ce, delta)
    expected = 0.3 * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1)
    torch.testing.assert_close(adversarial.delta, expected)
    assert {"ce", "ce_adv", "contrast", "contrast_adv", "cos_between", "cos_within"} <= set(loss.parts)
    each = [F.cross_entropy(call.out.logits, batch["labels"]) for call in (clean, adversarial)]
    torch.testing.assert_close(torch.stack([loss.parts["ce"], loss.parts["ce_adv"]]), torch.stack(each).detach())


def test_before_its_start_no_pass_waits() -> None:
    method, watched, batch = ready(positive="current", start=2)
    assert method.passes == len(losses_of(method, watched, batch)) == 3
    assert method.passes == len(losses_of(method, watched, batch)) == 3
    assert method.passes == len(losses_of(method, watched, batch)) == 2


def test_the_banks_are_those_of_either_positive() -> None:
    """Eq. (5) does not depend on it."""
    banks = []
    for positive in ("bank", "current"):
        method, watched, batch = ready(positive=positive, weight=0.0)
        for _ in range(3):
            losses_of(method, watched, batch)
            moved(watched)
        banks.append(torch.cat([method.clean.rows, method.adversarial.rows]))
    torch.testing.assert_close(*banks)


# pull and push


ROWS, DRAWN, ANCHORS = 120, 40, 6


def cone(cosine: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Scores at temperature .07 of anchors with their positives and with negatives of that mean cosine."""
    random = torch.Generator().manual_seed(seed)
    positive = (0.97 + 0.01 * torch.randn(ANCHORS, generator=random)) / 0.07
    negatives = (cosine + 0.05 * torch.randn(ANCHORS, DRAWN, generator=random)) / 0.07
    return positive.double(), negatives.double(), torch.ones(ANCHORS, DRAWN, dtype=torch.bool)


def forces(positive: Tensor, negatives: Tensor, valid: Tensor, log_z: float | None) -> tuple[float, float]:
    """How hard the positives are pulled and the negatives pushed; the softmax for want of a normaliser."""
    leaves = [positive.clone().requires_grad_(), negatives.clone().requires_grad_()]
    if log_z is None:
        loss = sampled_softmax(*leaves, valid)
    else:
        loss = nce(*leaves, valid, log_z=torch.tensor(log_z, dtype=torch.float64), rows=ROWS)
    pull, push = torch.autograd.grad(loss, leaves)
    return -float(pull.sum()), float(push.sum())


def by_differences(positive: Tensor, negatives: Tensor, log_z: float | None) -> tuple[float, float]:
    """The same of the loops: all positives moved by a little, then all negatives."""

    def loss(up: float, off: float) -> float:
        each = []
        for p, n in zip(positive.tolist(), negatives.tolist(), strict=True):
            scores = p + up, [s + off for s in n]
            each.append(loops.softmax_loss(*scores) if log_z is None else loops.nce_loss(*scores, log_z, ROWS))
        return sum(each) / len(each)

    h = 1e-5
    return (loss(-h, 0) - loss(h, 0)) / (2 * h), (loss(0, h) - loss(0, -h)) / (2 * h)


@pytest.mark.parametrize("cosine", [0.2, 0.5, 0.8])
def test_pull_and_push_are_those_of_the_loops(cosine: float) -> None:
    scores = cone(cosine)
    own = float(log_partition(*scores, rows=ROWS))
    for log_z in (None, own, own - 2.0, own + 2.0):
        assert forces(*scores, log_z) == pytest.approx(by_differences(*scores[:2], log_z), rel=1e-5)


@pytest.mark.parametrize("steps", [8, 30, 300])
def test_a_running_normaliser_follows_negatives_that_move_away_and_a_fixed_one_lets_go(steps: int) -> None:
    """Negatives move .1 in cosine within three epochs of so many steps; the push that is left, beside the softmax's."""
    pushes: dict[str, float] = {}
    for z in ("fixed", "running"):
        method = CARL(z=z, momentum=0.5)
        method.z_momentum = z_momentum(steps)
        for t in range(3 * steps + 1):
            positive, negatives, valid = cone(0.8, seed=t)
            negatives = negatives - 0.1 / 0.07 * t / (3 * steps)
            own = log_partition(positive, negatives, valid, rows=ROWS)
            log_z = method.normalizer("clean", own.float())
        pull, pushes[z] = forces(positive, negatives, valid, float(log_z))
        assert pull > 0.5
    softmax = forces(positive, negatives, valid, None)[1]
    assert pushes["running"] == pytest.approx(softmax, rel=0.1)
    assert pushes["fixed"] < 0.5 * softmax


def test_the_softmax_never_lets_go() -> None:
    """Pull and push of an anchor are equal, however far the negatives are."""
    for cosine in (0.8, 0.5, 0.2):
        pull, push = forces(*cone(cosine), None)
        assert pull == pytest.approx(push, rel=1e-9)


@pytest.mark.parametrize(("steps", "kept"), [(2105, 0.99), (1000, 0.99), (300, 1 - 1 / 30), (30, 1 - 1 / 3), (4, 0.0)])
def test_the_running_mean_is_over_a_tenth_of_an_epoch(steps: int, kept: float) -> None:
    assert z_momentum(steps) == pytest.approx(kept)


# the log


def test_the_log_has_the_mean_cosine_between_classes_and_within() -> None:
    """Of the clean features of a step, from the first step that has them on; a batch without pairs repeats the last."""
    method, watched, batch = ready(steps=2)
    (first, second) = losses_of(method, watched, batch)
    assert not {"cos_between", "cos_within"} & set(second.parts)
    r = F.normalize(watched.watch.passes()[0].out.h.detach().double(), dim=1)
    pairs: dict[str, list[float]] = {"cos_between": [], "cos_within": []}
    for i in range(6):
        for j in range(6):
            if i != j:
                same = batch["labels"][i] == batch["labels"][j]
                pairs["cos_within" if same else "cos_between"].append(float(r[i] @ r[j]))
    for name, cosines in pairs.items():
        assert first.parts[name].item() == pytest.approx(np.mean(cosines), rel=1e-4)
    alone = losses_of(method, watched, {name: value[:1] for name, value in batch.items()})
    for name in pairs:
        assert alone[0].parts[name] == first.parts[name]


def test_cosines_of_no_pairs_are_nan() -> None:
    between, within = class_cosines(torch.eye(3), torch.tensor([0, 1, 2]))
    assert between == 0
    assert within.isnan()


# rows that no epoch has seen


@pytest.mark.parametrize("estimator", ["nce", "softmax"])
@pytest.mark.parametrize("positive", ["bank", "current"])
def test_it_starts_on_time_and_leaves_out_rows_that_are_not_written(estimator: Any, positive: Any) -> None:
    """An epoch of five rows: the sixth, of class 0, comes first in the second. It is no negative, and its own positive
    is no bank's zeros: with a bank's positives it is left out of the mean; with the step's it is in.
    """
    settings: dict[str, Any] = {"steps": 2, "estimator": estimator, "positive": positive}
    method, watched, batch = ready(**settings)
    method.epoch_examples = 5
    losses_of(method, watched, {name: value[:5] for name, value in batch.items()})
    assert method.contrasts
    assert not method.clean.filled[3]
    moved(watched)
    rows = {name: value[[5, 0, 3]] for name, value in batch.items()}
    index, banks = rows["index"].tolist(), (method.clean.rows.double(), method.adversarial.rows.double())
    assert index == [3, 4, 2]
    watched.watch.calls.clear()
    losses = losses_of(method, watched, rows)
    clean, adversarial = (F.normalize(call.out.h.detach().double(), dim=1) for call in watched.watch.passes())
    for name, views, bank in (
        ("contrast", (clean, adversarial), banks[1]), ("contrast_adv", (adversarial, clean), banks[0])
    ):  # fmt: skip
        scored = [], []
        for i, anchor, other in zip(index, *views, strict=True):
            right = bank[i] if positive == "bank" else other
            if positive == "bank" and i == 3:
                scored[1].append([anchor @ bank[j] / TEMPERATURE for j in range(6) if LABELS[j] != LABELS[i]])
                continue
            negatives = [anchor @ bank[j] / TEMPERATURE for j in range(6) if LABELS[j] != LABELS[i] and j != 3]
            scored[0].append((anchor @ right / TEMPERATURE, negatives))
        side = carl_reference.by_softmax
        if estimator == "nce":
            everything = [s.exp() for p, n in scored[0] for s in (p, *n)] + [s.exp() for n in scored[1] for s in n]
            side = carl_reference.by_nce(6 * float(torch.stack(everything).mean()), 6)
        expected = torch.stack([side(p, n) for p, n in scored[0]]).mean().item()
        got = next(loss.parts[name] for loss in losses if name in loss.parts)
        assert got.item() == pytest.approx(expected, rel=1e-4)
    assert method.clean.filled.all()


@pytest.mark.parametrize("estimator", ["nce", "softmax"])
@pytest.mark.parametrize("positive", ["bank", "current"])
@pytest.mark.parametrize("z", ["fixed", "running"])
def test_a_batch_with_nothing_to_tell_apart_trains_nothing_and_sets_nothing(
    estimator: Any, positive: Any, z: Any
) -> None:
    """None of the other classes' rows is written yet: no L_D, no NaN in the weights, and no normaliser from it."""
    method, watched, batch = ready(steps=2, estimator=estimator, positive=positive, z=z)
    method.epoch_examples = 2
    zeros = {name: value[batch["labels"] == 0] for name, value in batch.items()}
    losses_of(method, watched, zeros)
    assert method.contrasts
    grads = gradients(method, watched, zeros)
    assert all(g.isfinite().all() for g in grads.values())
    assert method.log_z.isnan().all()
    parts = {name: value for loss in losses_of(method, watched, zeros) for name, value in loss.parts.items()}
    assert parts["contrast"] == parts["contrast_adv"] == 0
    losses_of(method, watched, batch)
    losses_of(method, watched, batch)
    assert method.log_z.isfinite().all() == (estimator == "nce")
