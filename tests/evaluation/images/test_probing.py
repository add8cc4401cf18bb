"""Linear separability against scikit-learn's own pipeline, and what the probe leaves alone."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from reference.images import CLASSES, buffers, tiny
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images import probing
from contraverse.evaluation.images.probing import features, linear_separability


def shades(rows: int, classes: int = 3, seed: int = 0) -> ImageData:
    """Noise about a brightness that overlaps between the classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    pixels = random.normal(110 + 12 * labels[:, None, None, None], 60, (rows, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    return ImageData.from_arrays(pixels, labels, CLASSES)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("bn_branch", ["clean", "adversarial"])
def test_it_is_a_regression_on_standardised_features(bn_branch: str, classes: int) -> None:
    model, train, test = tiny(None, dual=True), shades(90, classes), shades(60, classes, seed=1)
    told: list[int] = []
    report = linear_separability(
        model, train, test, bn_branch=bn_branch, batch_size=40, penalty=0.1, progress=told.append
    )  # type: ignore[arg-type]
    plain = model.plain(bn_branch)  # type: ignore[arg-type]
    with torch.no_grad():
        x, x_test = (plain(data.pixels.float() / 255).double().numpy() for data in (train, test))
    assert train.labels is not None
    assert test.labels is not None
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)).fit(x, train.labels.numpy())
    assert report.train_accuracy == pytest.approx(100 * expected.score(x, train.labels.numpy()), abs=1.2)
    assert report.accuracy == pytest.approx(100 * expected.score(x_test, test.labels.numpy()), abs=1.7)
    with torch.no_grad():
        found = report.classifier(torch.from_numpy(x_test).float()).softmax(1)[:, :classes]
    np.testing.assert_allclose(found.numpy(), expected.predict_proba(x_test), atol=2e-3)
    assert report.accuracy > 100 / classes + 5
    assert sum(told) == 150
    assert report.metrics == {"probe": report.accuracy}
    json.dumps(report.to_dict())


def test_the_classifier_fits_the_model_it_was_read_off() -> None:
    model, train, test = tiny(None), shades(30), shades(30, seed=1)
    report = linear_separability(model, train, test)
    probed = model.copy_for_task(CLASSES)
    assert probed.classifier is not None
    probed.classifier.load_state_dict(report.classifier.state_dict())
    with torch.no_grad():
        logits = probed({"pixel_values": test.pixels.float() / 255}).logits
    assert logits is not None
    assert test.labels is not None
    assert 100 * (logits.argmax(1) == test.labels).float().mean().item() == pytest.approx(report.accuracy)


def test_modes_and_buffers_stay_and_two_routes_differ() -> None:
    model, data = tiny(None, dual=True), shades(12)
    expected = features(model.eval(), data, "clean")
    model.train()
    next(model.encoder.children()).eval()
    before, modes = buffers(model), [module.training for module in model.modules()]
    clean, adversarial = (features(model, data, bn_branch) for bn_branch in ("clean", "adversarial"))  # type: ignore[arg-type]
    assert torch.equal(clean, expected)
    assert not torch.allclose(clean, adversarial)
    assert clean.shape == (12, model.width)
    assert all(torch.equal(before[name], value) for name, value in buffers(model).items())
    assert modes == [module.training for module in model.modules()]


def test_a_class_without_images_is_never_chosen() -> None:
    report = linear_separability(tiny(None), shades(40, 2), shades(30, 3))
    with torch.no_grad():
        chosen = report.classifier(1e3 * torch.randn(200, report.classifier.in_features)).argmax(1)
    assert chosen.unique().tolist() == [0, 1]
    assert not report.classifier.weight[2].any()
    assert not any(parameter.requires_grad for parameter in report.classifier.parameters())


def test_a_feature_that_never_changes_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = linear_separability(tiny(None), shades(30), shades(30, seed=1))

    def with_a_dead_channel(*arguments: Any) -> Tensor:
        return torch.cat([features(*arguments), torch.full((30, 1), 0.1)], 1)

    monkeypatch.setattr(probing, "features", with_a_dead_channel)
    report = linear_separability(tiny(None), shades(30), shades(30, seed=1))
    assert report.accuracy == plain.accuracy
    torch.testing.assert_close(report.classifier.weight[:, :-1], plain.classifier.weight, atol=1e-3, rtol=1e-3)


def test_what_is_wrong_is_said() -> None:
    model, data = tiny(None), shades(9)
    with pytest.raises(UserError, match="needs labels"):
        linear_separability(model, ImageData(data.pixels, None, None), data)
    with pytest.raises(UserError, match="two classes"):
        linear_separability(model, shades(4, 1), data)
    with pytest.raises(UserError, match="is labelled"):
        linear_separability(model, data, ImageData(data.pixels, data.labels, ("a", "b", "c")))
    with pytest.raises(UserError, match="positive"):
        linear_separability(model, data, data, penalty=0.0)
