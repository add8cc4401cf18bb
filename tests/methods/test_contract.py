"""What holds for every method of the table; a new one is covered by standing in it."""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.bfloat16 import within_rounding
from reference.driving import (
    CASES,
    TEXT_CASES,
    Replayed,
    Watched,
    flat,
    gradients,
    losses_of,
    make,
    needed,
    ready,
    settled,
)
from reference.images import image_batch, tiny
from reference.tiny import take
from torch import Tensor

from contraverse.functional import weighting_classes
from contraverse.methods import METHODS
from contraverse.models import ImageModel, TextModel
from contraverse.types import Method

Make = Callable[..., TextModel]
each = pytest.mark.parametrize("case", list(CASES))
each_of_texts = pytest.mark.parametrize("case", TEXT_CASES)
every = pytest.mark.parametrize("name", list(METHODS))


@pytest.fixture
def model_for(tiny_model: Make) -> Callable[..., TextModel]:
    def build(method: Method, dropout: float = 0.0, **settings: Any) -> TextModel | ImageModel:
        model: TextModel | ImageModel
        if method.modality == "images":  # in eval mode: in training mode batch norm remembers every pass
            model = tiny(heads=method.heads)
        else:
            model = tiny_model(dropout=dropout, heads=method.heads, **settings).train()
        ready(method, model)
        return model

    return build


@pytest.fixture
def full_batch(request: pytest.FixtureRequest, full_batch: dict[str, Any]) -> dict[str, Any]:
    """Of images for a method that reads them alone."""
    name, _ = CASES.get(request.node.callspec.params.get("case", ""), ("ce", {}))
    if METHODS[name].modality != "images":
        return full_batch
    # Of parts smaller than these torch computes no bfloat16 gradient on CPU: a stride of 2 on one pixel gives noise.
    pair = {"pixel_values": image_batch(size=16, seed=1)["pixel_values"]}
    return {**image_batch(size=16), "positive": pair, "negative": pair}


# the table


@every
def test_a_method_describes_itself(name: str) -> None:
    cls = METHODS[name]
    assert cls.name == name
    assert cls.requires in ("labels", "inputs", "pairs")
    assert re.fullmatch(r"\d+(\.\d+)?F", cls().cost)
    assert cls().passes >= 1
    for text in (cls.summary, cls.paper, cls.equation, inspect.getdoc(cls)):
        assert text
        assert text.strip()
    assert len(cls.summary) <= 70
    assert cls.summary.split()[0] not in ("What", "Of", "Whether", "Which", "Whoever", "How", "That")
    doc = inspect.getdoc(cls) or ""
    assert "Batch:" in doc
    assert f"{cls().cost}" in doc


@each
def test_stochastic_says_whether_a_step_draws(case: str, model_for: Any, full_batch: Any) -> None:
    """Without dropout: with other seeds a step gives other gradients, or the same to the last bit."""
    grads = []
    for seed in (1, 2):
        method = make(case)
        model = model_for(method)
        torch.manual_seed(seed)
        grads.append(flat(gradients(method, model, full_batch, still=False)))
    assert torch.equal(*grads) == (not make(case).stochastic), f"set stochastic = {not make(case).stochastic}"


# the five rules


