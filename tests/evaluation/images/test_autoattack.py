"""AutoAttack: against exact robustness, the package's own ensemble, and what it must leave alone."""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.images import CIFAR10, buffers, cifar10_test, tiny
from reference.linear_images import LinearImages, grey_images, middle, radii
from torch import Tensor, nn

from contraverse.attacks import NormBall, pgd
from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images import autoattack
from contraverse.evaluation.images.autoattack import auto_attack
from contraverse.models.image import ImageModel
from contraverse.types import Inputs

pyautoattack = pytest.importorskip("pyautoattack")
FAST = ("apgd-ce", "apgd-t")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_breaks_exactly_what_can_be_broken_of_a_linear_model(norm: Any) -> None:
    model = LinearImages()
    data = grey_images(model)
    epsilon = middle(model, data, norm)
    robust = (radii(model, data, norm) > epsilon).numpy()
    assert 0.2 < robust.mean() < 0.7
    report = auto_attack(model, data, epsilon, norm=norm, attacks=FAST)
    np.testing.assert_array_equal(report.correct, robust)
    assert report.accuracy == pytest.approx(100 * robust.mean())
    assert report.clean_accuracy == 87.5
    assert report.metrics == {"accuracy": 87.5, f"accuracy@autoattack-{epsilon:g}": report.accuracy}


def test_it_is_the_package_s_own_ensemble_batch_for_batch() -> None:
    model = LinearImages()
    data = grey_images(model, rows=6)
    model.eval()
    assert data.labels is not None
    epsilon = middle(model, data, "linf")
    ours = auto_attack(model, data, epsilon, queries=30, batch_size=4, seed=3)
    runner = pyautoattack.AutoAttack(model, eps=epsilon, seed=3, version="standard")
    runner.square.n_queries, runner.apgd_targeted.n_target_classes, runner.fab.n_target_classes = 30, 4, 4
    found, _ = runner.run_standard_evaluation(data.pixels.float() / 255, data.labels, batch_size=4)
    with torch.no_grad():
        theirs = (model(found).argmax(1) == data.labels).numpy()
    np.testing.assert_array_equal(ours.correct, theirs)
    assert list(ours.left) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    left = [ours.clean_accuracy, *ours.left.values()]
    assert left == sorted(left, reverse=True)
    assert left[-1] == ours.accuracy
    assert all(seconds > 0 for seconds in ours.seconds.values())
    json.dumps(ours.to_dict())


def test_an_attack_sees_only_what_the_ones_before_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = LinearImages(), []
    data, run = grey_images(model, rows=16), pyautoattack.AutoAttack.run_standard_evaluation

    def counted(self: Any, x: Tensor, *args: Any, **settings: Any) -> Any:
        seen.append((self.attacks_to_run[0], len(x)))
        return run(self, x, *args, **settings)

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", counted)
    report = auto_attack(model, data, middle(model, data, "linf"), attacks=("apgd-ce", "square"), queries=2)
    left = round(report.left["apgd-ce"] * 16 / 100)
    assert 0 < left < 14
    assert seen == [("apgd-ce", 14), ("square", left)]


@pytest.mark.parametrize("attack", ["apgd-dlr", "apgd-t", "fab-t"])
@pytest.mark.parametrize(("classes", "norm"), [(2, "linf"), (2, "l2"), (3, "linf"), (3, "l2"), (2, "l1"), (3, "l1")])
def test_every_attack_takes_two_and_three_classes(classes: int, norm: Any, attack: str) -> None:
    model = LinearImages(classes)
    data = grey_images(model, rows=6)
    epsilon = middle(model, data, norm)
    report = auto_attack(model, data, epsilon, norm=norm, attacks=(attack,), queries=50)
    robust = (radii(model, data, norm) > epsilon).numpy()
    assert not (robust & ~report.correct).any()  # nobody breaks what cannot be broken
    if norm != "l1" and (attack != "apgd-dlr" or classes == 2):
        np.testing.assert_array_equal(report.correct, robust)
    requires = {"apgd-t": 4, "apgd-dlr": 3}.get(attack, 2)
    assert report.replaced == ({attack: "margin"} if classes < requires else {})
    assert ("margin for DLR" in report.mark) == bool(report.replaced)
    assert report.warnings == []


