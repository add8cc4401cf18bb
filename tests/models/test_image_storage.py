"""What is saved of an image model loads here, in torchvision's names, and in onnxruntime, with the same numbers."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.images import CLASSES, MEAN, STD, features, image_batch, shaken, tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.models.image import ImageModel
from contraverse.models.image_storage import is_image_model
from contraverse.types import BNBranch, HeadSpec

HEADS = {"z": HeadSpec(kind="mlp", layers=2), "p": HeadSpec(dim=5, activation="none")}
ROUTES: tuple[BNBranch, BNBranch] = ("clean", "adversarial")


def own() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("labels", [CLASSES, None])
@torch.no_grad()
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, dual: bool, labels: Any) -> None:
    model = tiny(labels, dual=dual, heads=HEADS).to(memory_format=torch.channels_last)
    assert model.save(tmp_path / "model") == tmp_path / "model"
    loaded = ImageModel.load(tmp_path / "model")
    for name in ("labels", "backbone", "dual", "mean", "std", "width", "head_specs"):
        assert getattr(loaded, name) == getattr(model, name)
    assert not loaded.training
    old, new = model.state_dict(), loaded.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    want = ("h", "z", "p") if labels is None else ("h", "z", "p", "logits")
    for bn_branch in ROUTES:
        before, after = (m(image_batch(), want=want, bn_branch=bn_branch) for m in (model, loaded))
        for given, found in zip([*before[:3], before.heads["p"]], [*after[:3], after.heads["p"]], strict=True):
            assert given is found is None or torch.allclose(given, found, rtol=0, atol=1e-5)


def test_the_folder_is_readable_and_holds_no_pickle(tmp_path: Path) -> None:
    tiny(dual=True, heads=HEADS).save(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"contraverse.json", "model.safetensors"}
    settings = json.loads((tmp_path / "model" / "contraverse.json").read_text())
    assert (settings["kind"], settings["backbone"], settings["dual"]) == ("image", "resnet8", True)
    assert (settings["labels"], settings["mean"], settings["std"]) == (list(CLASSES), list(MEAN), list(STD))
    assert settings["heads"]["z"]["layers"] == 2
    assert is_image_model(tmp_path / "model")
    assert not is_image_model(tmp_path)


def test_a_module_of_ones_own_needs_another_like_it_to_be_loaded(tmp_path: Path) -> None:
    model = shaken(ImageModel(own(), 4, labels=CLASSES, dual=True, mean=MEAN, std=STD)).eval()
    model.save(tmp_path / "model")
    with pytest.raises(UserError, match="user's own module") as caught:
        ImageModel.load(tmp_path / "model")
    assert "encoder=" in str(caught.value.hint)
    loaded = ImageModel.load(tmp_path / "model", encoder=own())
    for bn_branch in ROUTES:
        assert torch.equal(
            loaded(image_batch(), bn_branch=bn_branch).logits, model(image_batch(), bn_branch=bn_branch).logits
        )
    with pytest.raises(UserError, match="do not fit"):
        ImageModel.load(tmp_path / "model", encoder=nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Flatten()))


def test_weights_that_are_shared_stay_shared(tmp_path: Path) -> None:
    def build() -> nn.Module:
        norm = nn.BatchNorm2d(3)
        return nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.Conv2d(3, 3, 1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    model = shaken(ImageModel(build(), 3, dual=True)).eval()
    model.save(tmp_path / "model")
    loaded = ImageModel.load(tmp_path / "model", encoder=build())
    assert torch.equal(loaded(image_batch(), want=("h",)).h, model(image_batch(), want=("h",)).h)


def test_a_folder_without_a_model_of_images_is_the_users_mistake(tmp_path: Path, tiny_model: Any) -> None:
    tiny_model().save(tmp_path / "text")
    for folder in (tmp_path, tmp_path / "nothing", tmp_path / "text"):
        with pytest.raises(UserError, match="no model of images") as caught:
            ImageModel.load(folder)
        assert str(folder) in str(caught.value)
    tiny().save(tmp_path / "images")
    with pytest.raises(UserError, match="no model"):
        TextModel.load(tmp_path / "images")


@pytest.mark.parametrize("change", ["cut", "missing", "gone"])
def test_damaged_weights_are_the_users_mistake(tmp_path: Path, change: str) -> None:
    tiny().save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    if change == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif change == "gone":
        weights.unlink()
    else:
        tiny(labels=None).save(tmp_path / "other")
        weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="do not fit"):
        ImageModel.load(tmp_path / "model")


def test_a_folder_is_replaced_whole_and_nothing_else_is(tmp_path: Path) -> None:
    tiny(heads=HEADS).save(tmp_path / "model")
    tiny(labels=None).save(tmp_path / "model")
    assert ImageModel.load(tmp_path / "model").labels is None
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "model" / "left.txt").write_text("mine")
    with pytest.raises(UserError, match=r"left\.txt"):
        tiny(labels=None).save(tmp_path / "model")
    assert (tmp_path / "model" / "left.txt").read_text() == "mine"
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    for place in (tmp_path / "papers", tmp_path / "papers" / "thesis.txt"):
        with pytest.raises(UserError, match="would replace"):
            tiny().save(place)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "mine"


def test_a_save_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny().save(tmp_path / "model")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("contraverse.models.folders.save_file", full)
    with pytest.raises(OSError, match="no space"):
        tiny(labels=None).save(tmp_path / "model")
    assert ImageModel.load(tmp_path / "model").labels == list(CLASSES)


def test_saving_changes_neither_the_model_nor_the_generators(tmp_path: Path) -> None:
    model = tiny(dual=True, heads=HEADS).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model.save(tmp_path / "model")
    model.export_weights(tmp_path / "weights.safetensors")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bn_branch", ROUTES)
@torch.no_grad()
def test_exported_weights_are_an_ordinary_state_dict(tmp_path: Path, bn_branch: BNBranch) -> None:
    """The network is written out from the names alone; the file comes back as the same model."""
    model, batch = tiny(dual=True, heads=HEADS).to(memory_format=torch.channels_last), image_batch()
    path = model.export_weights(tmp_path / "new" / "weights.safetensors", bn_branch)
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]
    state = load_file(path)
    assert not [name for name in state if re.search("clean|adversarial|heads|encoder", name)]
    h = features(state, model.normalise(batch["pixel_values"]))
    expected = model(batch, bn_branch=bn_branch).logits
    torch.testing.assert_close(h @ state["fc.weight"].T + state["fc.bias"], expected, rtol=1e-4, atol=1e-4)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["mean"]) == list(MEAN)
    back = ImageModel.from_checkpoint(path)
    assert (back.backbone, back.labels, back.mean, back.std) == ("resnet8", list(CLASSES), MEAN, STD)
    torch.testing.assert_close(back(batch).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_trained_folder_or_file_is_a_start_for_another_task(tmp_path: Path) -> None:
    model, batch = tiny(dual=True, heads=HEADS), image_batch()
    folder = model.save(tmp_path / "model")
    same = ImageModel.from_pretrained(folder, labels=CLASSES, bn_branch="clean")
    assert torch.equal(same(batch).logits, model(batch, bn_branch="clean").logits)
    assert (same.dual, same.mean, dict(same.heads)) == (False, MEAN, {})
    fresh = ImageModel.from_pretrained(folder, labels=("a", "b"), dual=True, mean=(0.5,) * 3)
    assert (fresh.labels, fresh.dual, fresh.mean, fresh.std) == (["a", "b"], True, (0.5,) * 3, STD)
    file = model.export_weights(tmp_path / "weights.safetensors", "adversarial")
    encoder = ImageModel.from_pretrained(file)
    expected = model(batch, want=("h",), bn_branch="adversarial").h
    torch.testing.assert_close(encoder(batch, want=("h",)).h, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_an_export_is_whole_and_as_readable_as_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")

    def export(model: ImageModel) -> Path:
        path = tmp_path / f"model.{kind}"
        return model.export_weights(path) if kind == "safetensors" else model.export_onnx(path, size=8)

    (tmp_path / "plain").touch()
    path = export(tiny())
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    before, torn = path.read_bytes(), []

    def full(*given: Any, **_: Any) -> None:
        (place,) = (part for part in given if isinstance(part, Path))
        place.write_bytes(b"half")
        torn.append(place)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("contraverse.models.folders.save_file", full)
    monkeypatch.setattr("torch.onnx.ONNXProgram.save", full)
    with pytest.raises(OSError, match="No space") as caught:
        export(tiny())
    assert caught.value.filename == str(path)
    assert torn[0] != path
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"plain", path.name}


@torch.no_grad()
def test_onnxruntime_gives_the_same_logits_for_any_batch(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiny(dual=True, heads=HEADS).train()
    path = model.export_onnx(tmp_path / "model.onnx", "clean", size=8)
    assert model.training
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(path)
    (given,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:], logits.name) == ("pixels", [3, 8, 8], "logits")
    model.eval()
    for rows in (1, 3):
        batch = image_batch(rows)
        (found,) = session.run(None, {"pixels": batch["pixel_values"].numpy()})
        np.testing.assert_allclose(found, model(batch, bn_branch="clean").logits, atol=1e-4)
        assert np.abs(found - model(batch, bn_branch="adversarial").logits.numpy()).max() > 1e-2


def test_onnx_that_is_not_installed_is_the_users_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError) as caught:
        tiny().export_onnx(tmp_path / "model.onnx")
    assert "pip install" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_weights_are_channels_last_in_memory_and_in_the_default_layout_where_they_are_saved(tmp_path: Path) -> None:
    model = ImageModel.from_pretrained("resnet8", labels=["a", "b"])
    weight = model.encoder.get_parameter("conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert all(value.is_contiguous() for value in model.state_dict().values())
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    again = ImageModel.from_pretrained("resnet8", labels=["a", "b"])
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    read = again.encoder.get_parameter("conv1.weight")
    assert torch.equal(read, weight)
    assert read.stride() == weight.stride()
