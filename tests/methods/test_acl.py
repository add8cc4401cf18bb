"""ACL's three options, and DynACL and DeACL which attack alike: the attack, batch norm's two sets, cost and losses."""

import copy
from typing import Any

import pytest
import torch
from reference import acl_reference as reference
from reference.images import buffers
from reference.spies import Spy, drive, dual, told, views
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from contraverse.attacks import perturbation_inputs, pgd
from contraverse.methods import METHODS
from contraverse.types import Method

EPSILON, STEP = 8 / 255, 2 / 255
METHODS_THAT_ATTACK = ["acl-a2a", "acl-a2s", "acl-ds", "dynacl", "deacl"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in METHODS_THAT_ATTACK}
CASES |= {"dynacl-alone": ("dynacl", {"momentum": None}), "acl-ds-2": ("acl-ds", {"steps": 2})}
each = pytest.mark.parametrize("case", list(CASES))


def build(case: str) -> tuple[Method, Any]:
    """A method, and a dual model; the frozen copy that some want has other weights."""
    name, settings = CASES[case]
    method = METHODS[name](**settings)
    model = dual(method)
    earlier = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter.mul_(0.9)
    return told(method, model=earlier), model


def pixels(batch: Any) -> tuple[Tensor, Tensor]:
    return batch["pixel_values"], batch["positive"]["pixel_values"]


# the attack


@each
def test_attacked_images_are_images_within_the_ball(case: str) -> None:
    """Traps 9, 16: from the first pass on, which has the random start, to the ones that are trained on."""
    method, model = build(case)
    spy = Spy(model)
    drive(method, spy, views())
    seen = [each for each in spy.passes if each.delta is not None]
    assert len(spy.attacks()) == method.steps
    assert len(seen) == method.steps + 1
    for each_pass in seen:
        perturbed = each_pass.pixels + each_pass.delta
        assert perturbed.min() >= 0
        assert perturbed.max() <= 1
        assert each_pass.delta.abs().max() <= EPSILON * (1 + 1e-6)
    assert (seen[0].delta != 0).float().mean() > 0.7  # of the first image half of the start is cut off
    assert all(len(each_pass.delta.flatten(1).unique(dim=0)) > 1 for each_pass in seen)


