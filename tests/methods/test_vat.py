"""VAT: the direction of power iteration against the Hessian itself, and the loss against the paper's equations."""

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
import torch
from reference import vat_reference as slow
from reference.attacking import cost, fresh, run, tracked
from reference.driving import Watched, gradients, losses_of
from reference.freelb_reference import Array, Classifier
from reference.images import buffers, image_batch
from reference.weighted_words import WeightedWords, cut, ragged, random_classifier
from torch import Tensor

from contraverse.functional import labelled_loss, norm
from contraverse.methods import METHODS, VAT
from contraverse.models.modes import keeping_statistics
from contraverse.types import UNLABELLED


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def logits_of(like: Classifier, ids: list[int]) -> slow.Logits:
    """A sentence's logits as a function of its perturbation (T, D)."""

    def logits(delta: Array) -> Array:
        h = sum(like.places[t] * (like.table[token] + delta[t]) for t, token in enumerate(ids))
        return like.weight @ h + like.bias

    return logits


def hessian_of(like: Classifier, ids: list[int]) -> Array:
    """H of a sentence, (T D, T D)."""
    jacobian = np.concatenate([like.places[t] * like.weight for t in range(len(ids))], axis=1)
    return slow.hessian(jacobian, logits_of(like, ids)(np.zeros((len(ids), like.table.shape[1]))))


def step_of(method: VAT, batch: Any, *, still: bool = False) -> tuple[Any, Any, Watched]:
    """The loss of one step on the classifier of words, its passes, and the watched model."""
    watched = Watched(WeightedWords(random_classifier()))
    (loss,) = losses_of(method, watched, batch, still=still)
    return loss, watched.watch.passes(), watched


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("xi", [1e-2, 0.4])
def test_the_perturbation_is_that_of_the_gradient_at_xi_d(xi: float, steps: int) -> None:
    """Eqs. (13) to (15), at an xi of any size."""
    batch, sentences, _ = ragged()
    _, passes, _ = step_of(VAT(xi=xi, steps=steps, epsilon=0.7), batch)
    assert len(passes) == 2 + steps
    starts, ends = cut(passes[1].delta, sentences), cut(passes[-1].delta, sentences)
    for ids, start, end in zip(sentences, starts, ends, strict=True):
        assert np.linalg.norm(start) == pytest.approx(xi, rel=1e-5)
        expected = slow.perturbation(logits_of(random_classifier(), ids), start, xi=xi, epsilon=0.7, steps=steps)
        np.testing.assert_allclose(end, expected, atol=2e-3 if xi < 0.1 else 2e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_small_xi_multiplies_by_the_hessian(steps: int) -> None:
    """Eqs. (11), (12)."""
    batch, sentences, _ = ragged()
    _, passes, _ = step_of(VAT(xi=1e-3, steps=steps, epsilon=1.0), batch)
    starts, ends = cut(passes[1].delta, sentences), cut(passes[-1].delta, sentences)
    for ids, start, end in zip(sentences, starts, ends, strict=True):
        expected = slow.power_iteration(hessian_of(random_classifier(), ids), start, steps)
        np.testing.assert_allclose(end, expected, atol=0.02)


def test_many_iterations_find_the_first_eigenvector() -> None:
    """Eq. (10), of which the sign is open."""
    batch, sentences, _ = ragged()
    _, passes, _ = step_of(VAT(xi=1e-3, steps=40, epsilon=1.0), batch)
    for ids, end in zip(sentences, cut(passes[-1].delta, sentences), strict=True):
        expected = slow.first_eigenvector(hessian_of(random_classifier(), ids))
        assert abs(float(end.ravel() @ expected)) > 0.999


def test_without_iterations_it_is_random_perturbation_training() -> None:
    """K = 0 in eq. (16): ``epsilon d``, of another direction in each step."""
    batch, sentences, _ = ragged()
    method = VAT(steps=0, epsilon=0.7)
    ends = [cut(step_of(method, batch)[1][-1].delta, sentences) for _ in range(2)]
    for one, other in zip(*ends, strict=True):
        assert np.linalg.norm(one) == pytest.approx(0.7, rel=1e-5)
        assert abs(float(slow.unit(one).ravel() @ slow.unit(other).ravel())) < 0.9
    assert method.cost == "6F"


@pytest.mark.parametrize("labels", [[0, 2, 1], [0, UNLABELLED, 1], [UNLABELLED] * 3])
def test_the_total_is_that_of_the_paper(labels: list[int]) -> None:
    """Eqs. (5), (7), (8): cross-entropy of the labelled rows, LDS of all."""
    batch, *_ = ragged()
    batch["labels"] = torch.tensor(labels)
    loss, passes, watched = step_of(VAT(weight=0.6, epsilon=0.7), batch)
    clean, perturbed = (array(passes[i].out.logits) for i in (0, -1))
    assert slow.regularizer(clean, perturbed) > 0.01
    assert loss.total.item() == pytest.approx(slow.total(clean, perturbed, labels, 0.6), rel=1e-4)
    assert loss.parts["lds"].item() == pytest.approx(slow.regularizer(clean, perturbed), rel=1e-4)
    assert all(p.grad is None or p.grad.isfinite().all() for p in watched.parameters())


def test_the_target_and_the_perturbation_are_constant() -> None:
    """theta^ of eqs. (5), (6): no gradient flows through the clean prediction, and none through r."""
    batch, *_ = ragged()
    batch["labels"] = torch.full((3,), UNLABELLED)
    _, passes, watched = step_of(VAT(epsilon=0.7), batch)
    model = copy.deepcopy(watched.module)
    model.zero_grad()
    p, q = passes[0].out.logits.detach().log_softmax(-1), model(batch, delta=passes[-1].delta).logits.log_softmax(-1)
    (p.exp() * (p - q)).sum(-1).mean().backward()
    for name, parameter in watched.module.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(model.named_parameters())[name].grad, rtol=1e-4, atol=1e-6)


