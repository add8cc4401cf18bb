"""Prediction and attack on images, against what a linear classifier gives in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from contraverse.attacks import perturbation_inputs
from contraverse.data import ImageData
from contraverse.evaluation import AttackSettings, evaluate, representation_shift, robust_accuracy
from contraverse.evaluation.attack_loop import attack_batch, ball_of, frozen, seeded
from contraverse.evaluation.predict import load_batch, predict
from contraverse.models import ImageModel, evaluating

EPSILONS = [2 / 255, 8 / 255, 32 / 255]


@pytest.fixture(scope="module")
def linear() -> ImageModel:
    torch.manual_seed(0)
    model = ImageModel(nn.Flatten(), 3 * 4 * 4, labels=["a", "b"], mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return model.eval()


@pytest.fixture(scope="module")
def images(linear: ImageModel) -> ImageData:
    """Sixty random images, many pixels black or white, with the labels that the classifier gives nine in ten."""
    random = np.random.default_rng(1)
    pixels = np.clip(random.normal(128, 120, (60, 3, 4, 4)), 0, 255).astype(np.uint8)
    given = predict(linear, ImageData.from_arrays(pixels)).argmax(1)
    return ImageData.from_arrays(pixels, np.where(random.random(60) < 0.9, given, 1 - given), ["a", "b"])


def margins(linear: ImageModel, images: ImageData, epsilon: float) -> np.ndarray:
    """(N,) float64: the least logit margin within Linf ``epsilon`` and [0, 1], pixel by pixel."""
    assert linear.classifier is not None
    assert images.labels is not None
    weight, bias = linear.classifier.weight.double().detach().numpy(), linear.classifier.bias.double().detach().numpy()
    mean, std = (np.repeat(np.array(v), 16) for v in (linear.mean, linear.std))
    found = []
    for image, label in zip(images.pixels.numpy(), images.labels.tolist(), strict=True):
        x = image.reshape(-1).astype(np.float64) / 255
        w = (weight[label] - weight[1 - label]) / std
        worst = np.where(w > 0, np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1))
        found.append(w @ (worst - mean) + bias[label] - bias[1 - label])
    return np.array(found)


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_accuracy_under_attack_is_exact_on_a_linear_model(linear: ImageModel, images: ImageData, attack: str) -> None:
    report = robust_accuracy(linear, images, [0.0, *EPSILONS], attack=attack, norm="linf", steps=10, batch_size=17)  # type: ignore[arg-type]
    assert np.array_equal(report.clean_correct, margins(linear, images, 0.0) > 0)
    assert report.at[0.0].accuracy == report.clean_accuracy
    for epsilon in EPSILONS:
        assert np.array_equal(report.at[epsilon].correct, margins(linear, images, epsilon) > 0), epsilon
    assert 100 > report.clean_accuracy > report.at[EPSILONS[0]].accuracy > report.at[EPSILONS[2]].accuracy


def test_random_starts_do_not_depend_on_the_batch(linear: ImageModel, images: ImageData) -> None:
    settings = {"norm": "linf", "steps": 1, "step_size": 1e-6, "random_start": True, "restarts": 2}
    reports = [robust_accuracy(linear, images, [16 / 255], batch_size=size, **settings) for size in (7, 60)]
    assert np.array_equal(reports[0].at[16 / 255].correct, reports[1].at[16 / 255].correct)
    assert reports[0].at[16 / 255].relative_size == pytest.approx(reports[1].at[16 / 255].relative_size)


def test_a_linear_model_passes_the_diagnosis_and_nothing_is_left_behind(linear: ImageModel, images: ImageData) -> None:
    model = ImageModel.from_pretrained("resnet8", labels=["a", "b"], dual=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    for one in (linear, model):
        report = robust_accuracy(one, images, EPSILONS, norm="linf", diagnostics=16)
        assert report.diagnosis is not None
        assert report.diagnosis.large == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_metrics_and_shift(linear: ImageModel, images: ImageData) -> None:
    found = evaluate(linear, images, metrics=("accuracy", "macro_f1"), epsilons=[8 / 255], norm="linf")
    assert set(found) == {"accuracy", "macro_f1", f"accuracy@pgd-{8 / 255:g}"}
    shift = representation_shift(linear, images, [2 / 255, 8 / 255], norm="linf").to_dict()["at"]
    # Every pixel moves by at most epsilon / std in the features, which here are the normalised pixels.
    assert 0 < shift[0]["euclidean"] < shift[1]["euclidean"] <= 8 / 255 / 0.2 * np.sqrt(48)


@pytest.mark.parametrize(("attack", "loss"), [("pgd", "ce"), ("apgd", "margin")])
def test_a_broken_image_is_run_no_more_and_the_rest_goes_its_own_way(
    linear: ImageModel, images: ImageData, attack: str, loss: str
) -> None:
    """The same images break with and without dropping, those that hold have the same perturbation, and less is run."""
    settings = AttackSettings(attack=attack, norm="linf", steps=6)
    rows = np.arange(len(images))
    batch = load_batch(linear, images, rows)
    inputs, passes = perturbation_inputs(linear, batch), []
    hook = linear.encoder.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))
    found = {}
    for drop in (False, True):
        passes.clear()
        with evaluating(linear), frozen(linear), seeded(0):
            ball = ball_of(inputs, rows, 8 / 255, settings, attempt=0)
            found[drop] = attack_batch(linear, batch, inputs, ball, settings, loss, True, drop=drop), sum(passes)
    hook.remove()
    (whole, all_run), (dropped, few_run) = found[False], found[True]
    assert torch.equal(whole.broken, dropped.broken)
    assert 0 < int(whole.broken.sum()) < len(rows)
    assert torch.equal(whole.delta[~whole.broken], dropped.delta[~whole.broken])
    assert whole.gradients == 6 * len(rows)
    assert dropped.gradients < whole.gradients
    assert few_run < all_run
    assert dropped.gradients >= 6 * int((~whole.broken).sum())
