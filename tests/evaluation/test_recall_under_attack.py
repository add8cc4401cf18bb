"""A detector's recall at its threshold under attack, of texts and of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.images import image_batch, tiny
from reference.tiny import rows

from contraverse.data import ImageData, TextData
from contraverse.evaluation import predict, recall_under_attack, robust_accuracy
from contraverse.models import ImageModel, TextModel
from contraverse.models.detector import Detector, log_odds
from contraverse.pipeline.detector import fit_detector
from contraverse.recipes import EvaluationConfig

RADII = [0.0, 0.05, 0.5]
ATTACK: dict[str, Any] = {"attack": "pgd", "steps": 3, "norm": "l2"}


@pytest.fixture
def binary(tiny_model: Callable[..., TextModel]) -> tuple[TextModel, TextData]:
    data = rows()
    labels = [int(label == 1) for label in data.labels or ()]
    return tiny_model(labels=("no", "yes"), dropout=0.0), TextData.from_rows(data.texts, labels, ("no", "yes"))


def test_at_even_odds_it_is_the_accuracy_under_attack_of_the_class(binary: tuple[TextModel, TextData]) -> None:
    """Of two classes, log-odds of 0 are where the most probable class changes."""
    model, data = binary
    recalls = recall_under_attack(model, data, Detector(positive="yes", log_odds=0.0), RADII, **ATTACK)
    report, hits = robust_accuracy(model, data, RADII, **ATTACK), np.asarray(data.labels) == 1
    assert recalls == {e: (int(at.correct[hits].sum()), int(hits.sum())) for e, at in report.at.items()}


def test_a_row_is_missed_where_its_log_odds_fall_below_the_threshold(binary: tuple[TextModel, TextData]) -> None:
    model, data = binary
    hits = np.asarray(data.labels) == 1
    scores = np.sort(log_odds(predict(model, data), 1)[hits])
    detected: list[dict[float, int]] = []
    for threshold in (-1e6, scores[0] - 0.01, scores[len(scores) // 2], 1e6):
        recalls = recall_under_attack(model, data, Detector(positive="yes", log_odds=threshold), RADII, **ATTACK)
        assert recalls[0.0][0] == (scores >= threshold).sum()
        counts = [recalls[e][0] for e in RADII]
        assert counts == sorted(counts, reverse=True)  # never more at a larger radius
        detected.append({e: recalls[e][0] for e in RADII})
    assert set(detected[0].values()) == {len(scores)}
    assert detected[1][0.5] < len(scores)  # a hair above the threshold, and attacked below it
    assert set(detected[-1].values()) == {0}


def test_of_three_classes_it_decides_as_the_detector_does(tiny_model: Callable[..., TextModel]) -> None:
    logits, names = torch.randn(50, 3), ["a", "b", "c"]
    detector = Detector(positive="b", log_odds=-0.7)
    assert detector.decide_tensor(logits, names).tolist() == detector.decide(logits.numpy(), names).tolist()


def test_a_model_of_images_keeps_its_threshold(tmp_path: Path) -> None:
    model = tiny()
    names = model.labels or []
    pixels = (torch.rand(60, 3, *image_batch()["pixel_values"].shape[2:]) * 255).byte()
    data = ImageData(pixels, torch.arange(60) % len(names), tuple(names))
    settings = EvaluationConfig(positive=names[0], false_positive_rate=10)
    assert f"{names[0]} is detected from" in fit_detector(model, data, settings)
    assert model.detector is not None
    loaded = ImageModel.load(model.save(tmp_path / "m"))
    assert loaded.detector == model.detector
    benign = log_odds(predict(model, data), 0)[data.labels.numpy() != 0]
    assert (benign >= model.detector.log_odds).mean() <= 0.1
    flagged = log_odds(predict(loaded, data), 0) >= model.detector.log_odds
    assert [label == names[0] for label in loaded.predict(data)] == flagged.tolist()
    recalls = recall_under_attack(loaded, data, model.detector, [0.0, 0.01], **{**ATTACK, "norm": "linf"})
    assert recalls[0.0][0] == flagged[data.labels.numpy() == 0].sum() >= recalls[0.01][0]
