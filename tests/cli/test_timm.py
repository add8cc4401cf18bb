"""Backbones of timm's on the command line: settings, random weights, and sizes that they do not take, found at once."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference.image_files import FEW, read
from torch import Tensor, nn


class OfOneSize(nn.Module):
    """Takes images of one size alone, as a vision transformer does, and says so by an AssertionError."""

    num_features = 6
    pretrained_cfg: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.conv = size, nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == self.size, f"Input height ({x.shape[2]}) doesn't match model ({self.size})."
        return self.conv(x).mean((2, 3))


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A timm of one network; what it was asked for."""
    calls: list[dict[str, Any]] = []

    def create_model(name: str, *, pretrained: bool, num_classes: int, img_size: int = 224) -> nn.Module:
        calls.append({"name": name, "pretrained": pretrained, "img_size": img_size})
        torch.manual_seed(0)
        return OfOneSize(img_size)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return calls


@pytest.mark.parametrize("pretrained", ["true", "false"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_size_that_the_network_does_not_take_is_found_at_once(
    invoke: Any, folder: Path, tmp_path: Path, pretrained: str, dry: bool
) -> None:
    args = ("train", "ce", "--task", "images", "--data", folder, "--model", "timm/vit", *FEW)
    more = ("--dry-run",) if dry else ("--output", tmp_path / "run")
    done = invoke(*args, "--set", f"model.pretrained={pretrained}", *more, code=2)
    said = " ".join(done.stderr.split())
    assert "timm/vit takes no images of 8 x 8: Input height (8) doesn't match model (224)." in said
    assert "--set model.timm.img_size=8" in said
    assert "Training" not in said


def test_settings_and_random_weights_reach_timm_and_come_back(
    invoke: Any, folder: Path, tmp_path: Path, made: list[dict[str, Any]]
) -> None:
    args = ("train", "ce", "--task", "images", "--data", folder, "--model", "timm/vit", *FEW)
    own = ("--set", "model.timm.img_size=8", "--set", "model.pretrained=false", "--set", "evaluation.epsilons=[]")
    invoke(*args, *own, "--dry-run")
    invoke(*args, *own, "--output", tmp_path / "run")
    assert {tuple(call.values()) for call in made} == {("vit", False, 8)}
    assert read(tmp_path / "run" / "model" / "contraverse.json")["timm"] == {"img_size": 8}
    invoke("predict", tmp_path / "run", folder / "test", "--output", tmp_path / "p.csv")
    assert made[-1]["img_size"] == 8
    again = ("train", "ce", "--init", tmp_path / "run", "--task", "images", "--data", folder, *FEW)
    invoke(*again, "--size", 12, "--dry-run", code=2)
    refused = invoke(*args, "--set", "model.timm.patch=3", "--output", tmp_path / "no", code=2)
    assert "cannot load timm/vit" in refused.stderr
    assert not (tmp_path / "no").exists()