@pytest.mark.parametrize(("version", "classes"), [("standard", 2), ("standard", 3), ("plus", 2), ("rand", 2)])
def test_every_version_takes_few_classes_and_the_figure_is_marked(version: Any, classes: int) -> None:
    model = LinearImages(classes)
    data = grey_images(model, rows=6)
    epsilon = middle(model, data, "linf")
    report = auto_attack(model, data, epsilon, version=version, queries=20)
    assert tuple(report.left) == autoattack.VERSIONS[version]
    np.testing.assert_array_equal(report.correct, (radii(model, data, "linf") > epsilon).numpy())
    expected = [attack for attack, requires in (("apgd-dlr", 3), ("apgd-t", 4)) if classes < requires]
    assert set(report.replaced) == {attack for attack in expected if attack in report.left}
    assert report.to_dict()["replaced"] == report.replaced
    marks = ([] if version == "standard" else [version]) + ([] if version == "rand" else ["20 queries"])
    marks += [f"margin for DLR in {', '.join(report.replaced)}"] if report.replaced else []
    assert report.mark == report.to_dict()["mark"] == "; ".join(marks)


class Confident(LinearImages):
    """Logits so far apart that the softmax is saturated and cross-entropy has no gradient."""

    def forward(self, pixels: Tensor) -> Tensor:
        return 1e6 * super().forward(pixels)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_margin_sees_what_cross_entropy_does_not(classes: int) -> None:
    model = Confident(classes)
    data = grey_images(model, rows=16)
    epsilon = middle(model, data, "linf")
    robust = (radii(model, data, "linf") > epsilon).numpy()
    blind = auto_attack(model, data, epsilon, attacks=("apgd-ce",))
    assert (blind.correct & ~robust).any()
    np.testing.assert_array_equal(auto_attack(model, data, epsilon, attacks=("apgd-t",)).correct, robust)


def test_the_standard_ensemble_has_no_mark_and_a_part_of_it_has() -> None:
    model = LinearImages()
    data = grey_images(model, rows=2)
    assert auto_attack(model, data, 0.3).mark == ""
    assert auto_attack(model, data, 0.001, attacks=("apgd-ce",)).mark == "apgd-ce alone"


@pytest.mark.parametrize("dual", [False, True])
def test_modes_flags_buffers_gradients_and_random_state_stay_as_they_were(dual: bool) -> None:
    model = tiny(tuple("abcde"), dual=dual)
    model.train()
    model.encoder.eval()
    first = next(model.parameters())
    first.requires_grad_(False)
    first.grad = torch.ones_like(first)
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        labels = model.plain()(pixels.float() / 255).argmax(1)
    data = ImageData.from_arrays(pixels.numpy(), labels.numpy(), tuple("abcde"))
    before = buffers(model), copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    flags, state = [p.requires_grad for p in model.parameters()], torch.random.get_rng_state()
    assert auto_attack(model, data, 0.01, attacks=("fab", "apgd-ce")).clean_accuracy == 100
    after = buffers(model), model.state_dict(), [m.training for m in model.modules()]
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert all(torch.equal(before[1][name], after[1][name]) for name in before[1])
    assert before[2] == after[2]
    assert flags == [p.requires_grad for p in model.parameters()]
    assert [p.grad is None for p in model.parameters()] == [False] + [True] * (len(flags) - 1)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert torch.equal(state, torch.random.get_rng_state())


def test_any_module_is_left_as_it_was() -> None:
    model = LinearImages().train()
    data = grey_images(model, rows=4)
    before, outer = copy.deepcopy(model.state_dict()), sys.gettrace()

    def tracer(*_: Any) -> None:
        return None

    sys.settrace(tracer)
    try:
        auto_attack(model, data, 0.001, attacks=("fab-t",))
        kept = sys.gettrace()
    finally:
        sys.settrace(outer)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert model.norm.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert kept is tracer


