"""FreeLB against Algorithm 1 on a classifier whose gradients are known, and its traps on tiny encoders."""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from reference import freelb_reference as reference
from reference.driving import Watched, flat, gradients, losses_of
from reference.tiny import random_batch
from reference.weighted_words import WeightedWords, cut, ragged, random_classifier
from torch import Tensor, nn

from contraverse.functional import supervised_loss
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.types import Method

Make = Callable[..., TextModel]
CONVENTIONS = {"passes": "hf", "ascents": "fairseq"}
"""What ``count`` calls each of the authors' two codes."""


def freelb(**settings: Any) -> Method:
    return METHODS["freelb"](**settings)


def deltas_of(method: Method, model: nn.Module, batch: Any) -> list[Tensor]:
    """The perturbation of every pass of one step."""
    watched = Watched(model)
    losses_of(method, watched, batch, still=False)
    return [call.delta for call in watched.watch.passes()]


# Algorithm 1


@pytest.mark.parametrize("count", list(CONVENTIONS))
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("epsilon", [None, 0.35])
@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_a_whole_step_is_algorithm_1(count: str, norm: str, epsilon: float | None, gamma: float) -> None:
    """Every delta, every loss and the accumulated gradient, from the start that was drawn."""
    like = random_classifier()
    batch, sentences, labels = ragged()
    settings = {"steps": 3, "step_size": 0.2, "epsilon": epsilon, "norm": norm}
    method, model = freelb(gamma=gamma, count=count, **settings), Watched(WeightedWords(like))
    losses = losses_of(method, model, batch, still=False)
    got = [call.delta for call in model.watch.passes()]
    deltas, expected, slopes = reference.freelb(
        like, sentences, labels, cut(got[0], sentences), convention=CONVENTIONS[count], **settings
    )
    assert len(got) == len(deltas) == len(losses) == method.passes
    for ours, theirs in zip(got, deltas, strict=True):
        for a, b in zip(cut(ours, sentences), theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        assert (ours[batch["attention_mask"] == 0] == 0).all()
    assert [loss.total.item() * method.passes for loss in losses] == pytest.approx(expected, rel=1e-5)
    for name, slope in slopes.items():
        np.testing.assert_allclose(getattr(model.module, name).grad, slope, atol=1e-5)
    assert (got[0] == 0).all() == (gamma == 0)


@pytest.mark.parametrize("count", list(CONVENTIONS))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_passes_and_ascents_are_counted_as_the_convention_says(steps: int, count: str) -> None:
    """T4: forwards, backwards, and perturbations that were climbed to."""
    method, model = freelb(steps=steps, count=count, epsilon=None), Watched(WeightedWords(random_classifier()))
    backwards = len(losses_of(method, model, ragged()[0]))
    passes, ascents = reference.counts(steps, CONVENTIONS[count])
    got = [call.delta for call in model.watch.passes()]
    assert backwards == len(got) == method.passes == passes
    assert sum(not torch.equal(a, b) for a, b in zip(got[1:], got, strict=False)) == ascents
    assert all(call.grad_enabled for call in model.watch.passes())


def test_the_convention_of_the_paper_is_the_default() -> None:
    assert freelb(steps=3).passes == reference.counts(3, "hf")[0]


# the start


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_start_is_as_large_as_gamma_says(norm: str) -> None:
    """L2: entries within gamma / sqrt(T_i D), squared norm gamma^2 / 3 in the mean, of each row's own length."""
    gamma, width = 0.5, 16
    lengths = tuple(3 + i % 20 for i in range(400))
    batch, sentences, _ = ragged(lengths)
    model = WeightedWords(random_classifier(width=width, places=max(lengths)))
    (delta,) = deltas_of(freelb(steps=1, gamma=gamma, norm=norm, epsilon=None), model, batch)
    rows = cut(delta, sentences)
    largest = [gamma if norm == "linf" else gamma / math.sqrt(row.size) for row in rows]
    # The same entries as draws from U(-1, 1): the reference makes the start of them.
    draws = np.concatenate([(row / bound).ravel() for row, bound in zip(rows, largest, strict=True)])
    assert np.abs(draws).max() <= 1 + 1e-6
    assert np.abs(draws).max() > 0.999
    assert draws.mean() == pytest.approx(0, abs=0.01)
    assert (draws**2).mean() == pytest.approx(1 / 3, rel=0.02)
    for row, bound in zip(rows, largest, strict=True):
        np.testing.assert_allclose(reference.start(row / bound, gamma, None, norm), row, rtol=1e-5)
    if norm == "l2":
        assert np.mean([(row**2).sum() for row in rows]) == pytest.approx(gamma**2 / 3, rel=0.02)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_start_is_projected_too(norm: str) -> None:
    """T6: the authors' code projects only what it climbed to."""
    epsilon = 0.05
    batch, sentences, _ = ragged()
    method = freelb(steps=2, gamma=3.0, epsilon=epsilon, norm=norm)
    for delta in deltas_of(method, WeightedWords(random_classifier()), batch):
        sizes = [reference.size(row, norm) for row in cut(delta, sentences)]
        assert max(sizes) == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_limit_is_none_and_never_zero(norm: str) -> None:
    """T6: without a limit the perturbation grows with every step; 0 is refused."""
    batch, sentences, _ = ragged()
    model = WeightedWords(random_classifier())
    free = deltas_of(freelb(steps=6, step_size=0.2, epsilon=None, norm=norm), model, batch)
    held = deltas_of(freelb(steps=6, step_size=0.2, epsilon=0.3, norm=norm), model, batch)
    assert max(reference.size(row, norm) for row in cut(free[-1], sentences)) > 0.8
    assert max(reference.size(row, norm) for row in cut(held[-1], sentences)) <= 0.3 + 1e-6
    for wrong in (0, 0.0, -0.1):
        with pytest.raises(ValueError, match="epsilon"):
            freelb(epsilon=wrong)


# the traps, on encoders


def test_what_the_encoder_is_given_is_the_words_and_the_current_delta(tiny_model: Make, batch: Any) -> None:
    """T5: nothing is added twice, and no step adds to what the one before was given."""
    model = tiny_model(dropout=0.0).train()
    given: list[Tensor] = []
    hook = model.encoder.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["inputs_embeds"].detach()), with_kwargs=True
    )
    deltas = deltas_of(freelb(steps=4, step_size=0.1, gamma=0.2), model, batch)
    hook.remove()
    words = model.encoder.get_input_embeddings()(batch["input_ids"]).detach()
    assert len(given) == len(deltas) == 4
    for embeds, delta in zip(given, deltas, strict=True):
        torch.testing.assert_close(embeds - words, delta, rtol=1e-4, atol=1e-6)
    for before, after in pairwise(deltas):
        torch.testing.assert_close((after - before).flatten(1).norm(dim=1), torch.full((4,), 0.1), rtol=1e-4, atol=0)