@each
def test_an_attack_leaves_the_model_and_the_generator_alone(case: str) -> None:
    """Traps 1, 18: until the first pass in training mode no buffer has changed, and afterwards every flag is back."""
    method, model = build(case)
    model.encoder.layer1.eval()  # a part that is frozen stays so
    model.encoder.conv1.weight.requires_grad_(False)
    modes = {name: module.training for name, module in model.named_modules()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before, spy = buffers(model), Spy(model)
    torch.manual_seed(3)
    losses = method.losses(spy, views())
    first = next(losses)
    assert all(p.grad is None for p in model.parameters())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    start = spy.trained()[0].before
    assert all(torch.equal(value, start[name]) for name, value in before.items())
    first.total.backward()
    for loss in losses:
        loss.total.backward()
    after = torch.get_rng_state()
    torch.manual_seed(3)
    method.ball.init(perturbation_inputs(model, {"pixel_values": spy.attacks()[0].pixels}), random=True)
    if case not in ("dynacl",):  # whose model sees half of what is drawn
        assert torch.equal(torch.get_rng_state(), after)


@each
def test_what_is_climbed(case: str) -> None:
    """The last of exactly so many iterates, from the same start, against plain projected ascent."""
    method, model = build(case)
    batch, spy, still = views(), Spy(model), copy.deepcopy(model).eval()
    copied = copy.deepcopy(method.reference_model).eval() if method.needs_reference_model else None
    drive(method, spy, batch)
    first, second = pixels(batch)
    both = torch.cat([first, second])
    single = method.name in ("acl-a2s", "deacl")
    x = first if single else both
    torch.manual_seed(3)
    start = torch.empty_like(x).uniform_(-1, 1) * EPSILON

    def encode(values: Tensor, want: str = "z", of: Any = still, bn_branch: str = "adversarial") -> Tensor:
        out = of({"pixel_values": values}, want=(want,), bn_branch=bn_branch)
        return out.z if want == "z" else out.h

    def loss(delta: Tensor) -> Tensor:
        if method.name == "deacl":
            target = encode(first, "h", copied, "clean").detach()
            return reference.deacl_attacked(encode(first + delta, "h"), target)
        if single:
            return reference.nt_xent(encode(first + delta), encode(second, bn_branch="clean").detach(), 0.5)
        one, other = (both + delta).chunk(2)
        if method.needs_reference_model:
            return reference.nt_xent(encode(one), encode(other, of=copied), 0.5)
        return reference.contrast(lambda values, bn_branch: encode(values), one, other, 0.5, "adversarial")

    expected = reference.climb(loss, x, start, epsilon=EPSILON, step_size=STEP, steps=method.steps)
    found = [each.delta for each in spy.trained() if each.delta is not None][-1]
    found = found[len(found) // 2 :] if method.name == "deacl" else found
    expected = expected[: len(found)]
    # A gradient that is zero but for rounding may have either sign.
    assert torch.isclose(found, expected, atol=1e-6).float().mean() > 0.99


def test_ascend_is_so_many_gradients_and_the_last_iterate() -> None:
    method, model = build("acl-ds")
    x = {"pixel_values": views()["pixel_values"]}
    inputs, asked = perturbation_inputs(model, x), []

    def loss_of(delta: Tensor) -> Tensor:
        asked.append(delta.detach().clone())
        return (delta * torch.linspace(-1, 1, delta.numel()).reshape(delta.shape)).flatten(1).sum(1)

    found = pgd(loss_of, method.ball, inputs, steps=3, keep="last")
    assert len(asked) == 3
    assert (asked[0] == 0).all()
    assert not found.delta.requires_grad
    again = method.ball.step(asked[2], torch.linspace(-1, 1, asked[2].numel()).reshape(asked[2].shape), inputs)
    assert torch.equal(found.delta, again)
    assert int(found.zero_grad_rows) == 0
    flat = pgd(lambda delta: (delta * 0).sum(), method.ball, inputs, steps=2, keep="last")
    assert int(flat.zero_grad_rows) == 6
    assert (flat.delta == 0).all()
    with pytest.raises(ValueError, match="steps"):
        pgd(loss_of, method.ball, inputs, steps=0, keep="last")


# batch norm's two sets


@each
def test_each_set_learns_from_its_own_stream(case: str) -> None:
    """Trap 2: heads included, the sets are what one pass in training mode over their own images makes of them."""
    method, model = build(case)
    expected, spy = copy.deepcopy(model), Spy(model)
    drive(method, spy, views())
    trained = spy.trained()
    routes = [each.bn_branch for each in trained]
    assert routes == {
        "acl-a2a": ["adversarial"], "deacl": ["adversarial"], "acl-a2s": ["clean", "adversarial"],
    }.get(method.name, ["clean", "adversarial"])  # fmt: skip
    want = "h" if method.name == "deacl" else "z"
    for each_pass in trained:
        x = {"pixel_values": each_pass.pixels}
        expected(x, delta=each_pass.delta, want=(want,), bn_branch=each_pass.bn_branch)
        assert (each_pass.delta is not None) == (each_pass.bn_branch == "adversarial")
    for name, value in buffers(model).items():
        assert torch.equal(value, buffers(expected)[name]), name
    touched = {name for name, value in buffers(model).items() if not torch.equal(value, spy.passes[0].before[name])}
    assert touched == {name for name in buffers(model) if any(f".{bn_branch}." in name for bn_branch in routes)}


@each
def test_a_single_set_will_do(case: str) -> None:
    """The papers' "single BN"."""
    name, settings = CASES[case]
    method = METHODS[name](**settings)
    model = dual(method)
    plain = model.copy_for_task(model.labels)
    plain.add_heads(method.heads)
    told(method, model=plain)
    _, grads = drive(method, plain.train(), views())
    assert all(grad.isfinite().all() for grad in grads.values())


@each
def test_one_image_will_do(case: str) -> None:
    method, model = build(case)
    _, grads = drive(method, model, views(1))
    assert all(grad.isfinite().all() for grad in grads.values())


# losses


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("acl-a2a", {}), ("acl-a2a", {"temperature": 0.05}), ("acl-a2s", {"temperature": 0.2}), ("acl-ds", {}),
        ("acl-ds", {"alpha": 0.3}), ("acl-ds", {"alpha": 2.0, "reduction": "mean"}),
        ("acl-ds", {"norm": "l2", "epsilon": 0.5, "step_size": 0.2}),
    ],
)  # fmt: skip
def test_losses_and_gradients_are_the_papers(name: str, settings: Any) -> None:
    """What is trained on, from the perturbations that the attack ended with."""
    method, batch = METHODS[name](**settings), views()
    model = dual(method)
    other, spy = copy.deepcopy(model), Spy(model)
    total, grads = drive(method, spy, batch)
    found = [each.delta for each in spy.trained() if each.delta is not None][-1]
    t = settings.get("temperature", 0.5)
    first, second = pixels(batch)

    def encode(values: Tensor, bn_branch: str) -> Tensor:
        z: Tensor = other({"pixel_values": values}, want=("z",), bn_branch=bn_branch).z
        return z

    if name == "acl-a2s":
        expected = reference.a2s(encode, first, second, found, t)
    elif name == "acl-a2a":
        expected = reference.a2a(encode, first, second, tuple(found.chunk(2)), t)
    else:
        expected = reference.dual_stream(encode, first, second, tuple(found.chunk(2)), t, settings.get("alpha", 1.0))
        expected = expected / 2 if settings.get("reduction") == "mean" else expected
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-4)
    largest = max(grad.abs().max().item() for grad in grads.values())
    for parameter, p in other.named_parameters():
        assert (p.grad is None) == (parameter not in grads)
        if p.grad is not None:
            torch.testing.assert_close(grads[parameter], p.grad, rtol=2e-3, atol=1e-4 * largest, msg=parameter)


