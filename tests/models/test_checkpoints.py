"""Others' weights by their key names: nothing is left out without a word, and the numbers are theirs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.images import CIFAR10, MEAN, STD, cifar10_test, features, image_batch
from safetensors.torch import save_file
from torch import Tensor

from contraverse.attacks import NormBall, perturbation_inputs, pgd
from contraverse.errors import UserError
from contraverse.models.image import ImageModel
from contraverse.models.resnet import BACKBONES, BasicBlock, ResNet

State = dict[str, Tensor]
TINY = "two-stages"
WIDTH = 8


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, TINY, lambda: ResNet(BasicBlock, (1, 1), 4))


def norm(name: str, width: int, *, counter: bool = True) -> State:
    state = {f"{name}.{part}": torch.randn(width) for part in ("weight", "bias", "running_mean")}
    state[f"{name}.running_var"] = torch.rand(width) + 0.5
    return state | ({f"{name}.num_batches_tracked": torch.tensor(7)} if counter else {})


def acl(depths: tuple[int, ...] = (1, 1), width: int = 4, *, sets: int = 2, layers: int = 3) -> State:
    """What ACL's code saves of a pre-trained network: its names, random values."""

    def norms(name: str, width: int) -> State:
        return {k: v for i in range(sets) for k, v in norm(f"{name}.bn_list.{i}", width).items()}

    state = {"normalize.mean": torch.tensor(MEAN), "normalize.std": torch.tensor(STD)}
    state |= {"conv1.weight": torch.randn(width, 3, 3, 3), **norms("bn1", width)}
    inputs = width
    for stage, depth in enumerate(depths, start=1):
        wide = width * 2 ** (stage - 1)
        for block in range(depth):
            name = f"layer{stage}.{block}"
            state |= {f"{name}.conv1.weight": torch.randn(wide, inputs, 3, 3) / 5, **norms(f"{name}.bn1", wide)}
            state |= {f"{name}.conv2.weight": torch.randn(wide, wide, 3, 3) / 5, **norms(f"{name}.bn2", wide)}
            if inputs != wide:
                state[f"{name}.downsample.conv.weight"] = torch.randn(wide, inputs, 1, 1)
                state |= norms(f"{name}.downsample.bn", wide)
            inputs = wide
    for i in range(1, layers + 1):
        state |= {f"fc.fc{i}.weight": torch.randn(inputs, inputs) / 3, **norms(f"fc.bn{i}", inputs)}
    return state | {"fc.fc1.bias": torch.randn(inputs)}


def usual(*, classifier: str = "fc", shortcut: str = "downsample", counter: bool = True) -> State:
    """A ResNet in torchvision's names, or in those that are widespread for CIFAR."""
    state = {"conv1.weight": torch.randn(4, 3, 3, 3), **norm("bn1", 4, counter=counter)}
    for name, inputs, wide in (("layer1.0", 4, 4), ("layer2.0", 4, 8)):
        for i in (1, 2):
            state[f"{name}.conv{i}.weight"] = torch.randn(wide, inputs if i == 1 else wide, 3, 3) / 5
            state |= norm(f"{name}.bn{i}", wide, counter=counter)
    state[f"layer2.0.{shortcut}.0.weight"] = torch.randn(8, 4, 1, 1)
    state |= norm(f"layer2.0.{shortcut}.1", 8, counter=counter)
    return state | {f"{classifier}.weight": torch.randn(3, 8), f"{classifier}.bias": torch.randn(3)}


def written(found: Any, path: Path) -> Path:
    torch.save(found, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "P_state"])