def test_with_delta_zero_the_logits_are_the_clean_ones(tiny_model: Make, batch: Any) -> None:
    """T1: position, type and layer norm are not applied twice."""
    for architecture in ("bert", "albert", "deberta-v2", "modernbert"):
        model = tiny_model(architecture)
        watched = Watched(model)
        losses_of(freelb(steps=1, gamma=0.0), watched, batch)
        torch.testing.assert_close(watched.watch.passes()[0].out.logits, model(batch).logits, rtol=1e-5, atol=1e-5)


def test_parameters_get_the_gradients_of_the_losses_and_nothing_else(tiny_model: Make, batch: Any) -> None:
    """T9: making a perturbation leaves no gradient behind but the training's own."""
    method, model = freelb(steps=3, step_size=0.2, epsilon=0.3), tiny_model(dropout=0.0).train()
    deltas = deltas_of(method, model, batch)
    got = gradients(method, model, batch)
    model.zero_grad()
    for delta in deltas:
        (supervised_loss(model(batch, delta=delta).logits, batch["labels"]) / len(deltas)).backward()
    want = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-4, atol=1e-6)


def test_padding_is_never_perturbed(tiny_model: Make, batch: Any) -> None:
    """T3: in an encoder padding has a gradient of its own, were it not masked."""
    model = tiny_model(dropout=0.0).train()
    for norm in ("l2", "linf"):
        for delta in deltas_of(freelb(steps=3, gamma=0.5, norm=norm), model, batch):
            assert (delta[batch["attention_mask"] == 0] == 0).all()
            assert (delta[batch["attention_mask"] == 1] != 0).all()