def test_the_set_of_batch_norms_is_the_route_s() -> None:
    model = tiny(tuple("abcde"), dual=True)
    random = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=random, dtype=torch.uint8)
    with torch.no_grad():
        predicted = model.plain("clean")(pixels.float() / 255).argmax(1)
        other = model.plain("adversarial")(pixels.float() / 255).argmax(1)
    assert not torch.equal(predicted, other)
    data = ImageData.from_arrays(pixels.numpy(), predicted.numpy(), tuple("abcde"))
    report = auto_attack(model, data.select(range(4)), 1e-6, attacks=("apgd-ce",), bn_branch="clean")
    assert report.clean_accuracy == 100


@pytest.mark.parametrize("wrong", ["ball", "box"])
def test_an_image_outside_the_ball_or_the_box_is_not_counted(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LinearImages()
    data = grey_images(model, rows=7)

    def give(self: Any, x: Tensor, y: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        if wrong == "ball":
            return torch.rand_like(x), y
        return x - 2 * x.amax() * (torch.rand_like(x) > 0.5), y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", give)
    report = auto_attack(model, data, 0.01 if wrong == "ball" else 9.0, attacks=("square",))
    assert report.accuracy == report.clean_accuracy
    assert "square gave" in report.warnings[0]


class Shaky(LinearImages):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels + 0.1 * torch.randn_like(pixels))


class Rounded(LinearImages):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).mul(1e3).round()


def test_what_autoattack_warns_of_is_in_the_report_once() -> None:
    model = LinearImages()
    data = grey_images(model, rows=6)
    shaky = auto_attack(Shaky(), data, 0.001, attacks=("apgd-ce",), batch_size=3)
    assert sum("randomized" in text for text in shaky.warnings) == 1
    blind = auto_attack(Rounded(), data, 0.001, attacks=("apgd-t",))
    assert any("zero gradient" in text for text in blind.warnings)
    assert auto_attack(model, data, 0.001, attacks=FAST).warnings == []


def test_a_run_that_was_interrupted_ends_with_the_same_report(tmp_path: Path) -> None:
    model = LinearImages()
    data = grey_images(model, rows=11)
    settings: Any = {"attacks": ("square", "apgd-ce"), "queries": 10, "batch_size": 3}
    epsilon = middle(model, data, "linf")
    whole = auto_attack(model, data, epsilon, **settings)
    told: list[int] = []

    def stop(rows: int) -> None:
        told.append(rows)
        if len(told) == 4:
            raise KeyboardInterrupt

    path = tmp_path / "state.json"
    with pytest.raises(KeyboardInterrupt):
        auto_attack(model, data, epsilon, **settings, state=path, progress=stop)
    stored = json.loads(path.read_text())["broken"]
    assert list(stored) == ["square"]
    assert len(stored["square"]) == 3
    settled: list[int] = []
    resumed = auto_attack(model, data, epsilon, **settings, state=path, progress=settled.append)
    np.testing.assert_array_equal(resumed.correct, whole.correct)
    assert (resumed.left, resumed.settings) == (whole.left, whole.settings)
    assert sum(settled) == 2 * len(data)
    finished = path.read_bytes()
    again = auto_attack(model, data, epsilon, **settings, state=path)
    assert (again.left, again.seconds, path.read_bytes()) == (whole.left, resumed.seconds, finished)


