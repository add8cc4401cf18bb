"""SMART: the attack, the two regularisers, and the weights of earlier on, which are a copy that the method holds."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import smart_reference as reference
from reference.driving import Watched, flat, gradients, losses_of, make, ready
from safetensors.torch import load_file
from torch import Tensor

from contraverse.methods import METHODS, SMART
from contraverse.models import TextModel
from contraverse.recipes import configure, parse_range, space_of
from contraverse.training import Trainer
from contraverse.types import Method

Make = Callable[..., TextModel]
FAR = {"epsilon": 0.05, "step_size": 0.1, "sigma": 0.01}
both = pytest.mark.parametrize("name", ["smart", "alum"])


def build(tiny_model: Make, name: str = "smart", dropout: float = 0.0, **settings: Any) -> tuple[Any, TextModel]:
    method = METHODS[name](**{**FAR, **settings})
    model = tiny_model(dropout=dropout).train()
    ready(method, model)
    return method, model


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def regression(batch: Any) -> Any:
    return {**batch, "labels": torch.tensor([0.5, -1.0, 2.0, 0.0])}


# the attack


@both
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_passes_and_where_they_are(tiny_model: Make, batch: Any, name: str, steps: int) -> None:
    """T4, T5: a clean pass, one from each start, one at the end; no perturbation holds an earlier one's twice."""
    method, model = build(tiny_model, name, steps=steps, epsilon=None)
    watched = Watched(model)
    losses_of(method, watched, batch)
    calls = watched.watch.passes()
    assert len(calls) == 2 + steps
    assert calls[0].delta is None
    deltas = [call.delta for call in calls[1:]]
    for before, after in pairwise(deltas):
        assert before is not None
        assert after is not None
        moved = (after - before).abs().flatten(1).amax(1)
        torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=1e-3, atol=1e-5)


@both
@pytest.mark.parametrize(("norm", "scope"), [("linf", "sequence"), ("linf", "token"), ("l2", "sequence")])
def test_the_ascent_follows_the_distance(tiny_model: Make, batch: Any, name: str, norm: Any, scope: Any) -> None:
    """``g / ||g||`` of the symmetrised KL from the clean prediction, taken apart by torch's own divergence."""
    method, model = build(tiny_model, name, norm=norm, scope=scope, epsilon=None, mu=0.0) if name == "smart" else build(
        tiny_model, name, norm=norm, scope=scope, epsilon=None
    )  # fmt: skip
    watched = Watched(model)
    losses_of(method, watched, batch)
    clean, start, end = watched.watch.passes()
    assert start.delta is not None
    assert end.delta is not None
    delta = start.delta.clone().requires_grad_()
    p, q = clean.out.logits.detach().log_softmax(-1), model(batch, delta=delta).logits.log_softmax(-1)
    divergence = F.kl_div(q, p, log_target=True, reduction="sum") + F.kl_div(p, q, log_target=True, reduction="sum")
    (grad,) = torch.autograd.grad(divergence, delta)
    mask = batch["attention_mask"].bool()
    for row in range(4):
        g = array(grad[row][mask[row]])
        moved = array((end.delta - start.delta)[row][mask[row]])
        groups = range(len(g)) if scope == "token" else [slice(None)]
        for group in groups:
            size = np.abs(g[group]).max() if norm == "linf" else np.sqrt((g[group] ** 2).sum())
            np.testing.assert_allclose(moved[group], 0.1 * g[group] / size, rtol=2e-2, atol=1e-4)


@both
def test_it_stays_in_its_ball_and_off_the_padding(tiny_model: Make, batch: Any, name: str) -> None:
    """T2, T3."""
    method, model = build(tiny_model, name, steps=3)
    watched = Watched(model)
    losses_of(method, watched, batch)
    mask = batch["attention_mask"].bool()
    for call in watched.watch.passes()[1:]:
        assert call.delta is not None
        assert (call.delta[~mask] == 0).all()
        assert (call.delta[mask] != 0).any(-1).all()
    assert watched.watch.passes()[-1].delta.abs().flatten(1).amax(1).tolist() == pytest.approx([0.05] * 4, rel=1e-5)


@both
def test_noise_has_the_size_that_it_says(tiny_model: Make, batch: Any, name: str) -> None:
    method, model = build(tiny_model, name, steps=0, sigma=0.3)
    watched = Watched(model)
    losses_of(method, watched, batch, still=False)
    delta = watched.watch.passes()[-1].delta[batch["attention_mask"].bool()]
    assert delta.std().item() == pytest.approx(0.3, rel=0.1)
    assert delta.mean().item() == pytest.approx(0.0, abs=0.05)