@each
def test_it_yields_as_often_as_it_says(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    assert len(losses_of(method, model_for(method), full_batch)) == method.passes


@each
def test_a_loss_scale_changes_neither_the_attack_nor_the_direction(case: str, model_for: Any, full_batch: Any) -> None:
    """Mixed precision multiplies the loss; what a perturbation climbs must not notice."""
    method = make(case)
    runs = []
    for factor in (1.0, 1024.0):
        model = Watched(model_for(method))
        grads = gradients(make(case), model, full_batch, factor)
        runs.append(([c.delta for c in model.watch.calls], flat(grads) / factor))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(runs[1][1], runs[0][1], rtol=1e-4, atol=1e-5)


@each
def test_only_the_driver_back_propagates(case: str, model_for: Any, full_batch: Any) -> None:
    """T9: before the first backward no parameter has a gradient, and there is no step, zeroing or clipping."""
    method = make(case)
    model = model_for(method)
    marks = {}
    for name, p in model.named_parameters():
        p.grad = torch.full_like(p, 0.5)
        marks[name] = p.detach().clone()
    losses = method.losses(model, full_batch)
    next(losses)
    for name, p in model.named_parameters():
        assert p.grad is not None
        assert (p.grad == 0.5).all()
        assert torch.equal(p, marks[name])


# what it leaves behind


@each_of_texts
@pytest.mark.parametrize("training", [True, False])
def test_modes_flags_and_weights_are_as_they_were(case: str, model_for: Any, full_batch: Any, training: bool) -> None:
    method = make(case)
    model = model_for(method, dropout=0.1).train(training)
    model.encoder.base_model.embeddings.position_embeddings.weight.requires_grad_(False)
    model.encoder.base_model.encoder.layer[0].eval()  # a part that is frozen stays so
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    losses_of(method, model, full_batch)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    # Those of transformers' that catch hidden states stay from the first pass that is asked for them.
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert all(hook.__module__.startswith("transformers.") for hook in hooks)


@each
def test_the_batch_is_not_changed(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    copies = {k: v.clone() for k, v in full_batch.items() if isinstance(v, torch.Tensor)}
    losses_of(method, model_for(method), full_batch)
    assert all(torch.equal(full_batch[k], v) for k, v in copies.items())
    assert set(full_batch) == {*copies, "positive", "negative"}


@each
def test_without_dropout_only_some_draw_at_random(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    model = model_for(method)
    state = torch.get_rng_state()
    losses_of(method, model, full_batch, still=False)
    assert torch.equal(torch.get_rng_state(), state) != method.stochastic


@each
def test_a_seed_gives_the_same_gradients_to_the_bit(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    model = model_for(method, dropout=0.1)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(flat(gradients(make(case), model, full_batch, still=False)))
    assert torch.equal(*runs)


@each
def test_it_holds_settings_and_buffers_and_never_the_model(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    model = model_for(method)
    state = set(method.state_dict())
    losses_of(method, model, full_batch)
    mine = {id(module) for module in model.modules()} | {id(p) for p in model.parameters()}
    # A frozen copy is allowed: weights of its own that nothing trains.
    frozen = getattr(method, "reference_model", None) if method.needs_reference_model else None
    assert list(method.parameters()) == (list(frozen.parameters()) if frozen else [])
    assert not any(p.requires_grad for p in method.parameters())
    held = [*method.modules(), *vars(method).values()]
    for value in held:
        assert id(value) not in mine
        assert not isinstance(value, (TextModel, ImageModel)) or value is frozen
    assert not {p.data_ptr() for p in method.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert set(method.state_dict()) == state


@each
def test_a_wrapped_model_will_do(case: str, model_for: Any, full_batch: Any) -> None:
    """DDP and FSDP have a forward and nothing else of the model's."""
    method = make(case)
    model = model_for(method)
    plain = gradients(make(case), model, full_batch)
    wrapped = gradients(make(case), Watched(model), full_batch)
    assert torch.equal(flat(plain), flat(wrapped))


# losses


@each
def test_totals_are_finite_scalars_and_parts_are_detached(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    model = model_for(method, dropout=0.1)
    for loss in method.losses(model, full_batch):
        assert loss.total.shape == ()
        assert loss.total.dtype == torch.float32
        assert loss.total.isfinite()
        assert loss.total.requires_grad
        assert loss.parts
        for name, part in loss.parts.items():
            assert not part.requires_grad, name
            assert part.shape == (), name
            assert math.isfinite(float(part)), name
        loss.total.backward()


@pytest.mark.parametrize(
    "case",  # of DynACL's perturbation the momentum encoder sees a half
    [case for case in TEXT_CASES if hasattr(make(case), "ball") and case not in ("dynacl", "dynacl-late")],
)
def test_an_attack_is_logged(case: str, model_for: Any, full_batch: Any) -> None:
    """T20: how large the perturbation is beside what it is added to, and how many rows had none."""
    method = make(case)
    watched = Watched(model_for(method))
    loss = losses_of(method, watched, full_batch)[-1]
    delta = watched.watch.passes()[-1].delta
    assert delta is not None
    real = watched.module.encoder.get_input_embeddings()(full_batch["input_ids"])
    real = real * full_batch["attention_mask"].unsqueeze(-1)
    real = real.repeat(len(delta) // len(real), 1, 1)  # a pass may hold two views of every row,
    attacked = delta.flatten(1).any(1)  # and rows that are clean
    assert attacked.sum() >= len(full_batch["input_ids"])
    real, delta = real[attacked], delta[attacked]
    expected = (delta.flatten(1).norm(dim=1) / real.flatten(1).norm(dim=1)).mean()
    assert float(loss.parts["rel_perturbation_norm"]) == pytest.approx(expected.item(), rel=1e-4)
    assert float(loss.parts["zero_grad_rows"]) == 0


@each_of_texts
def test_every_parameter_that_it_uses_gets_a_finite_gradient(case: str, model_for: Any, full_batch: Any) -> None:
    method = make(case)
    model = model_for(method, dropout=0.1)
    grads = gradients(method, model, needed(method, full_batch))
    assert all(g.isfinite().all() for g in grads.values())
    without = {name for name, _ in model.named_parameters()} - set(grads)
    frozen = method.trainable == "classifier"
    allowed = ("encoder.bert.",) if frozen else ("encoder.classifier", "encoder.bert.pooler")
    assert not without or frozen or method.requires != "labels"
    assert all(name.startswith(allowed) for name in without), without
    alive = [name for name, g in grads.items() if g.norm() > 0]
    assert ("encoder.classifier" if frozen else "encoder.bert.embeddings.word_embeddings") + ".weight" in alive
    heads = {name.split(".")[1] for name in alive if name.startswith("heads.")}
    assert heads == {n for n, s in method.heads.items() if s.kind != "pooler"} or case == "scal-alpha-0"


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].modality != "images"])
@pytest.mark.parametrize("architecture", ["albert", "deberta-v2", "modernbert"])
def test_any_architecture_can_be_trained(name: str, tiny_model: Make, full_batch: Any, architecture: str) -> None:
    method = make(name)
    model = tiny_model(architecture, heads=method.heads).train()
    grads = gradients(method, model, full_batch)
    assert all(g.isfinite().all() for g in grads.values())
    assert grads[next(n for n in grads if "embed" in n or method.trainable == "classifier")].norm() > 0


@each
def test_one_row_will_do(case: str, model_for: Any, full_batch: Any) -> None:
    """Such a batch has no in-batch negatives, and `step` refuses it for methods with them; losses are finite."""
    method = make(case)
    model = model_for(method)
    assert all(loss.total.isfinite() for loss in losses_of(method, model, take(full_batch, slice(1))))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@each_of_texts
def test_more_padding_changes_nothing(case: str, model_for: Any, full_batch: Any) -> None:
    """T3."""
    method = make(case)
    model = model_for(method)

    def padded(batch: Any) -> Any:
        if not isinstance(batch, dict):
            return batch
        wide = {k: F.pad(batch[k], (0, 3)) for k in ("input_ids", "attention_mask")}
        return {**{k: padded(v) for k, v in batch.items()}, **wide}

    short, long = (flat(gradients(make(case), model, b)) for b in (full_batch, padded(full_batch)))
    torch.testing.assert_close(long, short, rtol=1e-3, atol=1e-4 * short.abs().max().item())


@each
def test_rows_may_be_permuted(case: str, model_for: Any, full_batch: Any) -> None:
    """T7, T8."""
    method = make(case)
    model = model_for(method)
    order = torch.tensor([2, 0, 3, 1])
    first, second = (flat(gradients(make(case), model, b)) for b in (full_batch, take(full_batch, order)))
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-4 * first.abs().max().item())


@each
def test_bfloat16_autocast_keeps_the_gradient(case: str, model_for: Any, full_batch: Any) -> None:
    """T17: also the casts that autocast keeps from a pass without gradients would show here.

    The perturbations are those of fp32: where an attack goes is not a continuous function, of what it finds it is one.
    """
    method = make(case)
    model = model_for(method, initializer_range=0.1)
    settled(model)  # what rows this alike differ in is scaled up by batch norm, with the rounding errors in it
    watched = Watched(model)
    exact = gradients(make(case), watched, full_batch)
    deltas = [call.delta for call in watched.watch.calls]

    def again() -> Tensor:
        grads = gradients(make(case), Replayed(model, deltas), full_batch)
        assert grads.keys() == exact.keys()
        return flat(grads)

    assert within_rounding(again, flat(exact))


@pytest.mark.parametrize("case", ["at", "scal", "uscal"])
def test_a_model_without_gradient_is_not_poisoned(case: str, model_for: Any, full_batch: Any) -> None:
    """T17: a zero gradient at the embeddings gives delta = 0, is counted, and leaves the weights finite."""
    method = make(case)
    model = model_for(method)
    for block in model.encoder.base_model.encoder.layer:  # the classifier and the head still see a constant
        block.output.LayerNorm.weight.data.zero_()
    watched = Watched(model)
    losses = losses_of(method, watched, full_batch)
    assert (watched.watch.passes()[-1].delta == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert int(losses[0].parts["zero_grad_rows"]) == 4


@pytest.mark.parametrize("case", ["at", "scal", "uscal"])
def test_what_is_not_finite_is_counted_and_not_added(case: str, model_for: Any, full_batch: Any) -> None:
    """T17: NaN in the gradient at one row's embeddings."""
    method = make(case)
    model = model_for(method)

    class Poisoned(Watched):
        def forward(self, batch: Any, **arguments: Any) -> Any:
            delta = arguments.get("delta")
            if delta is not None and delta.requires_grad:
                arguments["delta"] = delta * 1.0
                bad = torch.zeros_like(delta)
                bad[1, 0, 0] = float("nan")
                arguments["delta"].register_hook(lambda grad: grad + bad)
            return super().forward(batch, **arguments)

    watched = Poisoned(model)
    loss = next(method.losses(watched, full_batch))
    delta = watched.watch.passes()[-1].delta
    assert delta is not None
    assert (delta[1] == 0).all()
    assert (delta[[0, 2, 3]].flatten(1).norm(dim=1) > 0).all()
    assert int(loss.parts["zero_grad_rows"]) == 1


WEIGHED = [case for case, (name, _) in CASES.items() if METHODS[name].requires == "labels"]


@pytest.mark.parametrize("case", WEIGHED)
def test_the_weights_of_classes_reach_every_method_with_labels(case: str, model_for: Any, full_batch: Any) -> None:
    """Without a line in the method: equal weights change nothing, others do."""
    grads = []
    for weights in (None, torch.ones(3), torch.tensor([1.0, 3.0, 0.25])):
        method = make(case)
        with weighting_classes(weights):
            grads.append(flat(gradients(method, model_for(method), full_batch)))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-5)
    assert (grads[2] - grads[0]).norm() > 0.02 * grads[0].norm()
