"""The image model: one pass gives all that is wanted, pixels stay pixels, and text's methods run on it unchanged."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.images import CLASSES, MEAN, STD, buffers, image_batch, shaken, tiny
from torch import nn

from contraverse.attacks import perturbation_inputs
from contraverse.errors import UserError
from contraverse.functional import norm
from contraverse.methods import CARL, SCAL, FreeLB
from contraverse.models.image import ImageModel
from contraverse.models.resnet import BACKBONES
from contraverse.training import step
from contraverse.types import ForwardCall, ForwardCalls, HeadCall, HeadSpec, Method, TrainingInfo

HEADS = {"z": HeadSpec(kind="mlp"), "p": HeadSpec(dim=5)}


@torch.no_grad()
def test_the_normalisation_is_inside_and_delta_is_added_before_it() -> None:
    model, batch = tiny(), image_batch()
    pixels, delta = batch["pixel_values"], 0.01 * torch.randn(4, 3, 8, 8)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    h = model.encoder((pixels + delta - mean) / std)
    out = model(batch, delta=delta, want=("h", "logits"))
    torch.testing.assert_close(out.h, h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.logits, model.classifier(h), rtol=1e-5, atol=1e-5)
    assert torch.equal(model(batch, delta=torch.zeros_like(delta)).logits, model(batch).logits)


@pytest.mark.parametrize("dual", [False, True])
@torch.no_grad()
def test_one_pass_gives_all_that_is_wanted_and_nothing_else(dual: bool) -> None:
    model, batch = tiny(dual=dual, heads=HEADS), image_batch()
    calls: list[Any] = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    out = model(batch, want=("z", "h", "logits", "p", "inputs"))
    assert len(calls) == 1
    assert {name: value.shape for name, value in out._asdict().items() if isinstance(value, torch.Tensor)} == {
        "logits": (4, 3), "z": (4, 64), "h": (4, 64),
    }  # fmt: skip
    assert out.heads["p"].shape == (4, 5)
    only = model(batch, want=("h",))
    assert only._replace(h=None) == type(only)()
    later = model(HeadCall("p", (only.h,), only))
    assert torch.equal(later.heads["p"], out.heads["p"])
    assert later.h is only.h


@torch.no_grad()
def test_a_call_of_a_head_takes_its_route() -> None:
    model, batch = tiny(dual=True, heads=HEADS), image_batch()
    out = model(batch, want=("h", "z"), bn_branch="adversarial")
    assert torch.equal(model(HeadCall("z", (out.h,), out), bn_branch="adversarial").heads["z"], out.z)
    assert not torch.equal(model(HeadCall("z", (out.h,), out)).heads["z"], out.z)


def test_several_passes_in_one_call_are_those_of_single_calls_in_their_order() -> None:
    several, single = (tiny(dual=True, heads={"z": HeadSpec()}).train() for _ in range(2))
    batch, delta = image_batch(), torch.full((4, 3, 8, 8), 0.01)
    passes = (
        ForwardCall(batch, delta, ("z", "h"), "adversarial"),
        ForwardCall(batch),
        ForwardCall(batch, bn_branch="adversarial"),
    )
    found = several(ForwardCalls(passes))
    expected = (
        single(batch, delta=delta, want=("z", "h"), bn_branch="adversarial"),
        single(batch),
        single(batch, bn_branch="adversarial"),
    )
    for one, other in zip(found, expected, strict=True):
        assert one.requested == other.requested
        for name in one.requested:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0)
    assert all(torch.equal(value, buffers(single)[name]) for name, value in buffers(several).items())
    call = HeadCall("z", (found[0].h,), found[0])
    (again,) = several.eval()(ForwardCalls((ForwardCall(call, bn_branch="adversarial"),)))
    assert torch.equal(again.heads["z"], several(call, bn_branch="adversarial").heads["z"])


def test_what_is_perturbed_are_pixels_in_the_unit_box() -> None:
    model, batch = tiny(), image_batch()
    model.encoder.register_forward_hook(lambda *_: pytest.fail("the lookup ran the backbone"))
    values, mask, low, high = perturbation_inputs(model, batch)
    assert torch.equal(values, batch["pixel_values"])
    assert not values.requires_grad
    assert mask.expand_as(values).all()
    assert (low, high) == (0.0, 1.0)


@torch.no_grad()
def test_grey_images_are_repeated_and_other_channels_refused() -> None:
    model = tiny()
    grey = torch.rand(2, 1, 8, 8)
    expected = model({"pixel_values": grey.expand(2, 3, 8, 8)}).logits
    torch.testing.assert_close(model({"pixel_values": grey}).logits, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="4 channels, and the model takes 3"):
        model({"pixel_values": torch.rand(2, 4, 8, 8)})


def test_what_a_model_of_images_does_not_have_is_refused() -> None:
    model, encoder, batch = tiny(), tiny(labels=None), image_batch()
    for name in ("tokens", "pooled", "embedded"):
        with pytest.raises(ValueError, match=f"no {name}"):
            model(batch, want=(name,))
    with pytest.raises(ValueError, match="no head 'z'"):
        model(batch, want=("z",))
    with pytest.raises(ValueError, match="no logits"):
        encoder(batch)
    with pytest.raises(UserError, match="images have none"):
        model.add_heads({"reconstruction": HeadSpec(kind="mlm")})


def test_a_backbone_that_does_not_exist_is_the_users_mistake() -> None:
    with pytest.raises(UserError) as caught:
        ImageModel.from_pretrained("resnet19")
    assert "resnet18" in str(caught.value)
    for mean, std in (((0.5, 0.5), (0.5,)), ((0.5,), (0.0,))):
        with pytest.raises(UserError, match="cannot normalise"):
            ImageModel.from_pretrained("resnet8", mean=mean, std=std)


def test_timm_gives_backbone_width_and_normalisation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def create_model(name: str, **settings: Any) -> nn.Module:
        seen.append((name, settings))
        if name == "nothing":
            raise RuntimeError("Unknown model (nothing)\nmore")
        encoder: Any = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        encoder.num_features, encoder.head_hidden_size = 99, 6 if name == "small" else None
        if name == "old":
            encoder.num_features = 6
        encoder.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
        return encoder

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    model = ImageModel.from_pretrained("timm/small", labels=CLASSES)
    assert seen == [("small", {"pretrained": True, "num_classes": 0})]
    assert (model.width, model.backbone, model.mean, model.std) == (6, "timm/small", (0.5,) * 3, (0.25,) * 3)
    assert model(image_batch()).logits.shape == (4, 3)
    assert ImageModel.from_pretrained("timm/old").width == 6
    with pytest.raises(UserError, match="cannot load timm/nothing: Unknown model"):
        ImageModel.from_pretrained("timm/nothing")
    seen.clear()
    wide = ImageModel.from_pretrained("timm/small", labels=CLASSES, pretrained=False, timm={"img_size": 32})
    assert seen == [("small", {"pretrained": False, "num_classes": 0, "img_size": 32})]
    wide.save(tmp_path / "model")
    assert ImageModel.load(tmp_path / "model").timm == wide.copy_for_task(CLASSES).timm == {"img_size": 32}
    assert seen[1:] == seen[:1]
    with pytest.raises(UserError, match="checkpoint_path cannot be set"):
        ImageModel.from_pretrained("timm/small", timm={"checkpoint_path": "evil.pt"})
    with pytest.raises(UserError, match="is none of timm's, and takes no img_size"):
        ImageModel.from_pretrained("resnet8", timm={"img_size": 32})
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError) as caught:
        ImageModel.from_pretrained("timm/small")
    assert caught.value.hint == "pip install 'contraverse[timm]'"


@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_the_mlp_head_is_simclrs(layers: int) -> None:
    """Batch norm after every layer, ReLU between them, a bias in the first alone."""
    model = tiny(heads={"z": HeadSpec(dim=6, kind="mlp", layers=layers)})
    state, batch = model.heads["z"].state_dict(), image_batch()
    linear = [name for name in state if name.startswith("linear")]
    assert linear == ["linear1.weight", "linear1.bias", *(f"linear{i}.weight" for i in range(2, layers + 1))]
    x = out = model(batch, want=("h",)).h
    for i in range(1, layers + 1):
        x = F.linear(x, state[f"linear{i}.weight"], state.get(f"linear{i}.bias"))
        norms = (state[f"norm{i}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *norms)
        x = x.relu() if i < layers else x
    torch.testing.assert_close(model(batch, want=("z",)).z, x)
    assert x.shape == (4, 6)
    assert out.shape == (4, 64)


def test_acls_head_has_its_authors_size() -> None:
    with torch.device("meta"):
        model = ImageModel(BACKBONES["resnet18"](), 512)
        model.add_heads({"z": HeadSpec(kind="mlp")})
    assert sum(p.numel() for p in model.heads.parameters()) == 3 * 512 * 512 + 512 + 3 * 2 * 512


@torch.no_grad()
def test_a_model_runs_channels_last_whatever_it_is_given() -> None:
    model, batch = tiny(), image_batch()
    expected = model(batch).logits
    layouts: list[bool] = []
    model.encoder.register_forward_pre_hook(
        lambda _m, args: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-5, atol=1e-5)
    last = {"pixel_values": batch["pixel_values"].to(memory_format=torch.channels_last)}
    torch.testing.assert_close(model(last).logits, expected, rtol=1e-5, atol=1e-5)
    assert layouts == [True, True]
    assert model.plain()(batch["pixel_values"]).shape == (4, 3)


def test_the_normalisation_moves_with_the_model_and_is_no_weight() -> None:
    model = tiny()
    assert not any("mean" in name.split(".")[0] or "std" in name for name in model.state_dict())
    double = copy.deepcopy(model).double()
    double.set_normalisation((0.0,) * 3, (1.0,) * 3)
    assert double._mean.dtype == torch.float64
    pixels = image_batch()["pixel_values"].double()
    assert torch.equal(double.normalise(pixels), pixels)
    assert (double.mean, double.std) == ((0.0,) * 3, (1.0,) * 3)
    assert model.mean == MEAN


@torch.no_grad()
def test_a_branch_takes_one_set_or_both_and_the_classifier_of_the_same_classes() -> None:
    model, batch = tiny(dual=True, heads=HEADS), image_batch()
    single, both, other, encoder = (
        model.copy_for_task(CLASSES, bn_branch="clean"),
        model.copy_for_task(CLASSES, dual=True),
        model.copy_for_task(("a", "b")),
        model.copy_for_task(),
    )
    assert torch.equal(single(batch).logits, model(batch, bn_branch="clean").logits)
    assert torch.equal(single(batch, bn_branch="adversarial").logits, single(batch).logits)
    for bn_branch in ("clean", "adversarial"):
        assert torch.equal(both(batch, bn_branch=bn_branch).logits, model(batch, bn_branch=bn_branch).logits)
    assert other(batch).logits.shape == (4, 2)
    assert torch.equal(encoder(batch, want=("h",)).h, model(batch, want=("h",), bn_branch="adversarial").h)
    assert (encoder.labels, encoder.classifier, single.mean) == (None, None, MEAN)
    assert not single.heads
    assert not {id(p) for p in model.parameters()} & {id(p) for p in single.parameters()}
    twice = single.copy_for_task(CLASSES, dual=True)
    assert torch.equal(twice(batch, bn_branch="adversarial").logits, single(batch).logits)


@torch.no_grad()
def test_a_plain_copy_is_an_ordinary_module_in_eval_mode() -> None:
    model, batch = tiny(dual=True).train(), image_batch()
    plain = model.plain("clean")
    assert not plain.training
    assert model.training
    plain.classifier.weight.zero_()
    assert (model.classifier.weight != 0).any()
    features = tiny(labels=None).plain()(batch["pixel_values"])
    assert torch.equal(features, tiny(labels=None)(batch, want=("h",)).h)


METHODS: dict[str, Method] = {
    "scal": SCAL(epsilon=0.05, alpha=0.1),
    "scal-fgsm": SCAL(epsilon=2 / 255, attack="fgsm"),
    "freelb": FreeLB(step_size=0.05, epsilon=0.1),
    "carl": CARL(step_size=0.05, epsilon=0.1, negatives=2, start=1.0, features="h"),
}


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("dual", [False, True])
def test_a_method_for_text_trains_an_image_classifier(name: str, dual: bool) -> None:
    """No line of the method knows: the loss falls, and every perturbed pixel is in [0, 1]."""
    method, batch = copy.deepcopy(METHODS[name]), image_batch(rows=6)
    model = ImageModel.from_pretrained("resnet8", labels=CLASSES, dual=dual, mean=MEAN, std=STD)
    model.add_heads(method.heads)
    method.prepare(TrainingInfo(num_examples=6, hidden_size=model.width, labels=batch["labels"]))
    attacked: list[torch.Tensor] = []

    def watch(_module: nn.Module, args: Any, settings: Any) -> None:
        if settings.get("delta") is not None:
            attacked.append(settings["delta"].detach().clone())

    model.register_forward_pre_hook(watch, with_kwargs=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    seen = []
    for _ in range(5):
        optimizer.zero_grad()
        seen.append(step(method, model.train(), batch, backward=lambda loss: loss.backward()))
        optimizer.step()
    first, last = (sum(float(loss[key]) for loss in seen[i] for key in loss if key.startswith("ce")) for i in (0, -1))
    assert last < 0.8 * first
    moved = [delta for delta in attacked if (delta != 0).any()]
    assert len(moved) >= 5
    for delta in moved:
        perturbed = batch["pixel_values"] + delta
        assert perturbed.min() >= 0
        assert perturbed.max() <= 1
        kind, limit = ("linf", 2 / 255) if name == "scal-fgsm" else ("l2", 0.1 if name != "scal" else 0.05)
        assert (norm(delta, kind) <= limit * (1 + 1e-5)).all()  # type: ignore[arg-type]
    if name == "carl":
        assert "contrast_adv" in {key for loss in seen[-1] for key in loss}


def test_a_module_of_ones_own_can_be_a_backbone() -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = shaken(ImageModel(encoder, 4, labels=("a", "b"), dual=True, mean=(0.5,), std=(0.5,)))
    out = model({"pixel_values": torch.rand(3, 1, 6, 6)}, want=("logits", "h"), bn_branch="adversarial")
    assert out.logits.shape == (3, 2)
    assert (model.backbone, model.dual) == (None, True)
