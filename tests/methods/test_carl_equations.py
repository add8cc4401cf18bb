"""CARL against its equations in plain loops: the losses, the banks, and whole steps on a classifier of words."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from reference import nce as reference
from reference.driving import Watched, losses_of
from reference.freelb_reference import Array
from reference.weighted_words import WeightedWords, ragged, random_classifier
from torch import Tensor

from contraverse.functional.nce import log_partition, nce, sampled_softmax
from contraverse.methods import METHODS
from contraverse.methods._memory_bank import MemoryBank, draw_negatives
from contraverse.types import Method, TrainingInfo

LENGTHS, LABELS = (6, 4, 3, 5, 2, 6), (0, 1, 2, 0, 1, 1)


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def some_scores(seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Of four anchors, with 5, 4, 3 and 1 negatives."""
    random = torch.Generator().manual_seed(seed)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    return torch.randn(4, generator=random) * scale, torch.randn(4, 5, generator=random) * scale, valid


def each(positive: Tensor, negatives: Tensor, valid: Tensor) -> Any:
    for p, n, v in zip(positive, negatives, valid, strict=True):
        yield float(p), [float(x) for x in n[v]]


@pytest.mark.parametrize("seed", range(3))
def test_both_estimators_are_the_loops(seed: int) -> None:
    scores = some_scores(seed)
    exact = np.mean([reference.softmax_loss(p, n) for p, n in each(*scores)])
    assert sampled_softmax(*scores).item() == pytest.approx(exact, rel=1e-5)
    for rows, log_z in ((9, 2.0), (50, -1.0)):
        estimate = np.mean([reference.nce_loss(p, n, log_z, rows) for p, n in each(*scores)])
        got = nce(*scores, log_z=torch.tensor(log_z), rows=rows)
        assert got.item() == pytest.approx(estimate, rel=1e-5)
        everything = [s for p, n in each(*scores) for s in (p, *n)]
        assert log_partition(*scores, rows=rows).item() == pytest.approx(
            reference.log_constant(everything, rows), rel=1e-5
        )


def test_scores_at_a_low_temperature_overflow_nowhere() -> None:
    """exp(1 / .005) is more than fp32 holds; what is not valid stays out however large it is."""
    positive, negatives, valid = torch.tensor([200.0]), torch.tensor([[-200.0, 900.0]]), torch.tensor([[True, False]])
    log_z = torch.tensor(200.0 + math.log(4))
    for loss in (sampled_softmax(positive, negatives, valid), nce(positive, negatives, valid, log_z=log_z, rows=4)):
        assert loss.isfinite()
    assert nce(positive, negatives, valid, log_z=log_z, rows=4).item() == pytest.approx(
        reference.nce_loss(200.0, [-200.0], float(log_z), 4), rel=1e-5
    )


def test_a_bank_is_updated_by_equation_5() -> None:
    """T13: rows of norm 1, and one that stands twice in a batch moves twice, in order."""
    random = torch.Generator().manual_seed(0)
    bank = MemoryBank(5, 4)
    first = torch.nn.functional.normalize(torch.randn(5, 4, generator=random), dim=1)
    bank.update(torch.arange(5), first, 0.5)
    np.testing.assert_allclose(array(bank.rows), array(first), atol=1e-6)
    index, features = torch.tensor([3, 1, 3, 0, 3]), torch.randn(5, 4, generator=random)
    features = torch.nn.functional.normalize(features, dim=1).requires_grad_()
    expected = reference.updated(array(first), index.tolist(), array(features), 0.3)
    bank.update(index, features, 0.3)
    np.testing.assert_allclose(array(bank.rows), expected, atol=1e-6)
    assert not bank.rows.requires_grad
    np.testing.assert_allclose((array(bank.rows) ** 2).sum(1), 1, rtol=1e-5)


def test_scores_let_gradients_to_the_anchors_alone() -> None:
    """T13."""
    bank = MemoryBank(3, 4)
    bank.update(torch.arange(3), torch.eye(4)[:3], 0.5)
    anchors = torch.randn(2, 4, requires_grad=True)
    scores = bank.scores(anchors)
    np.testing.assert_allclose(array(scores), array(anchors[:, :3]), rtol=1e-6)
    scores.sum().backward()
    assert anchors.grad is not None
    assert bank.rows.grad is None


@pytest.mark.parametrize("count", [2, 3, 5, 100])
def test_negatives_have_another_label_and_are_drawn_alike(count: int) -> None:
    """T12: no row of the anchor's label, none twice, and each as often as another."""
    of_rows, anchors = torch.tensor([0, 1, 1, 0, 2, 2, 1, 0]), torch.tensor([1, 0, 2])
    seen = torch.zeros(3, 8)
    for _ in range(400):
        rows, valid = draw_negatives(anchors, of_rows, count)
        for i in range(3):
            # None stands for all rows in order, of which those that may are marked.
            mine = (torch.arange(8) if rows is None else rows[i])[valid[i]].tolist()
            others = (of_rows != anchors[i]).sum()
            assert len(set(mine)) == len(mine) == min(count, others)
            assert all(of_rows[j] != anchors[i] for j in mine)
            seen[i, mine] += 1
    for i in range(3):
        counts = seen[i][of_rows != anchors[i]]
        share = min(count, len(counts)) / len(counts)
        assert (counts / 400 - share).abs().max() < 0.11