def test_a_regression_is_held_by_squared_distances() -> None:
    batch = ragged(classes=1)[0]
    batch["labels"] = torch.tensor([0.3, -1.0, 2.0])
    watched = Watched(WeightedWords(random_classifier(classes=1)))
    (loss,) = losses_of(VAT(weight=0.6), watched, batch, still=False)
    clean, moved = (call.out.logits.detach()[:, 0] for call in (watched.watch.passes()[0], watched.watch.passes()[-1]))
    distance = (clean - moved).square().mean()
    assert distance > 0.01
    expected = (clean - batch["labels"]).square().mean() + 0.6 * distance
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_passes_share_their_dropout_masks(tiny_model: Any, batch: Any) -> None:
    """At r = 0 the divergence is zero, as eq. (9) has it, and next to zero for a tiny perturbation."""
    watched = Watched(tiny_model(dropout=0.3).train())
    losses_of(VAT(epsilon=1e-5), watched, batch, still=False)
    clean, *_, moved = (call.out.logits for call in watched.watch.passes())
    torch.testing.assert_close(moved, clean, atol=1e-3, rtol=0)


# images


@pytest.mark.parametrize("dual", [False, True])
def test_only_the_clean_pass_moves_the_running_statistics(dual: bool) -> None:
    method, images = VAT(epsilon=0.5, steps=2), image_batch(size=16)
    model = fresh(method, dual=dual)
    expected = copy.deepcopy(model)
    passes, total = run(method, model, images)
    assert [one.training for one in passes] == [True] * 4
    clean = expected(images).logits
    for name, value in buffers(expected).items():
        assert torch.equal(dict(model.named_buffers())[name], value), name
    assert tracked(model) == tracked(expected)
    assert all(m.track_running_stats for m in model.modules() if hasattr(m, "track_running_stats"))
    # Batch norm normalises by the statistics of the perturbed batch.
    perturbed = expected(images, delta=passes[-1].delta).logits
    wanted = slow.total(array(clean), array(perturbed), images["labels"].tolist(), 1.0)
    assert float(total) == pytest.approx(wanted, rel=1e-4)


def test_pixels_stay_pixels_within_epsilon() -> None:
    """Also those of the search. The first image is all 0 and 1, so that half of its perturbation is cut."""
    method = VAT(epsilon=0.5)
    passes, _ = run(method, fresh(method), image_batch(size=16))
    for one, limit in zip(passes[1:], (method.xi, 0.5), strict=True):
        assert one.delta is not None
        assert one.seen.min() >= 0
        assert one.seen.max() <= 1
        sizes = norm(one.delta).flatten()
        assert (sizes <= limit * (1 + 1e-5)).all()
        assert (sizes > 0.4 * limit).all()


def test_a_frozen_batch_norm_stays_so_and_flags_come_back() -> None:
    """Also after an error."""
    model = fresh(VAT())
    model.encoder.bn1.eval()
    other = model.encoder.layer1[0].bn1
    other.track_running_stats = False
    flags = {name: m.track_running_stats for name, m in model.named_modules() if hasattr(m, "track_running_stats")}
    with contextlib.suppress(RuntimeError), keeping_statistics(model):
        raise RuntimeError
    assert flags == {n: m.track_running_stats for n, m in model.named_modules() if hasattr(m, "track_running_stats")}


# cost and settings


@pytest.mark.parametrize(("settings", "expected"), [({}, 8), ({"steps": 0}, 6), ({"steps": 3}, 12)])
def test_the_stated_cost_is_the_counted_one(settings: dict[str, Any], expected: int) -> None:
    method = VAT(**settings)
    assert method.cost == f"{expected}F"
    assert cost(method, lambda model, images: model(images)) == pytest.approx(expected, rel=0.03)


def test_the_defaults() -> None:
    """The paper's alpha and K; its xi and epsilon are of another size, which the page explains."""
    method = VAT()
    assert (method.weight, method.steps, method.xi, method.epsilon) == (1.0, 1, 1e-2, 0.3)
    assert METHODS["vat"].uses_unlabelled


@pytest.mark.parametrize("wrong", [{"xi": 0}, {"steps": -1}, {"epsilon": 0}, {"weight": -1}, {"epsilon": float("inf")}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VAT(**wrong)


def test_a_loss_over_labelled_rows() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, UNLABELLED, 2, UNLABELLED])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(labelled_loss(logits, labels), expected)
    assert labelled_loss(logits, torch.full((4,), UNLABELLED)) == 0
    scores = torch.randn(4)
    torch.testing.assert_close(labelled_loss(logits[:, :1], scores), (logits[:, 0] - scores).square().mean())


def test_every_parameter_is_trained_by_unlabelled_rows_alone(tiny_model: Any, batch: Any) -> None:
    model = tiny_model(dropout=0.1).train()
    rows = {**batch, "labels": torch.full_like(batch["labels"], UNLABELLED)}
    grads = gradients(VAT(), model, rows)
    assert grads["encoder.classifier.weight"].norm() > 0
    assert all(g.isfinite().all() for g in grads.values())
