"""Classes of unequal size: weights of the cross-entropy, and balanced batches."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.tiny import LABELS, sentences
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import CrossEntropyLoss
from transformers import TrainerCallback

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.functional import labelled_loss, supervised_loss, weighting_classes
from contraverse.methods import CrossEntropy, SimCSE
from contraverse.training import Trainer
from contraverse.training.classes import BalancedSampler, weights_of_classes
from contraverse.types import UNLABELLED

Build = Callable[..., Trainer]


def unequal(labels: list[int] | None = None) -> TextData:
    labels = labels or [0] * 12 + [1] * 3 + [2] * 5
    return TextData.from_rows(sentences(len(labels)), labels, LABELS)


def test_balanced_weights_are_scikit_learns() -> None:
    data = unequal()
    weights = weights_of_classes("balanced", CrossEntropy(), data, LABELS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.asarray(data.labels))
    torch.testing.assert_close(weights, torch.from_numpy(expected).float())
    labels = torch.as_tensor(data.labels)
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_a_class_without_rows_and_rows_without_a_class_count_for_nothing() -> None:
    weights = weights_of_classes("balanced", CrossEntropy(), unequal([0] * 6 + [2] * 2), LABELS)
    assert weights.tolist() == pytest.approx([8 / 12, 1, 8 / 4])
    data = replace(unequal([0, 2]), repeats=[6, 2])  # a mixture sees the first row six times
    assert weights_of_classes("balanced", CrossEntropy(), data, LABELS).tolist() == weights.tolist()


def test_weights_by_name_and_what_is_refused() -> None:
    assert weights_of_classes({"blue": 4}, CrossEntropy(), unequal(), LABELS).tolist() == [1, 1, 4]
    with pytest.raises(UserError, match=r'"bleu"[^\n]*\n?.*blue'):
        weights_of_classes({"bleu": 4}, CrossEntropy(), unequal(), LABELS)
    with pytest.raises(UserError, match="positive"):
        weights_of_classes({"blue": 0}, CrossEntropy(), unequal(), LABELS)
    with pytest.raises(UserError, match="simcse reads no labels"):
        weights_of_classes("balanced", SimCSE(), unequal(), LABELS)
    with pytest.raises(UserError, match="scores"):
        weights_of_classes("balanced", CrossEntropy(), TextData.from_rows(sentences(2), [0.5, 2.0]), ["score"])


def test_the_loss_is_the_mean_of_weighted_rows() -> None:
    """torch's own mean divides by the weights; over parts of a batch that is another loss than over the whole."""
    logits, labels, weights = torch.randn(8, 3), torch.arange(8) % 3, torch.tensor([0.5, 4.0, 1.0])
    by_row = CrossEntropyLoss(weight=weights, reduction="none")(logits, labels)
    with weighting_classes(weights):
        loss, parts = (
            supervised_loss(logits, labels),
            [supervised_loss(logits[i : i + 4], labels[i : i + 4]) for i in (0, 4)],
        )
        torch.testing.assert_close(loss, by_row.mean())
        torch.testing.assert_close(torch.stack(parts).mean(), loss)
        known = torch.where(torch.arange(8) < 6, labels, UNLABELLED)
        torch.testing.assert_close(labelled_loss(logits, known), by_row[:6].mean())
        torch.testing.assert_close(supervised_loss(logits, known, reduction="none")[6:], torch.zeros(2))
        scores = torch.rand(8)
        torch.testing.assert_close(supervised_loss(logits[:, :1], scores), ((logits[:, 0] - scores) ** 2).mean())
    torch.testing.assert_close(supervised_loss(logits, labels), CrossEntropyLoss()(logits, labels))


