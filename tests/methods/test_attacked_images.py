"""What holds for every method that trains a model of images on PGD's examples."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from reference.attacking import close, cost, fresh, grads, replayed, run, tracked
from reference.draws import Still
from reference.images import buffers, image_batch

from contraverse.functional import norm
from contraverse.methods import METHODS
from contraverse.types import HeadCall, Inputs, Method

EPSILON = 8 / 255
L2: dict[str, Any] = {"norm": "l2", "epsilon": 0.3, "step_size": 0.1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pgd-at": ("pgd-at", {}),
    "pgd-at-l2": ("pgd-at", L2),
    "trades": ("trades", {}),
    "trades-far": ("trades", {"sigma": 0.5}),
    "trades-l2": ("trades", L2),
    "probe": ("probe", {"attack": "pgd"}),
    "uat": ("uat", {}),
    "uat-l2": ("uat", L2),
    "selfie": ("selfie", {}),
    "selfie-adversarial": ("selfie", {"clean": 0.0}),
}
EXTRA = {"trades": 1, "selfie-adversarial": 0, "trades-far": 1, "trades-l2": 1}
"""ForwardCalls in eval mode beside those of the attack."""
each = pytest.mark.parametrize("case", list(CASES))


def make(case: str, steps: int = 3) -> Method:
    name, settings = CASES[case]
    method = METHODS[name](steps=steps, **settings)
    if name == "uat":
        method.set_targets(torch.randn(4, 3, generator=torch.Generator().manual_seed(2)), torch.arange(4) < 2)
    return method


def batch() -> dict[str, Any]:
    return image_batch(rows=4, size=16)


@each
@pytest.mark.parametrize("dual", [False, True])
def test_every_attacked_image_is_an_image_within_epsilon(case: str, dual: bool) -> None:
    """The start included, which others' code leaves outside [0, 1]. The first row's pixels are all 0 or 1."""
    method = make(case)
    passes, _ = run(method, fresh(method, dual=dual), batch())
    moved = [one for one in passes if one.delta is not None]
    assert len(moved) == method.steps + 1
    for one in moved:
        assert one.bn_branch == "adversarial"
        assert one.seen.min() >= 0
        assert one.seen.max() <= 1
        assert (one.delta != 0).any()
        if method.ball.norm == "linf":
            assert one.delta.abs().max() <= EPSILON * (1 + 1e-6)
        else:
            assert (norm(one.delta.reshape(4, -1), "l2") <= 0.3 * (1 + 1e-5)).all()  # of an image, whatever its patches
    # A step is worth 2/255, and three of them reach epsilon somewhere from most starts; the last is no step too few.
    first, last = moved[0].delta, moved[-1].delta
    assert (last - first).abs().max() > 0.02
    assert all(not torch.equal(a.delta, b.delta) for a, b in pairwise(moved))


@each
@pytest.mark.parametrize("dual", [False, True])
def test_an_attack_leaves_no_trace(case: str, dual: bool) -> None:
    """Buffers are those of the passes that are trained on, modes and flags as before, and no gradient is left."""
    method = make(case)
    model = fresh(method, dual=dual)
    model.encoder.layer1[0].eval()
    if method.trainable == "classifier":
        model.freeze_encoder()
    before, modes = copy.deepcopy(model), [module.training for module in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    passes, _ = run(method, model, batch())
    # Which order the two routes come in shows where one batch norm sees both.
    expected = replayed(before, passes)
    for name, value in buffers(expected).items():
        assert torch.equal(dict(model.named_buffers())[name], value), name
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert sum(not one.training for one in passes) == method.steps + EXTRA.get(case, 0) + (method.name == "probe")


@each
@pytest.mark.parametrize("dual", [False, True])
def test_each_route_sees_one_batch_a_step(case: str, dual: bool) -> None:
    """A dual model's clean and adversarial images do not meet; one set of batch norms sees one after the other."""
    method = make(case)
    model = fresh(method, dual=dual)
    passes, _ = run(method, model, batch())
    both = method.name in ("trades", "uat") or case == "selfie"
    once = 0 if method.name == "probe" else 1
    expected = {"clean": {int(both)}, "adversarial": {once}} if dual else {"": {once + both}}
    assert tracked(model) == expected
    for one in passes:
        assert one.bn_branch == ("clean" if one.delta is None else "adversarial")