@both
def test_without_a_perturbation_nothing_changes(tiny_model: Make, batch: Any, name: str) -> None:
    """T1, T10: the embedding is not run twice, and the passes share their masks unless told otherwise."""
    settings = {"steps": 0, "sigma": 0.0}
    method, model = build(tiny_model, name, dropout=0.2, **settings)
    watched = Watched(model)
    losses_of(method, watched, batch, still=False)
    clean, moved = (call.out.logits for call in watched.watch.passes())
    torch.testing.assert_close(moved, clean)
    method, model = build(tiny_model, name, dropout=0.2, share_dropout=False, **settings)
    watched = Watched(model)
    losses_of(method, watched, batch, still=False)
    clean, moved = (call.out.logits for call in watched.watch.passes())
    assert (moved - clean).abs().max() > 1e-2


# the loss


def test_the_total_is_that_of_the_paper(tiny_model: Make, batch: Any) -> None:
    method, model = build(tiny_model, weight=2.0, mu=0.7)
    watched = Watched(model)
    (loss,) = losses_of(method, watched, batch)
    clean, moved = (array(watched.watch.passes()[i].out.logits) for i in (0, -1))
    earlier = array(method.reference_model(batch).logits)
    parts = [F.cross_entropy(torch.from_numpy(clean), batch["labels"]).item(),
             reference.mean_of(reference.symmetric_kl, moved, clean),
             reference.mean_of(reference.symmetric_kl, clean, earlier)]  # fmt: skip
    assert [loss.parts[n].item() for n in ("ce", "smoothness", "bregman")] == pytest.approx(parts, rel=1e-3)
    assert min(parts) > 1e-3
    assert loss.total.item() == pytest.approx(reference.smart_total(*parts, 2.0, 0.7), rel=1e-4)


@both
def test_a_regression_is_held_by_squared_distances(tiny_model: Make, batch: Any, name: str) -> None:
    method = METHODS[name](**FAR, weight=2.0)
    model = tiny_model(labels=("score",), dropout=0.0).train()
    ready(method, model)
    watched, batch = Watched(model), regression(batch)
    (loss,) = losses_of(method, watched, batch)
    clean, moved = (array(watched.watch.passes()[i].out.logits) for i in (0, -1))
    total = F.mse_loss(torch.from_numpy(clean[:, 0]).float(), batch["labels"]).item()
    total += 2 * reference.mean_of(reference.squared, moved, clean)
    if name == "smart":
        total += reference.mean_of(reference.squared, clean, array(method.reference_model(batch).logits))
    assert loss.total.item() == pytest.approx(total, rel=1e-4)


def test_the_gradient_goes_through_both_predictions(tiny_model: Make, batch: Any) -> None:
    """Eq. (2) holds neither constant; the perturbation is."""
    method, model = build(tiny_model, weight=3.0, mu=0.5)
    watched = Watched(model)
    losses_of(method, watched, batch)
    delta = watched.watch.passes()[-1].delta
    got = gradients(method, model, batch)
    model.zero_grad()
    p, q = model(batch).logits.log_softmax(-1), model(batch, delta=delta).logits.log_softmax(-1)
    with torch.no_grad():
        r = method.reference_model(batch).logits.log_softmax(-1)
    distance = lambda a, b: ((a.exp() - b.exp()) * (a - b)).sum(-1).mean()  # noqa: E731
    (F.nll_loss(p, batch["labels"]) + 3 * distance(p, q) + 0.5 * distance(p, r)).backward()
    want = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-3, atol=1e-5)


def test_noise_alone_is_r3f(tiny_model: Make, batch: Any) -> None:
    method, model = build(tiny_model, steps=0, sigma=0.1, epsilon=None, mu=0.0, weight=0.5)
    watched = Watched(model)
    (loss,) = losses_of(method, watched, batch)
    clean, noisy = (array(call.out.logits) for call in watched.watch.passes())
    ce = F.cross_entropy(torch.from_numpy(clean), batch["labels"]).item()
    assert loss.total.item() == pytest.approx(reference.r3f_total(ce, clean, noisy, 0.5), rel=1e-4)
    assert float(loss.parts["zero_grad_rows"]) == 0
    assert method.cost == "6F"


# the weights of earlier on


def test_they_follow_the_weights(tiny_model: Make) -> None:
    """Eq. (5)."""
    method, model = build(tiny_model, momentum=0.75)
    before = [p.clone() for p in method.reference_model.parameters()]
    method.after_step(model)
    for old, now, weight in zip(before, method.reference_model.parameters(), model.parameters(), strict=True):
        expected = reference.momentum_copy(array(old).ravel(), array(weight).ravel(), 0.75)
        np.testing.assert_allclose(array(now).ravel(), expected, rtol=1e-4, atol=1e-6)
    assert not any(p.requires_grad for p in method.reference_model.parameters())


def test_they_predict_without_dropout(tiny_model: Make, batch: Any) -> None:
    method, model = build(tiny_model, dropout=0.3)
    method.set_reference_model(copy.deepcopy(model))
    first, second = (method.reference_model(batch).logits for _ in range(2))
    assert torch.equal(first, second)
    assert model.training


def test_without_them_there_is_a_word_of_what_to_do(tiny_model: Make, batch: Any) -> None:
    with pytest.raises(ValueError, match="set_reference_model"):
        next(SMART().losses(tiny_model(), batch))
    assert not SMART(mu=0.0).needs_reference_model
    assert (SMART(mu=0.0).cost, SMART().cost, SMART(steps=3).cost) == ("8F", "9F", "13F")
    next(SMART(mu=0.0).losses(tiny_model(), batch))