@each
def test_a_step_lowers_the_loss(case: str) -> None:
    method, model = build(case)
    before, _ = drive(method, model, views())
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert drive(method, model, views())[0] < before


def test_the_attack_does_harm() -> None:
    """The adversarial loss of the last iterate is above that of its start."""
    method, model = build("acl-a2a")
    spy = Spy(model)
    drive(method, spy, views())
    losses = [float(reference.nt_xent(*each.out.z.detach().chunk(2), 0.5)) for each in spy.attacks()]
    assert losses[-1] > losses[0]


# cost


@pytest.mark.parametrize(
    ("case", "stated"),
    [("acl-a2a", 26), ("acl-a2s", 17), ("acl-ds", 32), ("acl-ds-2", 20), ("dynacl", 28), ("dynacl-alone", 32),
     ("deacl", 17)],
)  # fmt: skip
def test_cost_of_an_image(case: str, stated: int) -> None:
    method, model = build(case)
    batch = views(2, 16)
    assert method.cost == f"{stated}F"
    with FlopCounterMode(display=False) as forward:
        model(batch, want=("h",) if method.name == "deacl" else ("z",))
    with FlopCounterMode(display=False) as step:
        drive(method, model, batch)
    assert step.get_total_flops() / forward.get_total_flops() == pytest.approx(stated, rel=0.03)


# settings


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("acl-a2a", {"epsilon": 0}), ("acl-a2a", {"steps": 0}), ("acl-a2s", {"step_size": -1}),
        ("acl-ds", {"alpha": -1}),
        ("acl-ds", {"reduction": "max"}), ("acl-ds", {"norm": "l1"}), ("dynacl", {"period": 0}),
        ("dynacl", {"rate": 1.5}),
        ("dynacl", {"momentum": 1.0}), ("deacl", {"weight": -1}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        METHODS[name](**wrong)