@each
def test_a_step_draws_its_start_and_nothing_else(case: str) -> None:
    method = make(case)
    model, images = fresh(method), batch()
    torch.manual_seed(4)
    run(method, model, images)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    if method.name == "selfie":
        torch.rand(4, 16)
    method.ball.init(Inputs(images["pixel_values"], torch.ones(1, 1, 1, 1, dtype=torch.bool), 0.0, 1.0), random=True)
    assert torch.equal(torch.get_rng_state(), state)


@each
def test_a_small_step_down_the_gradient_lowers_the_loss(case: str) -> None:
    method = make(case)
    model, images = fresh(method, training=False), batch()
    totals = []
    for _ in range(2):
        with Still():
            _, total = run(method, model, images)
        totals.append(float(total))
        trained = [p for p in model.parameters() if p.grad is not None]
        steepness = sum(p.grad.square().sum() for p in trained if p.grad is not None)
        with torch.no_grad():
            for p in trained:
                p -= 0.02 * total / steepness * p.grad  # 2 % of the loss, were it linear
    assert 0.95 * totals[0] < totals[1] < 0.999 * totals[0]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("pgd-at", {}, 23), ("pgd-at", {"steps": 2}, 7), ("trades", {}, 27), ("trades", {"steps": 1}, 9),
        ("probe", {}, 1), ("probe", {"attack": "pgd"}, 21), ("uat", {}, 26), ("uat", {"steps": 2}, 10),
        ("uat-copy", {}, 27), ("selfie", {}, 26), ("selfie", {"clean": 0.0}, 23), ("selfie", {"clean": 1.0}, 3),
    ],
)  # fmt: skip
def test_the_stated_cost_is_the_counted_one(name: str, settings: dict[str, Any], expected: int) -> None:
    method = METHODS[name.partition("-copy")[0]](**settings)
    if name == "uat":
        method.set_targets(torch.zeros(4, 3))
    assert method.cost == f"{expected}F"
    found = cost(method, selfie_forward if name == "selfie" else lambda model, images: model(images))
    assert found == pytest.approx(expected, rel=0.03)


def selfie_forward(model: Any, images: dict[str, Any]) -> Any:
    """A pass of all patches and of the head, which is no small part beside so small a backbone."""
    out = model(images, want=("h",))
    features = torch.rand(4, 16, model.width)
    order = torch.arange(16).expand(4, -1)
    return model(HeadCall("patches", (features, order[:, 4:], order[:, :4]), out))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("pgd-at", {"epsilon": 0}), ("pgd-at", {"steps": 0}), ("pgd-at", {"attack_mode": "both"}),
        ("pgd-at", {"norm": "l1"}), ("trades", {"beta": -1}), ("trades", {"sigma": 0}),
        ("trades", {"step_size": float("nan")}), ("probe", {"attack": "fgsm"}), ("uat", {"alpha": 1.1}),
        ("uat", {"temperature": 0}), ("selfie", {"grid": 1}), ("selfie", {"hidden": 1}), ("selfie", {"hidden": 16}),
        ("selfie", {"clean": 2}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        METHODS[name](**wrong)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_come_from_the_losses_alone(norm: str) -> None:
    """An attack whose gradient reached the weights would show beside a loss that was attacked elsewhere."""
    method = METHODS["pgd-at"](steps=3, norm=norm)
    model, images = fresh(method, training=False), batch()
    passes, _ = run(method, model, images)
    found = grads(model)
    model.zero_grad()
    logits = model(images, delta=passes[-1].delta).logits
    torch.nn.functional.cross_entropy(logits, images["labels"]).backward()
    close(found, grads(model))