def test_a_row_is_perturbed_alike_alone_and_in_a_batch(tiny_model: Make, batch: Any) -> None:
    """T2, T8."""
    model = tiny_model(dropout=0.0).train()
    method = freelb(steps=3, step_size=0.2, epsilon=0.3)
    together = deltas_of(method, model, batch)[-1]
    for i in range(4):
        row = {k: v[i : i + 1] for k, v in batch.items()}
        torch.testing.assert_close(deltas_of(method, model, row)[-1][0], together[i], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(together.flatten(1).norm(dim=1), torch.full((4,), 0.3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("architecture", ["bert", "albert", "deberta-v2", "modernbert"])
def test_all_passes_of_a_step_share_their_dropout_masks(tiny_model: Make, batch: Any, architecture: str) -> None:
    """T10: in every module that drops, and a step draws as much at random as one pass."""
    model = tiny_model(architecture, dropout=0.1).train()
    # A step so small that only the masks can make two passes differ.
    nowhere = {"steps": 3, "step_size": 1e-9, "gamma": 0.0}
    torch.manual_seed(5)
    model(batch)
    after_one = torch.get_rng_state()
    for share in (True, False):
        torch.manual_seed(5)
        watched = Watched(model)
        losses_of(freelb(share_dropout=share, **nowhere), watched, batch)
        first, *others = [call.out.logits for call in watched.watch.passes()]
        assert len(others) == 2
        for other in others:
            assert torch.allclose(first, other, rtol=1e-4, atol=1e-5) == share
        assert torch.equal(torch.get_rng_state(), after_one) == share
    again = Watched(model)
    losses_of(freelb(**nowhere), again, batch)  # the next step draws masks of its own
    assert not torch.allclose(again.watch.passes()[0].out.logits, first, rtol=1e-3, atol=1e-4)


def test_a_start_at_random_does_not_hide_the_masks(tiny_model: Make, batch: Any) -> None:
    """T10 with gamma > 0, where the start draws between the masks of two steps."""
    model = tiny_model(dropout=0.1).train()
    torch.manual_seed(5)
    watched = Watched(model)
    losses_of(freelb(steps=3, step_size=1e-9, gamma=1e-9), watched, batch, still=False)
    first, *others = [call.out.logits for call in watched.watch.passes()]
    for other in others:
        torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-5)


class Meter:
    """Bytes that autograd holds for a backward pass: each storage once, parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.still_correct: dict[int, list[int]] = {}
        self.now = self.peak = 0

    def take(self, tensor: Tensor) -> Any:
        return Held(tensor, self)

    @contextmanager
    def watching(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(self.take, lambda held: held.tensor):
            yield


class Held:
    """One saved tensor; the storage is given up with the last of them."""

    def __init__(self, tensor: Tensor, meter: Meter) -> None:
        self.tensor, self.meter = tensor, meter
        storage = tensor.untyped_storage()
        self.place = storage.data_ptr()
        if self.place in meter.weights:
            return
        entry = meter.still_correct.setdefault(self.place, [0, storage.nbytes()])
        entry[0] += 1
        if entry[0] == 1:
            meter.now += entry[1]
            meter.peak = max(meter.peak, meter.now)

    def __del__(self) -> None:
        entry = self.meter.still_correct.get(self.place)
        if entry is not None:
            entry[0] -= 1
            if entry[0] == 0:
                self.meter.now -= entry[1]
                del self.meter.still_correct[self.place]


def peak(work: Callable[[], Any], model: nn.Module) -> int:
    meter = Meter(model)
    with meter.watching():
        work()
    gc.collect()  # what a cycle kept counted in the peak all the same
    assert meter.now == 0
    return meter.peak


def test_the_passes_of_a_step_do_not_add_up_in_memory(tiny_model: Make) -> None:
    """One graph is held at a time: K = 4 peaks where K = 1 does. Four graphs held at once would be four times that."""
    model, batch = tiny_model(dropout=0.1).train(), random_batch(8, 16)

    def step(steps: int) -> int:
        return peak(lambda: losses_of(freelb(steps=steps, gamma=0.2), model, batch), model)

    def all_at_once() -> None:
        method = freelb(steps=4)
        sum(supervised_loss(model(batch).logits, batch["labels"]) for _ in range(method.passes)).backward()

    one = step(1)
    assert one > 100_000
    assert step(4) <= 1.1 * one
    assert peak(all_at_once, model) > 3.5 * one