@torch.no_grad()
def test_acls_checkpoint_gives_its_features_and_its_projection(tmp_path: Path, prefix: str, wrapper: Any) -> None:
    """Index 0 is the clean bn_branch and index 1 the adversarial one, in the head too; both written out from the
    names."""
    state, batch = acl(), image_batch()
    found: Any = {prefix + name: value for name, value in state.items()}
    if wrapper:
        found = {wrapper: found, "epoch": 1000, "optim": {"state": {}, "lr": torch.tensor(5.0)}}
    model = ImageModel.from_checkpoint(written(found, tmp_path / "model.pt"))
    assert (model.backbone, model.dual, model.labels, model.training) == (TINY, True, None, False)
    assert model.mean == pytest.approx(MEAN)
    x = (batch["pixel_values"] - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    for index, bn_branch in enumerate(("clean", "adversarial")):
        h = features(state, x, bn="{}.bn_list." + str(index), shortcut=("downsample.conv", "downsample.bn"))
        z = h
        for i in (1, 2, 3):
            z = F.linear(z, state[f"fc.fc{i}.weight"], state.get(f"fc.fc{i}.bias"))
            parts = (state[f"fc.bn{i}.bn_list.{index}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
            z = F.batch_norm(z, *parts)
            z = z.relu() if i < 3 else z
        out = model(batch, want=("h", "z"), bn_branch=bn_branch)
        torch.testing.assert_close(out.h, h, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out.z, z, rtol=1e-3, atol=1e-3)
    assert model.state_dict()["encoder.bn1.clean.num_batches_tracked"] == 7


def test_acls_resnet_18_is_known_whole(tmp_path: Path) -> None:
    model = ImageModel.from_checkpoint(written(acl((2, 2, 2, 2), 64), tmp_path / "model.pt"), labels=("a", "b"))
    assert (model.backbone, model.dual, model.labels) == ("resnet18", True, ["a", "b"])
    assert model.heads["z"](torch.rand(2, 512)).shape == (2, 512)


@pytest.mark.parametrize(("layers", "sets"), [(2, 2), (3, 1)])
def test_acls_smaller_variants_are_known(tmp_path: Path, layers: int, sets: int) -> None:
    """Two layers in the head; and SimCLR, whose list holds the clean batch norm alone."""
    model = ImageModel.from_checkpoint(written(acl(layers=layers, sets=sets), tmp_path / "model.pt"))
    assert model.dual is (sets == 2)
    assert model.head_specs["z"].layers == layers
    assert model(image_batch(), want=("z",)).z.shape == (4, WIDTH)


@pytest.mark.parametrize(("classifier", "shortcut"), [("fc", "downsample"), ("linear", "shortcut")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@torch.no_grad()
def test_the_usual_layouts_give_their_logits(tmp_path: Path, classifier: str, shortcut: str, suffix: str) -> None:
    state, batch = usual(classifier=classifier, shortcut=shortcut, counter=False), image_batch()
    path = tmp_path / f"model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = ImageModel.from_checkpoint(path)
    assert (model.backbone, model.dual, model.labels) == (TINY, False, ["0", "1", "2"])
    h = features(state, model.normalise(batch["pixel_values"]), shortcut=(f"{shortcut}.0", f"{shortcut}.1"))
    expected = F.linear(h, state[f"{classifier}.weight"], state[f"{classifier}.bias"])
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-4, atol=1e-4)
    named = ImageModel.from_checkpoint(path, labels=("x", "y", "z"))
    assert named.labels == ["x", "y", "z"]
    assert torch.equal(named(batch).logits, model(batch).logits)
    with pytest.raises(UserError, match="has 3 classes, and 2 labels"):
        ImageModel.from_checkpoint(path, labels=("x", "y"))


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (lambda: without(usual(), "layer2.0.bn1.running_mean"), "lacks layer2.0.bn1.running_mean"),
        (lambda: usual() | {"layer2.1.conv1.weight": torch.zeros(1)}, "does not know layer2.1.conv1.weight"),
        (lambda: usual() | {"conv1.weight": torch.zeros(4, 3, 7, 7)}, "another shape of conv1.weight"),
        (lambda: without(acl(), "layer1.0.bn2.bn_list.1.weight"), "lacks layer1.0.bn2.adversarial.weight"),
        (lambda: without(acl(), "fc.bn3.bn_list.1.bias"), "of the projection head, it lacks norm3.adversarial.bias"),
        (lambda: without(acl(), "fc.fc2.weight"), "of the projection head, it lacks linear2.weight"),
        (lambda: acl(sets=3), "3 sets of batch norms"),
        (lambda: {f"net.{name}": value for name, value in usual().items()}, "more"),
        (lambda: without(usual(), "fc.weight"), "of the classifier, it lacks weight"),
        (lambda: usual() | {"fc.weight": torch.zeros(3, 7)}, "of the classifier, it has another shape of weight"),
        (lambda: without(acl(), "normalize.std"), "not both"),
        (lambda: without(usual(), "fc.bias"), "of the classifier, it lacks bias"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, state: Any, says: str) -> None:
    """Trap 4: names that do not fit are never passed over."""
    path = written(state(), tmp_path / "model.pt")
    with pytest.raises(UserError, match=says.replace(".", r"\.")) as caught:
        ImageModel.from_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_file_that_holds_no_weights_is_the_users_mistake(tmp_path: Path) -> None:
    text, whole = tmp_path / "a.pt", tmp_path / "b.pt"
    text.write_text("<html>quota exceeded</html>")
    torch.save(torch.nn.Linear(2, 2), whole)
    (tmp_path / "a.safetensors").write_text("no")
    for path in (text, whole, tmp_path / "a.safetensors", tmp_path / "nothing.pt"):
        with pytest.raises(UserError, match="cannot be read as weights"):
            ImageModel.from_checkpoint(path)
    for number, found in enumerate(({"epoch": 3}, [torch.zeros(1)])):
        with pytest.raises(UserError, match="no weights by name"):
            ImageModel.from_checkpoint(written(found, tmp_path / f"{number}.pt"))


@pytest.mark.slow
@pytest.mark.skipif(
    not CIFAR10.is_file() or find_spec("pyautoattack") is None, reason="needs ../shared/data, pyautoattack"
)
def test_the_network_that_pyautoattack_ships_is_accurate_and_not_robust() -> None:
    """Standard training: 93.7 % of clean images (of 200, two standard errors are 3.4 points), none under PGD."""
    spec = find_spec("pyautoattack")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "examples" / "model_test.pt"
    model = ImageModel.from_checkpoint(path).to(memory_format=torch.channels_last).requires_grad_(False)
    model.set_normalisation((0.0,) * 3, (1.0,) * 3)
    assert model.backbone == "resnet18"
    pixels, labels = cifar10_test(200)
    right = robust = 0
    for x, y in zip(pixels.split(50), labels.split(50), strict=True):
        batch = {"pixel_values": x, "labels": y}

        def loss(delta: Tensor, batch: Any = batch) -> Tensor:
            logits = model(batch, delta=delta).logits
            assert logits is not None
            return F.cross_entropy(logits, batch["labels"], reduction="none")

        delta = pgd(loss, NormBall(8 / 255, 2 / 255, "linf"), perturbation_inputs(model, batch), steps=10).delta
        with torch.no_grad():
            right += int((model(batch).logits.argmax(1) == y).sum())
            robust += int((model(batch, delta=delta).logits.argmax(1) == y).sum())
    assert right / 2 == pytest.approx(93.7, abs=3.4)
    assert robust == 0