def test_a_trainer_weights_its_steps_alone(build: Build) -> None:
    """One step of gradient descent on the whole data, against torch on the same logits."""
    data, losses = unequal(), []

    class Seen(CrossEntropy):
        def losses(self, model: Any, batch: Any) -> Any:
            for loss in super().losses(model, batch):
                by_row = torch.nn.functional.cross_entropy(model(batch).logits, batch["labels"], reduction="none")
                losses.append((float(loss.total.detach()), by_row.detach(), batch["labels"]))
                yield loss

    trainer = build(Seen(), data=data, class_weights="balanced", max_steps=2, per_device_train_batch_size=20)
    trainer.train()
    for total, by_row, labels in losses:
        weights = torch.tensor([20 / 36, 20 / 9, 20 / 15])
        assert total == pytest.approx(float((weights[labels] * by_row).mean()), rel=1e-5)
    assert supervised_loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)) == pytest.approx(np.log(3))


class Crash(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 7:
            raise RuntimeError("power failure")


class Classes(CrossEntropy):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []

    def losses(self, model: Any, batch: Any) -> Any:
        self.batches.append(batch["index"].tolist())
        yield from super().losses(model, batch)


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_a_resumed_run_has_the_balanced_batches_that_it_would_have_had(build: Build, strategy: str) -> None:
    settings = {"data": unequal(), "batches": "balanced", "train_sampling_strategy": strategy, "save_strategy": "steps"}
    settings |= {"save_steps": 1, "per_device_train_batch_size": 6, "num_train_epochs": 3}
    whole, first, second = Classes(), Classes(), Classes()
    build(whole, "whole", **settings).train()
    with pytest.raises(RuntimeError, match="power failure"):
        build(first, "part", callbacks=[Crash()], **settings).train()
    build(second, "part", **settings).train(resume_from_checkpoint=True)
    assert first.batches + second.batches == whole.batches
    labels = np.asarray(unequal().labels)
    assert all(Counter(labels[batch]) == {0: 2, 1: 2, 2: 2} for batch in whole.batches if len(batch) == 6)
    assert whole.batches[:4] != whole.batches[4:8]


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=300),
    st.integers(1, 20),
    st.integers(0, 3),
    st.booleans(),
)
def test_batches_are_balanced_to_within_one_row(
    labels: list[int], batch_size: int, epoch: int, by_length: bool
) -> None:
    lengths = np.arange(len(labels)) % 17 if by_length else None
    sampler = BalancedSampler(np.asarray(labels), batch_size, 3, lengths)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler) == len(labels)
    assert order == list(sampler)
    present = sorted(set(labels))
    for start in range(0, len(order), batch_size):
        counts = Counter(labels[row] for row in order[start : start + batch_size])
        sizes = [counts[label] for label in present]
        assert max(sizes) - min(sizes) <= 1
    for label in present:  # no row comes again before all others of its class came
        times = Counter(row for row in order if labels[row] == label)
        every = [times[row] for row in range(len(labels)) if labels[row] == label]
        assert max(every) - min(every) <= 1


def test_like_lengths_are_together_and_the_longest_first() -> None:
    random = np.random.default_rng(0)
    labels, lengths = (random.random(4000) < 0.2).astype(int), random.integers(3, 60, 4000)

    def padding(by_length: np.ndarray | None) -> float:
        order = np.asarray(list(BalancedSampler(labels, 32, 0, by_length)))
        batches = lengths[order].reshape(-1, 32)
        return float(1 - batches.sum() / (batches.max(1) * 32).sum())

    assert padding(lengths) < 0.1 < 0.4 < padding(None)
    first = list(BalancedSampler(labels, 32, 0, lengths))[:32]
    assert max(lengths[first]) == 59


def test_what_cannot_be_balanced_is_refused(build: Build) -> None:
    with pytest.raises(UserError, match="simcse reads no labels"):
        build(SimCSE(), batches="balanced")
    with pytest.raises(UserError, match="without a label"):
        BalancedSampler(np.array([0, UNLABELLED]), 2, 0)
    with pytest.raises(UserError, match="shuffled or balanced"):
        build(CrossEntropy(), batches="even")
