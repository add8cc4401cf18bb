"""Published files of weights, and a network of the user's own, on the command line."""

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference import published_networks as published
from reference.image_files import read
from torch import Tensor

from contraverse.errors import UserError
from contraverse.models import ImageModel
from contraverse.models.resnet import BACKBONES, WideResNet


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "narrow", lambda: WideResNet(10, 1))


def test_images(folder: Path) -> tuple[Tensor, Tensor]:
    files = sorted((folder / "test").rglob("*.png"))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])
    return pixels, torch.tensor([("dark", "light").index(file.parent.name) for file in files])


test_images.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture
def wide(folder: Path, tmp_path: Path) -> tuple[Path, float]:
    """A file in TRADES' names, and its accuracy on the test images in percent."""
    state = published.random_state(published.wide_shapes(10, 1, 2, sub_block=True), seed=3)
    pixels, labels = test_images(folder)
    logits = published.wide_logits(state, pixels, 10)
    state["fc.bias"] -= logits.mean(0)  # so that both classes are predicted
    right = published.wide_logits(state, pixels, 10).argmax(1) == labels
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "wide.pt")
    return tmp_path / "wide.pt", 100 * right.float().mean().item()


def test_a_published_file_is_measured_and_used(
    invoke: Any, folder: Path, wide: tuple[Path, float], tmp_path: Path
) -> None:
    file, accuracy = wide
    args = ("--task", "images", "--data", folder, "--eps", "1/255", "--steps", 2, "--no-diagnostics")
    done = invoke("evaluate", file, *args, "--output", tmp_path / "e.json")
    found = read(tmp_path / "e.json")
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert found["metrics"]["accuracy@pgd-0.00392157"] <= accuracy
    said = " ".join(done.stderr.split())
    assert f"{file}: narrow, 2 classes" in said
    assert "pixels are taken as they are (change it with --normalise)" in said
    assert "0 to 1 are taken as dark, light" in said
    alone = tmp_path / "downloaded"
    alone.mkdir()
    file.rename(alone / "wide.pt")
    (alone / "README.md").write_text("weights")
    invoke("evaluate", alone, *args, "--output", tmp_path / "f.json")
    assert read(tmp_path / "f.json")["metrics"] == found["metrics"]
    invoke("predict", alone, folder / "test", "--output", tmp_path / "p.csv")
    labels = [row["label"] for row in csv.DictReader((tmp_path / "p.csv").open())]
    pixels, truth = test_images(folder)
    assert 100 * np.mean([int(one) == int(two) for one, two in zip(labels, truth, strict=True)]) == pytest.approx(
        accuracy
    )
    invoke("encode", alone / "wide.pt", folder / "test", "--output", tmp_path / "h.npy")
    assert np.load(tmp_path / "h.npy").shape == (len(pixels), 64)
    done = invoke("evaluate", alone, *args, "--normalise", "half", "--output", tmp_path / "g.json")
    assert "pixels are taken as they are" not in done.stderr
    model = ImageModel.from_checkpoint(alone / "wide.pt", normalisation=((0.5,) * 3, (0.5,) * 3)).plain()
    right = model(pixels).argmax(1) == truth
    assert read(tmp_path / "g.json")["metrics"]["accuracy"] == pytest.approx(100 * right.float().mean().item())


def test_acl_s_names_are_known(invoke: Any, folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ImageModel.from_pretrained("resnet8", labels=["0", "1"])
    state = {name.removeprefix("encoder."): v for name, v in model.state_dict().items() if name.startswith("encoder.")}
    state |= {f"fc.{name}": value for name, value in model.classifier.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "tune.pt")
    args = ("--data", folder, "--eps", "none", "--output", tmp_path / "e.json")
    done = invoke("evaluate", tmp_path / "tune.pt", *args)
    assert "ImageNet's is used" in done.stderr
    pixels, labels = test_images(folder)
    right = model.eval().plain()(pixels).argmax(1) == labels
    assert read(tmp_path / "e.json")["metrics"]["accuracy"] == pytest.approx(100 * right.float().mean().item())


def test_an_architecture_that_no_name_tells_is_asked_for(invoke: Any, folder: Path, tmp_path: Path) -> None:
    torch.save(published.random_state(published.preact_shapes(2, last=False)), tmp_path / "p.pt")
    args = ("evaluate", tmp_path / "p.pt", "--data", folder, "--eps", "none")
    assert "--model-arch preact-resnet18" in invoke(*args, code=2).stderr
    invoke(*args, "--model-arch", "preact-resnet18-raw")


class Harmful:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harmed"),)


def test_what_is_wrong_with_a_file_is_said_and_nothing_in_it_is_run(
    invoke: Any, folder: Path, wide: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("--data", folder, "--eps", "none")
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"state_dict": Harmful()}))
    assert "cannot be read as weights" in invoke("evaluate", "bad.pt", *args, code=2).stderr
    assert not (tmp_path / "harmed").exists()
    both = tmp_path / "both"
    both.mkdir()
    for name in ("a.pt", "b.pt"):
        (both / name).write_bytes(wide[0].read_bytes())
    assert "several files of weights are here: a.pt, b.pt" in invoke("evaluate", both, *args, code=2).stderr
    assert "--normalise" in invoke("evaluate", wide[0], *args, "--normalise", "imagine", code=2).stderr
    run = ImageModel.from_pretrained("resnet8", labels=["dark", "light"]).save(tmp_path / "model")
    assert "for a file of weights" in invoke("evaluate", run, *args, "--model-arch", "narrow", code=2).stderr
    said = " ".join(
        invoke("evaluate", wide[0], *args[2:], "--task", "cifar10", "--data", folder, code=2).stderr.split()
    )
    assert "has 2 classes, and cifar10 has 10" in said
    (folder_of_three := tmp_path / "three").mkdir()
    for name in "abc":
        (folder_of_three / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder_of_three / name / "0.png")
    said = " ".join(invoke("evaluate", wide[0], "--data", folder_of_three, "--eps", "none", code=2).stderr.split())
    assert "has 2 classes, and the images are of 3: a, b, c" in said


