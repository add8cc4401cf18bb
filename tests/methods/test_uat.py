"""ACL's eq. (3), against the slow one."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import reference.supervised_image_reference as slow
import torch
from reference.attacking import close, fresh, grads, run
from reference.driving import FACTS
from reference.images import image_batch, shaken
from torch import Tensor

from contraverse.errors import UserError
from contraverse.methods import UAT
from contraverse.methods.pgd_at import EPSILON, STEP_SIZE
from contraverse.types import TrainingInfo

SOFT = 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
LABELLED = torch.tensor([True, False, False, True, False, True])
INDEX = torch.tensor([4, 0, 3, 2])
"""Rows of the data that are in the batch: the second and third are labelled."""


def images() -> dict[str, Any]:
    return {**image_batch(), "index": INDEX}


def given(**settings: Any) -> UAT:
    method = UAT(**settings)
    method.set_targets(SOFT, LABELLED)
    method.prepare(TrainingInfo(num_examples=6, hidden_size=64))
    return method


@pytest.mark.parametrize("dual", [False, True])
def test_a_step_is_equation_3(dual: bool) -> None:
    method, batch = given(steps=3, alpha=0.3, temperature=2.0, beta=1.5), images()
    model = fresh(method, dual=dual)
    before = copy.deepcopy(model)
    passes, total = run(method, model, batch)

    labels = torch.tensor([-1, int(batch["labels"][1]), int(batch["labels"][2]), -1])
    soft, x, start = SOFT[INDEX], batch["pixel_values"], passes[0].delta
    attacked, answers = copy.deepcopy(before).eval(), slow.semi_supervised_targets(labels, SOFT[INDEX])
    assert start is not None

    def loss(delta: Tensor) -> Tensor:
        logits = attacked({"pixel_values": x}, delta=delta, bn_branch="adversarial").logits
        return slow.adversarial_training(logits, answers)

    delta = slow.climb(loss, x, start, epsilon=EPSILON, step_size=STEP_SIZE, steps=3)
    found = passes[-1].delta
    assert found is not None
    assert ((found - delta).abs() < 1e-6).float().mean() > 0.995

    clean = before(batch).logits
    adversarial = before(batch, delta=found, bn_branch="adversarial").logits
    expected = slow.semi_supervised(clean, adversarial, labels, soft, alpha=0.3, temperature=2.0, beta=1.5)
    expected.backward()
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    close(grads(model), grads(before))


def test_labelled_rows_are_attacked_with_their_truth_and_others_with_the_teachers_say() -> None:
    """Trap. Another truth changes the perturbation of labelled rows, and of no other; another teacher the reverse."""

    def delta(labels: Tensor, soft: Tensor) -> Tensor:
        method = UAT(steps=2)
        method.set_targets(soft, LABELLED)
        torch.manual_seed(1)
        passes, _ = run(method, fresh(method), {**images(), "labels": labels})
        assert passes[-1].delta is not None
        return passes[-1].delta

    labels = images()["labels"]
    base, truth, teacher = delta(labels, SOFT), delta((labels + 1) % 3, SOFT), delta(labels, SOFT.roll(1, 1))
    assert [not torch.equal(*rows) for rows in zip(base, truth, strict=True)] == [False, True, True, False]
    assert [not torch.equal(*rows) for rows in zip(base, teacher, strict=True)] == [True, False, False, True]


def test_hidden_labels_are_never_read() -> None:
    """What the data says of unlabelled rows may be anything, -100 included."""
    totals = []
    for hidden in (0, 2, -100):
        batch = images()
        batch["labels"] = torch.where(LABELLED[INDEX], batch["labels"], hidden)
        method = given(steps=2)
        torch.manual_seed(1)
        totals.append(run(method, fresh(method), batch)[1])
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])


def test_rows_without_a_label_need_no_list_of_them() -> None:
    totals = []
    for listed in (True, False):
        batch = images()
        batch["labels"] = torch.where(LABELLED[INDEX], batch["labels"], -100)
        method = UAT(steps=2)
        method.set_targets(SOFT, LABELLED if listed else None)
        torch.manual_seed(1)
        totals.append(run(method, fresh(method), batch)[1])
    assert torch.equal(*totals)


def test_a_batch_without_labels_is_learnt_from_the_teacher() -> None:
    method = UAT(steps=2)
    method.set_targets(SOFT, torch.zeros(6, dtype=torch.bool))
    model = fresh(method)
    (loss,) = method.losses(model, images())
    assert loss.parts["ce_adv"] == 0
    assert loss.total.isfinite()
    loss.total.backward()


def test_alpha_1_reads_the_truth_alone_where_there_is_one() -> None:
    batch, found = images(), []
    for soft in (SOFT, SOFT.flip(1)):
        method = UAT(steps=1, alpha=1.0)
        method.set_targets(soft)
        torch.manual_seed(1)
        found.append(run(method, fresh(method), batch)[1])
    assert torch.equal(*found)


def test_without_targets_the_model_of_the_start_is_the_teacher() -> None:
    """Through its clean batch norm, in eval mode, on the view at hand; and it costs a forward more."""
    method, batch = UAT(steps=2), images()
    assert (method.needs_reference_model, method.cost) == (True, "11F")
    model = fresh(method, dual=True)
    teacher = shaken(copy.deepcopy(model), seed=9)
    with torch.no_grad():  # a teacher that is not sure of itself, whose routes then say different things
        teacher.classifier.weight.mul_(0.05)
    method.set_reference_model(teacher)
    torch.manual_seed(1)
    _, total = run(method, model, batch)

    offline = UAT(steps=2)
    assert offline.needs_reference_model
    logits = torch.zeros(6, 3)
    logits[INDEX] = copy.deepcopy(teacher).eval()(batch, bn_branch="clean").logits.detach()
    offline.set_targets(logits)
    assert (offline.needs_reference_model, offline.cost) == (False, "10F")
    torch.manual_seed(1)
    _, expected = run(offline, fresh(offline, dual=True), batch)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dual", [False, True])
def test_online_targets_are_the_models_own(dual: bool) -> None:
    """Value, gradients and perturbation: KL is climbed from the clean prediction, which is a constant in the loss."""
    method, batch = UAT(target="online", steps=3, beta=1.5), images()
    assert (method.needs_reference_model, method.cost) == (False, "13F")
    batch["labels"] = torch.where(LABELLED[INDEX], batch["labels"], -100)
    model = fresh(method, dual=dual)
    with torch.no_grad():  # less sure of itself, so that KL is no rounding error
        model.classifier.weight.mul_(0.1)
    before = copy.deepcopy(model)
    passes, total = run(method, model, batch)
    x, still = batch["pixel_values"], copy.deepcopy(before).eval()
    start = next(each.delta for each in passes if each.delta is not None)
    clean = still(batch).logits.detach()

    def loss(delta: Tensor) -> Tensor:
        return slow.trades_attacked(clean, still(batch, delta=delta, bn_branch="adversarial").logits)

    delta = slow.climb(loss, x, start, epsilon=EPSILON, step_size=STEP_SIZE, steps=3)
    found = passes[-1].delta
    assert found is not None
    moved = slice(1, None)  # the first image's prediction is so sure that its KL is 0 in fp32
    assert ((found - delta)[moved].abs() < 1e-6).float().mean() > 0.99
    clean, adversarial = before(batch).logits, before(batch, delta=found, bn_branch="adversarial").logits
    expected = slow.online_targets(clean, adversarial, batch["labels"], beta=1.5)
    expected.backward()
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    close(grads(model), grads(before))


def test_online_targets_need_no_label_and_no_teacher() -> None:
    method, batch = UAT(target="online", steps=1), images()
    batch["labels"] = torch.full_like(batch["labels"], -100)
    method.prepare(FACTS)
    assert method.notes == ()
    (loss,) = method.losses(fresh(method), batch)
    assert loss.parts["ce"] == 0
    assert loss.total.isfinite()
    loss.total.backward()
    with pytest.raises(ValueError, match="the model's own"):
        method.set_targets(SOFT)


def test_targets_are_saved_with_the_methods_state() -> None:
    state = given().state_dict()
    other = UAT()
    other.set_targets(torch.zeros(6, 3), torch.zeros(6, dtype=torch.bool))
    other.load_state_dict(state)
    assert torch.equal(other.targets, SOFT)  # type: ignore[arg-type]
    assert torch.equal(other.labelled, LABELLED)  # type: ignore[arg-type]


def test_targets_that_do_not_fit_are_refused() -> None:
    method = UAT()
    for wrong in (torch.zeros(6), torch.full((6, 3), float("nan"))):
        with pytest.raises(ValueError, match="logits"):
            method.set_targets(wrong)
    with pytest.raises(ValueError, match="labelled"):
        method.set_targets(SOFT, LABELLED[:5])
    method.set_targets(SOFT)
    with pytest.raises(UserError, match="6 targets for 7 rows"):
        method.prepare(TrainingInfo(num_examples=7, hidden_size=64))
    with pytest.raises(UserError, match="scores"):
        UAT().prepare(replace(FACTS, labels=torch.rand(8)))
    with pytest.raises(ValueError, match="set_targets"):
        next(UAT().losses(fresh(method), images()))
