"""Every measurement of a dual model goes through one set of batch norms: against networks that have that set alone."""

from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from reference.images import tiny

from contraverse.data import ImageData, get_image_task
from contraverse.evaluation import AttackSettings, TaskEvaluator, evaluate, representation_shift, robust_accuracy
from contraverse.evaluation.images import auto_attack, corruption_accuracy, unforeseen_accuracy
from contraverse.evaluation.predict import predict
from contraverse.models import ImageModel
from contraverse.pipeline import measure_probe, measure_task
from contraverse.pipeline.measure import attacked_evaluator
from contraverse.pipeline.pictures import attacked_pictures
from contraverse.recipes import ImageEvaluationConfig
from contraverse.types import BNBranch

LABELS = ("a", "b", "c", "d")
EPSILONS = (1 / 255, 4 / 255)
each = pytest.mark.parametrize("bn_branch", get_args(BNBranch))


@pytest.fixture(scope="module")
def model() -> ImageModel:
    return tiny(LABELS, dual=True)


@pytest.fixture(scope="module")
def images(model: ImageModel) -> ImageData:
    """Labelled as the clean set says, four in six; the adversarial one is right on fewer."""
    pixels = torch.randint(0, 256, (30, 3, 16, 16), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    with torch.no_grad():
        clean, adversarial = (model.plain(bn_branch)(pixels / 255).argmax(1) for bn_branch in ("clean", "adversarial"))
    labels = torch.where(torch.arange(30) % 3 > 0, clean, adversarial)
    data = ImageData.from_arrays(pixels.numpy(), labels.numpy(), LABELS)
    assert len({int((set_ == labels).sum()) for set_ in (clean, adversarial)}) == 2
    return data


def right(model: ImageModel, images: ImageData, bn_branch: BNBranch) -> np.ndarray:
    """(N,) bool, by an ordinary network."""
    with torch.no_grad():
        return (model.plain(bn_branch)(images.pixels / 255).argmax(1) == images.labels).numpy()


def single(model: ImageModel, bn_branch: BNBranch) -> ImageModel:
    """The same model with one set of batch norms."""
    return model.copy_for_task(LABELS, dual=False, bn_branch=bn_branch).eval()


@each
def test_clean_figures(bn_branch: BNBranch, model: ImageModel, images: ImageData) -> None:
    with torch.no_grad():
        expected = model.plain(bn_branch)(images.pixels / 255).numpy()
    np.testing.assert_allclose(predict(model, images, 7, bn_branch=bn_branch), expected, atol=1e-5)
    accuracy = {"accuracy": 100 * float(right(model, images, bn_branch).mean())}
    assert TaskEvaluator(images, ("accuracy",), bn_branch=bn_branch)(model) == pytest.approx(accuracy)
    assert evaluate(model, images, bn_branch=bn_branch) == pytest.approx(accuracy)


@each
def test_figures_under_attack(bn_branch: BNBranch, model: ImageModel, images: ImageData) -> None:
    settings: dict[str, Any] = {"norm": "linf", "steps": 4, "restarts": 2, "diagnostics": 8, "batch_size": 16}
    found = robust_accuracy(model, images, EPSILONS, bn_branch=bn_branch, **settings)
    alone = robust_accuracy(single(model, bn_branch), images, EPSILONS, **settings)
    np.testing.assert_array_equal(found.clean_correct, right(model, images, bn_branch))
    for epsilon in EPSILONS:
        np.testing.assert_array_equal(found.at[epsilon].correct, alone.at[epsilon].correct)
    assert found.clean_accuracy > found.at[EPSILONS[0]].accuracy > found.at[EPSILONS[1]].accuracy
    assert found.diagnosis == alone.diagnosis
    assert found.settings.bn_branch == bn_branch
    keys = evaluate(model, images, bn_branch=bn_branch, epsilons=EPSILONS, norm="linf", steps=4, restarts=2)
    assert keys == pytest.approx(found.metrics)


@each
@pytest.mark.parametrize("labelled", [True, False])
def test_the_shift(bn_branch: BNBranch, labelled: bool, model: ImageModel, images: ImageData) -> None:
    data = images if labelled else ImageData(images.pixels, None, None)
    settings: dict[str, Any] = {"norm": "linf", "steps": 2}
    found = representation_shift(model, data, EPSILONS, bn_branch=bn_branch, **settings)
    alone = representation_shift(single(model, bn_branch), data, EPSILONS, **settings)
    for epsilon in EPSILONS:
        np.testing.assert_allclose(found.at[epsilon].euclidean, alone.at[epsilon].euclidean, rtol=1e-4)
        assert found.at[epsilon].euclidean.min() > 0


@each
def test_pictures(bn_branch: BNBranch, model: ImageModel, images: ImageData) -> None:
    settings = partial(AttackSettings, attack="pgd", norm="linf", steps=3)
    found = attacked_pictures({"one": model}, images, 0.05, settings(bn_branch=bn_branch))
    assert found == attacked_pictures({"one": single(model, bn_branch)}, images, 0.05, settings())
    other: BNBranch = "clean" if bn_branch == "adversarial" else "adversarial"
    assert found != attacked_pictures({"one": model}, images, 0.05, settings(bn_branch=other))


@each
def test_what_a_run_measures(bn_branch: BNBranch, model: ImageModel, images: ImageData) -> None:
    settings = ImageEvaluationConfig(epsilons=[EPSILONS[0]], steps=3, shift=True, diagnostics=6)
    task, alone = get_image_task("images"), single(model, bn_branch)
    found = measure_task(model, images, task, settings, seed=0, bn_branch=bn_branch)
    expected = measure_task(alone, images, task, settings, seed=0)
    assert found["metrics"] == expected["metrics"]
    assert found["shift"]["at"][0] == pytest.approx(expected["shift"]["at"][0], rel=1e-4)
    assert (found["bn_branch"], "bn_branch" in expected) == (bn_branch, False)
    assert ("notes" in found) == (bn_branch == "clean")
    evaluators = [attacked_evaluator(images, settings, bn_branch)(model), attacked_evaluator(images, settings)(alone)]
    assert evaluators[0] == evaluators[1]


def test_the_adversarial_set_is_what_everything_takes(model: ImageModel, images: ImageData, tmp_path: Path) -> None:
    """PGD's column, AutoAttack's and all others have the same clean accuracy, that of the exported network."""
    accuracy = 100 * float(right(model, images, "adversarial").mean())
    assert accuracy != 100 * float(right(model, images, "clean").mean())
    assert TaskEvaluator(images, ("accuracy",))(model)["accuracy"] == pytest.approx(accuracy)
    assert robust_accuracy(model, images, EPSILONS, norm="linf", steps=1).clean_accuracy == pytest.approx(accuracy)
    tiny_attack: dict[str, Any] = {"epsilons": {"linf": [1e-4]}, "steps": 1}
    assert unforeseen_accuracy(model, images, **tiny_attack).clean_accuracy == pytest.approx(accuracy)
    same = images.pixels.permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "fog.npy", np.concatenate([same] * 5))
    np.save(tmp_path / "labels.npy", np.concatenate([np.asarray(images.labels)] * 5))
    files = corruption_accuracy(model, tmp_path, corruptions=["fog"], severities=[1])
    assert files.by_corruption["fog"] == pytest.approx(accuracy)
    pytest.importorskip("pyautoattack")
    found = auto_attack(model, images, 1e-6, attacks=("apgd-ce",))
    assert found.clean_accuracy == pytest.approx(accuracy)


def test_a_probe_is_of_the_routes_that_are_asked_for(model: ImageModel, images: ImageData) -> None:
    both = measure_probe(model, images, images, 16)["metrics"]
    assert set(both) == {"probe", "probe_adversarial"}
    assert measure_probe(model, images, images, 16, ("adversarial",))["metrics"] == {
        "probe_adversarial": both["probe_adversarial"]
    }
    assert set(measure_probe(single(model, "clean"), images, images, 16, ("adversarial",))["metrics"]) == {"probe"}
