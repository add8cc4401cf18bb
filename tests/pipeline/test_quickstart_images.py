"""The quick start on images, in as few steps as there can be."""

import sys
from pathlib import Path

import numpy as np
import pytest

from contraverse.data import load_images
from contraverse.evaluation import AttackSettings, robust_accuracy
from contraverse.models import ImageModel
from contraverse.pipeline import quickstart_images
from contraverse.pipeline.pictures import attacked_pictures
from contraverse.recipes import configure


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["contraverse.pipeline.quickstart_images"]
    few = {"data.train_rows": 64, "data.test_rows": 40}
    shorter = {"train.num_train_epochs": 1, "train.schedule.warmup_epochs": 0, "train.per_device_train_batch_size": 32}
    monkeypatch.setattr(module, "PRETRAINING", module.PRETRAINING | shorter | few)
    tuned = {"train.num_train_epochs": 1, "method.steps": 1, "evaluation.steps": 1, "evaluation.diagnostics": False}
    monkeypatch.setattr(module, "FINE_TUNING", module.FINE_TUNING | tuned | few)
    monkeypatch.setattr(module, "LABELS", "50%")


@pytest.mark.usefixtures("small")
def test_three_starts_are_fine_tuned_attacked_and_compared(tmp_path: Path) -> None:
    done = quickstart_images(tmp_path / "quick")
    assert list(done.runs) == ["random start", "SimCLR", "ACL-DS"]
    page = done.report.read_text(encoding="utf-8")
    for name, result in done.runs.items():
        assert name in page
        assert {"accuracy", "accuracy@pgd-0.0627451"} <= set(result.metrics)
    assert page.count("data:image/png;base64,") == 6 * (1 + 3 * 2)
    assert "ACL-DS trained on all images" in page
    # Each is an ordinary run, and the pre-trained ones are dual where their recipe says so.
    assert configure(file=tmp_path / "quick" / "acl-ds-trades" / "config.yaml").method.name == "trades"
    assert ImageModel.load(tmp_path / "quick" / "acl-ds" / "model").dual
    assert not ImageModel.load(tmp_path / "quick" / "acl-ds-trades" / "model").dual


def test_pictures_show_what_the_attack_does() -> None:
    """The classes under a picture are those of the model on that very image."""
    data = load_images("digits").need("test")
    model = ImageModel.from_pretrained("resnet8", labels=data.label_names).eval()
    settings = AttackSettings(attack="pgd", norm="linf", steps=3)
    pictures = attacked_pictures({"one": model}, data, 0.3, settings, count=4)
    assert [picture.label for picture in pictures] == ["0", "1", "2", "3"]
    assert all(len(picture.views) == 1 for picture in pictures)
    assert data.labels is not None
    for picture in pictures:
        row = int(np.flatnonzero(data.labels.numpy() == int(picture.label))[0])
        report = robust_accuracy(model, data.select([row]), [0.3], norm="linf", steps=3)
        (view,) = picture.views
        assert (view.clean == picture.label) == bool(report.clean_correct[0])
        assert view.image != picture.image
        if view.clean == picture.label:
            assert (view.attacked == picture.label) >= bool(report.at[0.3].correct[0])