def test_a_state_of_another_call_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "state.json", LinearImages()
    data = grey_images(model, rows=3)
    auto_attack(model, data, 0.001, attacks=("apgd-ce",), state=path)
    for changed, says in (
        (lambda: auto_attack(model, data, 0.002, attacks=("apgd-ce",), state=path), "another epsilon"),
        (lambda: auto_attack(LinearImages(seed=9), data, 0.001, attacks=("apgd-ce",), state=path), "another model"),
        (lambda: auto_attack(model, data.select([1]), 0.001, attacks=("apgd-ce",), state=path), "another data"),
    ):
        with pytest.raises(UserError, match=says):
            changed()
    for content in ("{}", "[1]", "x", '{"call": [], "broken": {}, "seconds": {}}'):
        path.write_text(content)
        with pytest.raises(UserError, match="holds no state"):
            auto_attack(model, data, 0.001, attacks=("apgd-ce",), state=path)
    with pytest.raises(UserError, match="its folder does not exist"):
        auto_attack(model, data, 0.001, attacks=("apgd-ce",), state=tmp_path / "nowhere" / "state.json")
    with pytest.raises(UserError, match="holds no state"):
        auto_attack(model, data, 0.001, attacks=("apgd-ce",), state=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"norm": "l0"}, "no norm"),
        ({"version": "best"}, "no version of AutoAttack"),
        ({"epsilon": 0.0}, "8/255"),
        ({"attacks": ("pgd",)}, "each once"),
        ({"attacks": ()}, "each once"),
        ({"queries": 0}, "at least 1"),
    ],
)
def test_an_impossible_setting_is_refused(wrong: dict[str, Any], says: str) -> None:
    model = LinearImages()
    with pytest.raises(UserError, match=says):
        auto_attack(model, grey_images(model), **{"epsilon": 0.1, **wrong})


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LinearImages(classes=3)
    data = grey_images(model, rows=4)
    one = ImageData.from_arrays(data.pixels, [0] * len(data), ["all"])
    with pytest.raises(UserError, match="needs two classes, and the model has a single one"):
        auto_attack(nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), one, 0.1)
    with pytest.raises(UserError, match="has 2 classes, and an image has the label 2"):
        auto_attack(LinearImages(classes=2), data, 0.1)
    with pytest.raises(UserError, match=r"gives a tensor of shape \(1, 3, 8, 8\)"):
        auto_attack(nn.Identity(), data, 0.1)
    with pytest.raises(UserError, match="no classifier"):
        auto_attack(tiny(None), data, 0.1)
    with pytest.raises(UserError, match="needs labels"):
        auto_attack(model, ImageData(data.pixels, None, None), 0.1)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r"contraverse\[images\]"):
        auto_attack(model, data, 0.1)


def test_the_table_of_versions_is_the_package_s() -> None:
    for version, attacks in autoattack.VERSIONS.items():
        assert tuple(pyautoattack.AutoAttack(nn.Identity(), version=version).attacks_to_run) == attacks


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.exists(), reason="needs CIFAR-10 in ../shared")
def test_a_resnet18_that_others_trained_is_right_clean_and_wrong_under_pgd() -> None:
    """The package ships one: standard training, pixels in [0, 1] as they are.

    Such a network is right on 93 to 95 % of all 10,000 test images; of 300, two standard errors are 2.7 points.
    """
    model = ImageModel.from_checkpoint(Path(os.fspath(pyautoattack.__path__[0])) / "examples" / "model_test.pt")
    model.set_normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert model.backbone == "resnet18"
    plain = model.plain().requires_grad_(False)
    pixels, labels = cifar10_test(300)
    with torch.no_grad():
        right = torch.cat([plain(x).argmax(1) for x in pixels.split(100)]) == labels
    assert 100 * right.float().mean().item() == pytest.approx(94, abs=2.7)
    x, y = pixels[:32], labels[:32]
    inputs = Inputs(x, torch.ones(1, 1, 1, 1, dtype=torch.bool), 0.0, 1.0)
    loss_of = lambda delta: nn.functional.cross_entropy(plain(x + delta), y, reduction="none")  # noqa: E731
    found = pgd(loss_of, NormBall(8 / 255, 2 / 255, "linf"), inputs, steps=20, random_start=True)
    with torch.no_grad():
        assert (plain(x + found.delta).argmax(1) == y).sum() == 0
