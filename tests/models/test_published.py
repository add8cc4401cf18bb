"""Networks whose weights others published: their names are read whole, and their logits are theirs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import published_networks as published
from reference.published_networks import State, random_state
from torch import Tensor

from contraverse.errors import UserError
from contraverse.models.checkpoints import IMAGENET, NORMALISATIONS, RAW, load
from contraverse.models.image import ImageModel
from contraverse.models.preact import SiluWideResNet
from contraverse.models.resnet import BACKBONES, WideResNet

DEPTH = 16


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide networks that a test can run: two blocks a stage, and not wide."""
    monkeypatch.setitem(BACKBONES, "narrow", lambda: WideResNet(DEPTH, 1))
    monkeypatch.setitem(BACKBONES, "silu-narrow", lambda: SiluWideResNet(DEPTH, 1))


def pixels(rows: int = 3, size: int = 16) -> Tensor:
    return torch.rand(rows, 3, size, size, generator=torch.Generator().manual_seed(1))


def saved(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def logits(model: ImageModel, x: Tensor) -> Tensor:
    with torch.no_grad():
        found = model({"pixel_values": x}, want=("logits",)).logits
        torch.testing.assert_close(model.plain()(x), found, atol=1e-4, rtol=1e-4)
    return found


def normalised(x: Tensor, name: str) -> Tensor:
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in NORMALISATIONS[name])
    return (x - mean) / std


def with_normalisation(state: State) -> State:
    mean, std = NORMALISATIONS["cifar10"]
    return state | {"mean": torch.tensor(mean).reshape(3, 1, 1), "std": torch.tensor(std).reshape(3, 1, 1)}


@pytest.mark.parametrize("wrap", ["bare", "module", "model", "both", "last"])
def test_a_wide_network_in_trades_names(tmp_path: Path, wrap: str) -> None:
    state = random_state(published.wide_shapes(DEPTH, 1, 5, sub_block=True))
    prefix = {"bare": "", "module": "module.", "model": "model.", "both": "module.model.", "last": ""}[wrap]
    wrapped: Any = {prefix + name: value for name, value in state.items()}
    wrapped = {"last": {"state_dict": wrapped}, "best": {}} if wrap == "last" else wrapped
    model, notes = load(saved(tmp_path / "wide.pt", wrapped), ImageModel)
    assert (model.backbone, model.labels, (model.mean, model.std)) == ("narrow", list("01234"), RAW)
    assert notes == ["wide.pt (narrow) has no mean and std to normalise with: pixels are taken as they are"]
    x = pixels()
    torch.testing.assert_close(logits(model, x), published.wide_logits(state, x, DEPTH), atol=1e-4, rtol=1e-4)


def test_gowal_s_wide_network(tmp_path: Path) -> None:
    state = with_normalisation(random_state(published.silu_wide_shapes(DEPTH, 1, 10)))
    model, notes = load(saved(tmp_path / "w.pt", state), ImageModel)
    assert (model.backbone, notes) == ("silu-narrow", [])
    x = pixels()
    torch.testing.assert_close(logits(model, x), published.silu_wide_logits(state, x, DEPTH), atol=1e-4, rtol=1e-4)


def test_gowal_s_preact_resnet_18(tmp_path: Path) -> None:
    state = with_normalisation(random_state(published.silu_preact_shapes(10)))
    model = ImageModel.from_checkpoint(saved(tmp_path / "p.pt", state))
    assert model.backbone == "silu-preact-resnet18"
    x = pixels()
    torch.testing.assert_close(logits(model, x), published.silu_preact_logits(state, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("arch", "raw"), [("preact-resnet18", False), ("preact-resnet18-raw", True)])
def test_preact_resnet_18_has_to_be_named(tmp_path: Path, arch: str, raw: bool) -> None:
    state = random_state(published.preact_shapes(10, last=False))
    path = saved(tmp_path / "p.pt", {"state_dict": state})
    with pytest.raises(UserError, match="may be preact-resnet18 or preact-resnet18-raw") as caught:
        ImageModel.from_checkpoint(path)
    assert "--model-arch" in str(caught.value.hint)
    mean, std = NORMALISATIONS["cifar10"]
    model = ImageModel.from_checkpoint(path, arch=arch, normalisation=(mean, std))
    x = pixels()
    expected = published.preact_logits(state, normalised(x, "cifar10"), raw=raw)
    torch.testing.assert_close(logits(model, x), expected, atol=1e-4, rtol=1e-4)
    other = published.preact_logits(state, normalised(x, "cifar10"), raw=not raw)
    assert not torch.allclose(expected, other, atol=1e-2)


@pytest.mark.parametrize("names", [("mu", "sigma"), ("normalize.mean", "normalize.std")])
def test_preact_resnet_18_with_a_last_batch_norm(tmp_path: Path, names: tuple[str, str]) -> None:
    state = random_state(published.preact_shapes(10, last=True))
    values = [torch.tensor(part).reshape(1, 3, 1, 1) for part in NORMALISATIONS["cifar10"]]
    inside = {f"model.{name}": value for name, value in state.items()} if "." in names[0] else state
    path = saved(tmp_path / "p.pt", inside | dict(zip(names, values, strict=True)))
    model = ImageModel.from_checkpoint(path)
    assert model.backbone == "preact-resnet18-bn"
    x = pixels()
    expected = published.preact_logits(state, normalised(x, "cifar10"), raw=False)
    torch.testing.assert_close(logits(model, x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("wrn-28-10", published.wide_shapes(28, 10, 10)),
        ("wrn-34-20", published.wide_shapes(34, 20, 10)),
        ("wrn-70-16", published.wide_shapes(70, 16, 10)),
        ("silu-wrn-28-10", published.silu_wide_shapes(28, 10, 10)),
        ("silu-wrn-34-10", published.silu_wide_shapes(34, 10, 10)),
        ("silu-wrn-34-20", published.silu_wide_shapes(34, 20, 10)),
        ("silu-wrn-70-16", published.silu_wide_shapes(70, 16, 10)),
    ],
)
def test_large_networks_have_the_published_names_and_shapes(name: str, shapes: published.Shapes) -> None:
    with torch.device("meta"):
        expected = published.shapes_of(BACKBONES[name]().state_dict())
    outside = ("fc.", "logits.", "mean", "std")
    assert expected == {key: shape for key, shape in shapes.items() if not key.startswith(outside)}


def test_a_named_architecture_that_the_file_is_not(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", random_state(published.wide_shapes(DEPTH, 1, 5)))
    with pytest.raises(UserError, match="of wrn-28-10, it lacks"):
        ImageModel.from_checkpoint(path, arch="wrn-28-10")
    with pytest.raises(UserError, match="no backbone is called 'wrn'"):
        ImageModel.from_checkpoint(path, arch="wrn")


def test_a_resnet_without_normalisation_gets_imagenet_s_and_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = ImageModel.from_pretrained("resnet8", labels=["a", "b"])
    path = whole.export_weights(tmp_path / "r.safetensors")
    from safetensors.torch import load_file

    bare = saved(tmp_path / "r.pt", load_file(path))
    model, notes = load(bare, ImageModel)
    assert (model.mean, model.std) == IMAGENET
    assert notes == ["r.pt (resnet8) has no mean and std to normalise with: ImageNet's is used"]
    assert load(path, ImageModel)[1] == []  # ours notes it beside the weights
    again, notes = load(bare, ImageModel, normalisation=RAW)
    assert ((again.mean, again.std), notes) == (RAW, [])