# whole steps


def ready(**settings: Any) -> tuple[Method, Watched, Any, Tensor]:
    """Six rows, all of them a batch, in another order than the data's: every step is an epoch."""
    method = METHODS["carl"](**{"start": 1, "negatives": None, "temperature": 0.2, "step_size": 0.3, **settings})
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    labels = torch.tensor(LABELS)
    method.prepare(TrainingInfo(num_examples=6, hidden_size=4, labels=labels))
    batch = ragged(LENGTHS)[0]
    batch = {name: value[order] for name, value in batch.items()} | {"labels": labels[order], "index": order}
    return method, Watched(WeightedWords(random_classifier())), batch, labels


def features(watched: Watched) -> list[Array]:
    """R of each pass, of norm 1."""
    return [np.stack([reference.unit(row) for row in array(call.out.h)]) for call in watched.watch.passes()]


def contrast(
    anchors: Array, bank: Array, index: list[int], labels: Tensor, log_z: float | None, t: float
) -> tuple[float, float]:
    """L_D of one side over all rows of other labels, and log Z of these scores."""
    losses, everything = [], []
    pairs = []
    for i, anchor in zip(index, anchors, strict=True):
        scores = reference.scores(anchor, bank, t)
        negatives = [s for j, s in enumerate(scores) if labels[j] != labels[i]]
        pairs.append((scores[i], negatives))
        everything += [scores[i], *negatives]
    fixed = reference.log_constant(everything, len(bank)) if log_z is None else log_z
    for positive, negatives in pairs:
        losses.append(reference.nce_loss(positive, negatives, fixed, len(bank)))
    return sum(losses) / len(losses), fixed


@pytest.mark.parametrize("estimator", ["nce", "softmax"])
@pytest.mark.parametrize("adversary", ["first", "last"])
@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_steps_are_equations_2_to_6(estimator: str, adversary: str, gamma: float) -> None:
    """Banks are filled in the first epoch; from the second on each side's anchors are scored against what the other
    bank held before, the positive included, and the banks move afterwards. Z is that of the first such batch.
    """
    settings = {"weight": 0.7, "momentum": 0.4, "steps": 3, "gamma": gamma, "adversary": adversary}
    method, watched, batch, labels = ready(estimator=estimator, **settings)
    index = batch["index"].tolist()
    banks: dict[str, Array] = {}
    log_z: dict[str, float | None] = {"original": None, "adversarial": None}
    for epoch in range(3):
        assert method.contrasts == (epoch > 0)
        watched.watch.calls.clear()
        watched.zero_grad()
        declared = method.passes
        losses = losses_of(method, watched, batch, still=False)
        assert len(losses) == declared
        calls, r = watched.watch.passes(), features(watched)
        (clean,) = (i for i, call in enumerate(calls) if call.delta is None or not call.delta.any())
        # The first perturbation that was climbed to is the second pass of FreeLB, whatever it starts from.
        climbed = [i for i in range(len(calls)) if i != clean][gamma > 0 :]
        r_clean, r_adv = r[clean], r[climbed[0 if adversary == "first" else -1]]
        if epoch == 0:
            for name, rows in (("original", r_clean), ("adversarial", r_adv)):
                banks[name] = np.zeros((6, 4))
                banks[name][index] = rows
            continue
        expected = 0.0
        for name, anchors in (("adversarial", r_clean), ("original", r_adv)):
            loss, log_z[name] = contrast(anchors, banks[name], index, labels, log_z[name], 0.2)
            if estimator == "softmax":
                scores = [reference.scores(a, banks[name], 0.2) for a in anchors]
                loss = np.mean(
                    [
                        reference.softmax_loss(s[i], [v for j, v in enumerate(s) if labels[j] != labels[i]])
                        for i, s in zip(index, scores, strict=True)
                    ]
                )
            expected += 0.7 * float(loss)
        freelb = [call for i, call in enumerate(calls) if gamma == 0 or i != clean]
        assert len(freelb) == 3
        ce = [torch.nn.functional.cross_entropy(call.out.logits, batch["labels"]).item() for call in freelb]
        assert sum(loss.total.item() for loss in losses) == pytest.approx(np.mean(ce) + expected, rel=1e-4)
        banks["original"] = reference.updated(banks["original"], index, r_clean, 0.4)
        banks["adversarial"] = reference.updated(banks["adversarial"], index, r_adv, 0.4)
        np.testing.assert_allclose(array(method.clean.rows), banks["original"], atol=1e-5)
        np.testing.assert_allclose(array(method.adversarial.rows), banks["adversarial"], atol=1e-5)
