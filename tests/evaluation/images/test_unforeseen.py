"""Accuracy under the unforeseen attacks, and UAR."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.linear_images import LinearImages, grey_images, middle, radii
from torch import Tensor, nn

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images import unforeseen
from contraverse.evaluation.images.unforeseen import (
    CIFAR10_ATA,
    IMAGENET_SIZES,
    UNFORESEEN,
    attack,
    planned,
    uar,
    unforeseen_accuracy,
)


def stripes(rows: int = 24, seed: int = 0) -> ImageData:
    """Noisy stripes that run across, down or slantwise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:16, 0:16]
    labels = np.arange(rows) % 3
    waves = np.stack([np.sin((y, x, (x + y) / 1.4)[k] * 1.2 + random.uniform(0, 6)) for k in labels])
    pixels = 127 + 45 * waves[..., None] + random.normal(0, 12, (rows, 16, 16, 3))
    return ImageData.from_arrays(pixels.clip(0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small convolutional network with batch norm, trained on stripes for a moment."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    ).append(nn.Linear(48, 3))
    data = stripes(90, seed=1)
    assert data.labels is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(data.pixels.float() / 255), data.labels).backward()
        optimizer.step()
    return model.eval()


SIZES: dict[str, list[float]] = {
    "linf": [1, 8, 64],
    "l2": [20, 200, 2000],
    "l1": [200, 2000, 40000],
    "jpeg_linf": [0.05, 0.5, 4],
    "jpeg_l1": [2, 60, 600],
    "elastic": [0.1, 1, 8],
    "fog": [8, 128, 2048],
    "snow": [0.1, 1, 8],
    "gabor": [4, 30, 120],
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_a_larger_attack_leaves_no_more_right_and_the_largest_little(name: str, trained: nn.Module) -> None:
    report = unforeseen_accuracy(trained, stripes(), {name: SIZES[name]}, steps=15, targeted=False)
    found = [report.clean_accuracy, *report.accuracy[name].values()]
    assert found[0] > 95
    assert found == sorted(found, reverse=True)
    assert found[1] > 80
    assert found[-1] < 60  # of three classes


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_an_untargeted_attack_on_a_linear_model_breaks_what_can_be_broken(norm: str) -> None:
    model = LinearImages(classes=2)
    data = grey_images(model)
    epsilon = middle(model, data, norm)
    report = unforeseen_accuracy(model, data, {norm: [255 * epsilon]}, steps=60, targeted=False)
    assert report.accuracy[norm] == {
        255 * epsilon: pytest.approx(100 * (radii(model, data, norm) > epsilon).float().mean().item())
    }


def test_a_random_target_is_another_class_and_the_weaker_attack() -> None:
    model = LinearImages(classes=5)
    data = grey_images(model, rows=32)
    epsilon = 255 * middle(model, data, "linf")
    targeted = unforeseen_accuracy(model, data, {"linf": [epsilon, 6 * epsilon]}, steps=30).accuracy["linf"]
    free = unforeseen_accuracy(model, data, {"linf": [epsilon]}, steps=30, targeted=False).accuracy["linf"]
    assert free[epsilon] < targeted[epsilon]
    assert targeted[6 * epsilon] == 0  # a target that were the own class would make it right


def test_an_image_s_attack_does_not_depend_on_its_batch(trained: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, Any] = {name: SIZES[name][1:2] for name in ("linf", "elastic", "gabor")}
    told: list[int] = []
    keys: list[int] = []

    def spied(*arguments: Any) -> Tensor:
        keys.extend(arguments[-1])
        return attack(*arguments)

    monkeypatch.setattr(unforeseen, "attack", spied)
    one = unforeseen_accuracy(trained, stripes(10), chosen, steps=3, batch_size=4, progress=told.append)
    by_four = keys.copy()
    keys.clear()
    whole = unforeseen_accuracy(trained, stripes(10), chosen, steps=3)
    assert one == whole
    assert by_four == keys
    assert len(set(keys)) == 10
    assert sum(told) == 10 * 4
    assert one != unforeseen_accuracy(trained, stripes(10), chosen, steps=3, seed=1)


def test_the_model_and_the_random_state_stay_as_they_were(trained: nn.Module) -> None:
    model = copy.deepcopy(trained).train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    unforeseen_accuracy(model, stripes(3), {"fog": [10]}, steps=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_uar_is_the_share_of_the_reference_s_accuracy() -> None:
    accuracy = {"linf": {1.0: 80.0, 2.0: 60.0, 9.0: 1.0}, "l2": {5.0: 50.0}, "fog": {1.0: 10.0}}
    reference = {"linf": {1.0: 90.0, 2.0: 70.0}, "l2": {5.0: 40.0, 6.0: 20.0}}
    assert uar(accuracy, reference) == {"linf": pytest.approx(100 * 140 / 160)}


def test_the_report_holds_uar_where_all_sizes_were_measured() -> None:
    class Right(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return F.one_hot(torch.zeros(len(pixels), dtype=torch.long), 3).float() + 0 * pixels.sum((1, 2, 3))[:, None]

    data = ImageData.from_arrays(np.zeros((2, 16, 16, 3), np.uint8), [0, 0], ("a", "b", "c"))
    report = unforeseen_accuracy(Right(), data, {"jpeg_l1": list(CIFAR10_ATA["jpeg_l1"]), "l2": [40]}, steps=1)
    assert report.uar == {"jpeg_l1": pytest.approx(100 * 600 / (91.4 + 88.1 + 80.2 + 68.9 + 56.3 + 37.7))}
    assert report.metrics == {"accuracy": 100.0, "uar@jpeg_l1": report.uar["jpeg_l1"], "accuracy@l2-40": 100.0}
    assert "1 steps" in report.notes[0]
    assert "16 x 16" in report.notes[1]
    assert json.loads(json.dumps(report.to_dict()))["accuracy"]["l2"] == {"40": 100.0}


def test_the_calibrated_sizes_grow_and_their_accuracies_fall() -> None:
    for sizes in CIFAR10_ATA.values():
        assert len(sizes) == 6
        assert list(sizes) == sorted(sizes)
        assert list(sizes.values()) == sorted(sizes.values(), reverse=True)


def test_what_images_of_a_size_cannot_have_is_left_out_and_said(trained: nn.Module) -> None:
    data = ImageData.from_arrays(np.zeros((2, 20, 20, 3), np.uint8), [0, 1])
    sizes, notes = planned(None, data)
    assert set(sizes) == {"linf", "l2", "l1", "elastic"}
    assert sizes["l2"] == list(CIFAR10_ATA["l2"])
    assert [note.partition(" ")[0] for note in notes] == ["jpeg_linf", "jpeg_l1"]
    small = ImageData.from_arrays(np.zeros((2, 8, 8, 3), np.uint8), [0, 1])
    assert set(planned(["all"], small)[0]) == {"linf", "l2", "l1", "fog", "snow", "gabor"}
    whole, left_out = planned(["all"], stripes(2))
    assert (set(whole), left_out) == (set(UNFORESEEN), [])
    assert planned(["fog"], small) == ({"fog": sorted(IMAGENET_SIZES["fog"])}, [])
    report = unforeseen_accuracy(trained, data, reference={"linf": {1: 90.0}, "jpeg_l1": {2: 91.0}}, steps=200)
    assert set(report.accuracy) == {"linf"}
    assert report.notes == ["jpeg_l1 is left out: JPEG works on blocks of 16 pixels, and the images are 20 x 20"]
    for names, says in ((["jpeg_linf"], "20 x 20"), (["rain"], "rain"), (["all", "fog"], "all")):
        with pytest.raises(UserError, match=says):
            planned(names, data)
    told: list[int] = []
    with pytest.raises(UserError, match="jpeg_linf cannot be measured"):
        unforeseen_accuracy(trained, data, {"linf": [1], "jpeg_linf": [1]}, steps=1, progress=told.append)
    assert told == []


def test_the_reference_s_own_steps_and_size_need_no_note() -> None:
    model = LinearImages(classes=3)
    model.norm, model.map = nn.BatchNorm2d(3, affine=False), nn.Linear(3 * 32 * 32, 3)
    random = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    data = ImageData.from_arrays(random, [0, 1], ("a", "b", "c"))
    assert unforeseen_accuracy(model, data, {"linf": list(CIFAR10_ATA["linf"])}).notes == []
    (note,) = unforeseen_accuracy(model, data, {"linf": list(CIFAR10_ATA["linf"])}, steps=2).notes
    assert "2 steps" in note
    assert unforeseen_accuracy(model, data, {"linf": [1]}, steps=2).notes == []  # no UAR to be doubted


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epsilons": {"rain": [1]}}, "rain"),
        ({"epsilons": {"fog": []}}, "positive"),
        ({"epsilons": {"fog": [-1]}}, "positive"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_an_impossible_setting_is_refused(wrong: dict[str, Any], says: str, trained: nn.Module) -> None:
    with pytest.raises(UserError, match=says):
        unforeseen_accuracy(trained, stripes(3), **wrong)