NETWORK = """
import torch
from torch import nn
from beside import SCALE

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        x = self.pool(self.conv((x - 0.5) * SCALE).relu())
        return self.fc(x.view(x.size(0), -1))  # which needs the default layout

def build():
    torch.manual_seed(5)
    return Net()

def broken():
    raise RuntimeError("out of luck")

def nothing():
    return 3

def image():
    return nn.Identity()
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "beside.py").write_text("SCALE = 2.0\n")
    return tmp_path / "net.py"


def test_a_network_of_one_s_own(invoke: Any, folder: Path, own: Path, tmp_path: Path) -> None:
    pixels, labels = test_images(folder)
    torch.manual_seed(5)
    conv, fc = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.nn.Linear(16, 2)

    def accuracy() -> float:
        with torch.no_grad():
            h = torch.nn.functional.adaptive_avg_pool2d(conv((pixels - 0.5) * 2).relu(), 2).flatten(1)
            return 100 * (fc(h).argmax(1) == labels).float().mean().item()

    args = (
        "--data",
        folder,
        "--eps",
        "1/255",
        "--steps",
        2,
        "--no-diagnostics",
        "--output",
        tmp_path / "e.json",
        "--force",
    )
    spec = ("--module", f"{own}:build")
    for attack in ("pgd", "apgd"):
        invoke("evaluate", *spec, *args, "--attack", attack)
        found = read(tmp_path / "e.json")
        assert found["metrics"]["accuracy"] == pytest.approx(accuracy())
        assert found["metrics"][f"accuracy@{attack}-0.00392157"] <= accuracy()
        assert found["model"] == spec[1]
    with torch.no_grad():
        fc.bias += torch.tensor([0.3, -0.3])
    state = {f"conv.{name}": value for name, value in conv.state_dict().items()}
    torch.save(state | {f"fc.{name}": value for name, value in fc.state_dict().items()}, tmp_path / "w.pt")
    invoke("evaluate", tmp_path / "w.pt", *spec, *args)
    assert read(tmp_path / "e.json")["metrics"]["accuracy"] == pytest.approx(accuracy())
    if _has_autoattack():
        invoke("evaluate", *spec, *args[:4], "--attack", "autoattack", "--attacks", "apgd-ce", "--rows", 4)


def _has_autoattack() -> bool:
    try:
        import pyautoattack  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("net.py", "names no function"),
        ("net.txt:build", "names no function"),
        ("none.py:build", "no such file"),
        ("net.py:missing", "has no function missing"),
        ("net.py:broken", "raised RuntimeError: out of luck"),
        ("net.py:nothing", "gives a int, not a torch.nn.Module"),
        ("net.py:image", "gives (1, 3, 32, 32), not (1, classes)"),
        ("error.py:build", "cannot be run: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_network_is_said(
    invoke: Any, folder: Path, own: Path, spec: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    (own.parent / "error.py").write_text("1 / 0\n")
    done = invoke("evaluate", "--module", spec, "--data", folder, "--eps", "none", code=2)
    assert says in " ".join(done.stderr.split())


def test_a_model_or_a_module_is_needed(invoke: Any, folder: Path, own: Path, tmp_path: Path) -> None:
    assert "Missing argument 'MODEL', or --module, or --predict." in invoke("evaluate", "--data", folder, code=2).stderr
    spec = ("--module", f"{own}:build", "--data", folder, "--eps", "none")
    assert "no file of weights" in invoke("evaluate", tmp_path / "none.pt", *spec, code=2).stderr
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "w.pt")
    assert "do not fit the network" in invoke("evaluate", tmp_path / "w.pt", *spec, code=2).stderr
    assert "own architecture" in invoke("evaluate", *spec, "--model-arch", "resnet18", code=2).stderr


def test_from_module_gives_the_networks_logits() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 28, 4))
    model = ImageModel.from_module(network)
    assert model.labels == list("0123")
    x = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(model({"pixel_values": x}).logits, network(x))
    torch.testing.assert_close(model.plain()(x), network(x))
    assert ImageModel.from_module(network, list("wxyz")).labels == list("wxyz")
    with pytest.raises(UserError, match="no logits for an image of any usual size"):
        ImageModel.from_module(torch.nn.Linear(5, 5))