@pytest.mark.parametrize("bf16", [False, True])
def test_a_trainer_hands_them_over_moves_them_and_saves_them(
    tiny_model: Make, tmp_path: Path, bf16: bool, rows_of: Any
) -> None:
    """Twelve rows in micro-batches of two and steps of four: three steps, and as many moves."""
    method = SMART(**FAR, momentum=0.5)
    model = tiny_model(dropout=0.1)
    begun = [p.detach().clone() for p in model.parameters()]
    seen: list[list[Tensor]] = []

    class Recorded(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            seen.append([p.detach().clone() for p in model.parameters()])
            return result

    arguments: dict[str, Any] = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3, "save_strategy": "steps",
        "save_steps": 3, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": bf16,
    }  # fmt: skip
    trainer = Trainer(model, method, rows_of(12), output_dir=tmp_path, **arguments)
    trainer.optimizer = Recorded(model.parameters(), lr=0.1)
    for mine, its in zip(method.reference_model.parameters(), begun, strict=True):
        assert torch.equal(mine, its)
    addresses = {p.data_ptr() for p in model.parameters()}
    assert not addresses & {p.data_ptr() for p in method.reference_model.parameters()}
    trainer.train()
    assert len(seen) == 3
    expected = begun
    for weights in seen:
        expected = [0.5 * old + 0.5 * new for old, new in zip(expected, weights, strict=True)]
    for mine, its in zip(method.reference_model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, its)
    stored = load_file(tmp_path / "checkpoint-3" / "method.safetensors")
    assert stored.keys() == method.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in method.state_dict().items())


def test_tied_weights_can_be_saved(tiny_model: Make, tmp_path: Path, rows_of: Any) -> None:
    class Tied(Method):
        name, summary, paper, equation, requires, cost = "tied", "a test", "none", "none", "labels", "3F"

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(3, 3, bias=False).requires_grad_(False)
            self.second = torch.nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        losses = METHODS["ce"].losses

    arguments: dict[str, Any] = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "report_to": "none",
                                 "disable_tqdm": True, "use_cpu": True}  # fmt: skip
    Trainer(tiny_model(), Tied(), rows_of(12), output_dir=tmp_path, **arguments).train()
    assert load_file(tmp_path / "checkpoint-1" / "method.safetensors").keys() == {"first.weight", "second.weight"}


@pytest.fixture
def rows_of() -> Any:
    from reference.tiny import rows

    return rows


def test_the_defaults_are_the_papers_but_for_the_size() -> None:
    method = make("smart")
    assert (method.weight, method.mu, method.sigma, method.steps) == (1.0, 1.0, 0.005, 1)
    assert (method.ball.epsilon, method.ball.step_size, method.ball.norm) == (0.02, 0.02, "linf")


PAPER = {"epsilon": 1e-5, "step_size": 1e-3, "sigma": 1e-5}
TEXTS = ["a fine film", "the plot is thin and the actors look tired of it", "not bad at all", "do not watch this"] * 2


@pytest.mark.parametrize("name", ["smart", "alum"])
def test_the_regulariser_has_an_effect(name: str) -> None:
    """At least a percent of the gradient, as the recipe has it and with the paper's size under masks of their own."""
    torch.manual_seed(0)
    model = TextModel.from_pretrained("minilm", labels=("no", "yes"), keep_layers=3)
    batch = dict(model.tokenizer(TEXTS, return_tensors="pt", padding=True))
    batch["labels"] = torch.arange(8) % 2
    ce = METHODS["ce"]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    for _ in range(12):
        gradients(ce, model.train(), batch)
        optimizer.step()

    def gradient(method: Any) -> Any:
        torch.manual_seed(1)  # the same masks in the clean pass
        return flat(gradients(method, model, batch, still=False))

    plain = gradient(ce)
    recipe = configure(name).method.model_dump(exclude={"name"})

    def effect(**settings: Any) -> float:
        """Of the regulariser alone, without D_Breg."""
        alone = {"mu": 0.0} if name == "smart" else {}
        return float((gradient(METHODS[name](**{**recipe, **settings, **alone})) - plain).norm() / plain.norm())

    assert effect() > 0.01
    assert effect(**PAPER, share_dropout=False) > 0.01
    assert effect(**PAPER) < 1e-4
    searched = space_of(name)
    for setting, value in {"epsilon": 1e-5, "step_size": 1e-3, "share_dropout": False}.items():
        assert value in parse_range(setting, searched[f"method.{setting}"])


@both
@pytest.mark.parametrize("wrong", [{"sigma": -1}, {"steps": -1}, {"epsilon": 0}, {"weight": -1}, {"step_size": 0}])
def test_impossible_settings_are_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        METHODS[name](**wrong)
    with pytest.raises(ValueError, match="momentum"):
        SMART(momentum=1.0)
