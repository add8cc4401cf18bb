"""Selfie, written out from its head's weights, one image and one patch at a time."""

import copy
import math
from typing import Any

import pytest
import reference.supervised_image_reference as slow
import torch
import torch.nn.functional as F
from reference.attacking import ForwardCall, close, fresh, grads, run
from reference.images import image_batch, tiny
from torch import Tensor

from contraverse.errors import UserError
from contraverse.methods import Selfie
from contraverse.methods.pgd_at import EPSILON, STEP_SIZE
from contraverse.models import ImageModel
from contraverse.models.heads import Patches
from contraverse.types import HeadCall, HeadSpec

SIZE, GRID, HIDDEN = 16, 4, 4


def patch(image: Tensor, number: int, grid: int = GRID) -> Tensor:
    """Counted row by row."""
    size = image.shape[-1] // grid
    top, left = number // grid * size, number % grid * size
    return image[:, top : top + size, left : left + size]


def place(number: int, dim: int, grid: int = GRID) -> Tensor:
    found = []
    for position in (number // grid, number % grid):
        angles = [position * 10_000 ** (-i / (dim // 4)) for i in range(dim // 4)]
        found += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(found)


def scores(head: Patches, features: Tensor, visible: list[int], hidden: list[int]) -> Tensor:
    """(M, M) of one image, whose patches' features are (P, H)."""
    state, dim = dict(head.named_parameters()), head.dim

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def normed(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        normalize_grad = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return normalize_grad * state[f"{name}.weight"] + state[f"{name}.bias"]

    tokens = [state["query"]] + [linear("seen", features[p]) + place(p, dim) for p in visible]
    x = torch.stack(tokens)
    for number in range(len(head.attention.layers)):
        name, size = f"attention.layers.{number}", dim // 4
        inputs = normed(f"{name}.norm1", x)
        weight, bias = state[f"{name}.self_attn.in_proj_weight"], state[f"{name}.self_attn.in_proj_bias"]
        q, k, v = (inputs @ weight.T + bias).split(dim, -1)
        parts = []
        for h in range(4):
            part = slice(h * size, (h + 1) * size)
            parts.append(F.softmax(q[:, part] @ k[:, part].T / size**0.5, -1) @ v[:, part])
        x = x + linear(f"{name}.self_attn.out_proj", torch.cat(parts, 1))
        x = x + linear(f"{name}.linear2", linear(f"{name}.linear1", normed(f"{name}.norm2", x)).relu())
    summary = normed("attention.norm", x[0])
    return torch.stack([
        torch.stack([(summary + place(m, dim)) @ linear("candidates", features[k]) / dim**0.5 for k in hidden])
        for m in hidden
    ])  # fmt: skip


def loss(model: ImageModel, pixels: Tensor, order: Tensor, bn_branch: str) -> Tensor:
    """Mean cross-entropy of the hidden patches of all images."""
    patches = torch.stack([patch(image, p) for image in pixels for p in range(GRID**2)])
    features = model({"pixel_values": patches}, want=("h",), bn_branch=bn_branch).h  # type: ignore[arg-type]
    found = []
    for number in range(len(pixels)):
        own = features[number * GRID**2 : (number + 1) * GRID**2]
        hidden, visible = order[number, :HIDDEN].tolist(), order[number, HIDDEN:].tolist()
        head = model.heads["patches"]
        assert isinstance(head, Patches)
        table = scores(head, own, visible, hidden)
        found += [slow.cross_entropy_row(row, m) for m, row in enumerate(table)]
    return slow.mean(found)


def whole(one: ForwardCall) -> Tensor:
    """The perturbation of the images, from that of their patches."""
    assert one.delta is not None
    rows = one.delta.reshape(-1, GRID, GRID, 3, SIZE // GRID, SIZE // GRID)
    return torch.stack([torch.cat([torch.cat(list(line), 2) for line in image], 1) for image in rows])


@pytest.mark.parametrize("dual", [False, True])
def test_a_step_is_the_slow_one(dual: bool) -> None:
    method, images = Selfie(steps=2, clean=0.3), image_batch(size=SIZE)
    x, model = images["pixel_values"], fresh(method, dual=dual)
    before = copy.deepcopy(model)
    torch.manual_seed(2)
    passes, total = run(method, model, images)
    torch.manual_seed(2)
    order = torch.rand(4, 16).argsort(1)

    attacked = copy.deepcopy(before).eval()
    start = whole(passes[0])
    delta = slow.climb(
        lambda delta: loss(attacked, x + delta, order, "adversarial"),
        x, start, epsilon=EPSILON, step_size=STEP_SIZE, steps=2,
    )  # fmt: skip
    found = whole(next(one for one in passes if one.training and one.delta is not None))
    assert ((found - delta).abs() < 1e-6).float().mean() > 0.99

    adversarial = loss(before, x + found, order, "adversarial")
    expected = 0.3 * loss(before, x, order, "clean") + 0.7 * adversarial
    expected.backward()
    assert float(total) == pytest.approx(expected.item(), rel=1e-4)
    close(grads(model), grads(before))


@pytest.mark.parametrize(
    ("clean", "parts"), [(1.0, {"selfie"}), (0.0, {"selfie_adv", "zero_grad_rows", "rel_perturbation_norm"})]
)
def test_one_loss_alone(clean: float, parts: set[str]) -> None:
    method = Selfie(clean=clean, steps=1)
    (step,) = method.losses(fresh(method), image_batch(size=SIZE))
    assert set(step.parts) == parts
    assert float(step.total.detach()) == pytest.approx(float(step.parts[min(parts & {"selfie", "selfie_adv"})]))


def test_the_criterion_reads_scores_and_not_probabilities() -> None:
    """Trap: a softmax of a softmax of 4 is never below log(1 + 3 / e) = .74, however sure the scores are."""
    method = Selfie(clean=1.0)
    model = fresh(method, training=False)

    class Sure(torch.nn.Module):
        def forward(self, features: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
            return 50 * torch.eye(HIDDEN).expand(len(features), -1, -1) + 0 * features.sum()

    model.heads["patches"] = Sure()
    (step,) = method.losses(model, image_batch(size=SIZE))
    assert step.total < 1e-6


def test_hidden_patches_are_not_seen() -> None:
    """What is told apart does not tell itself: another hidden patch changes its own column of scores alone."""
    model = tiny(heads=Selfie.heads)
    torch.manual_seed(0)
    features, order = torch.rand(2, 16, 64), torch.rand(2, 16).argsort(1)
    hidden, visible = order[:, :4], order[:, 4:]

    def ask(features: Tensor) -> Tensor:
        out = model(image_batch(rows=2, size=SIZE), want=("h",))
        return model(HeadCall("patches", (features, visible, hidden), out)).heads["patches"].detach()

    other = features.clone()
    other[0, hidden[0, 2]] += 1
    changed = (ask(other) - ask(features)).abs() > 1e-6
    assert changed[0, :, 2].all()
    assert changed.sum() == 4


@pytest.mark.parametrize(("grid", "hidden"), [(2, 2), (4, 7)])
def test_other_grids(grid: int, hidden: int) -> None:
    method = Selfie(grid=grid, hidden=hidden, clean=1.0)
    passes, total = run(method, fresh(method), image_batch(size=SIZE))
    assert total.isfinite()
    assert passes[0].pixels.shape == (4 * grid**2, 3, SIZE // grid, SIZE // grid)
    expected = torch.stack([
        patch(image, p, grid) for image in image_batch(size=SIZE)["pixel_values"] for p in range(grid**2)
    ])  # fmt: skip
    assert torch.equal(passes[0].pixels, expected)


def test_images_that_do_not_part_are_refused() -> None:
    method = Selfie(grid=3)
    with pytest.raises(UserError, match="16 x 16 pixels cannot be cut into 3 x 3"):
        next(method.losses(fresh(method), image_batch(size=SIZE)))


def test_a_width_that_attention_cannot_part_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4, not 30"):
        tiny().add_heads({"patches": HeadSpec(dim=30, kind="patches")})


def test_the_head_is_saved_and_the_encoder_goes_on_without_it(tmp_path: Any) -> None:
    method = Selfie(clean=1.0)
    model = fresh(method, training=False)
    loaded = ImageModel.load(model.save(tmp_path / "model"))
    images = image_batch(size=SIZE)
    totals = []
    for each in (model, loaded):
        torch.manual_seed(1)
        totals.append(next(method.losses(each, images)).total.detach())
    assert torch.equal(*totals)
    classifier = loaded.copy_for_task(("a", "b"))
    assert len(classifier.heads) == 0
    assert classifier(images).logits.shape == (4, 2)
