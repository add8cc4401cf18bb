"""What a run on images starts from: its classifier, its batch norms, and what is said of its rows and its teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.images import tiny
from torch import nn

from contraverse.data.images import ImageSplits
from contraverse.errors import UserError
from contraverse.models import ImageModel
from contraverse.models.dual_bn import DualBatchNorm
from contraverse.pipeline import run
from contraverse.pipeline.dry_run import dry_run
from contraverse.pipeline.images import ImageSteps
from contraverse.recipes import ImageRunConfig, configure, split_stages

DIGITS = tuple("0123456789")
TINY = {
    "model.name": "resnet8", "data.train_rows": 200, "data.test_rows": 20, "train.num_train_epochs": 1,
    "train.use_cpu": True, "train.report_to": "none", "train.disable_tqdm": True, "method.steps": 1,
    "evaluation.epsilons": [], "train.metric_for_best_model": "accuracy",
}  # fmt: skip


def digits(recipe: str, **settings: Any) -> ImageRunConfig:
    config = configure(recipe, task="digits", settings=settings)
    assert isinstance(config, ImageRunConfig)
    return config


def rows(config: ImageRunConfig) -> ImageSplits:
    return ImageSteps(config).load_and_prepare(test=True)


def begun(config: ImageRunConfig) -> tuple[ImageModel, list[str]]:
    return ImageSteps(config).init_model(rows(config))


def is_zero(model: ImageModel) -> bool:
    assert model.classifier is not None
    return not model.classifier.weight.any() and not model.classifier.bias.any()


@pytest.mark.parametrize("recipe", ["trades", "pgd-at", "ce", "probe"])
def test_fine_tuning_starts_with_a_classifier_of_zeros(recipe: str, tmp_path: Path) -> None:
    """ACL 3.1.1; from random weights the classifier is drawn, since nothing is pre-trained there."""
    encoder = str(tiny(None, dual=True).save(tmp_path / "encoder"))
    assert is_zero(begun(digits(recipe, **{"model.name": encoder}))[0])
    assert not is_zero(begun(digits(recipe, **{"model.name": "resnet8"}))[0])
    own = {"model.name": encoder, "model.classifier_init": "default"}
    assert not is_zero(begun(digits(recipe, **own))[0])
    assert is_zero(begun(digits(recipe, **{"model.name": "resnet8", "model.classifier_init": "zero"}))[0])


def test_a_classifier_that_fits_is_kept_and_one_of_other_classes_begins_at_zero(tmp_path: Path) -> None:
    fitting = tiny(DIGITS)
    model, notes = begun(digits("trades", **{"model.name": str(fitting.save(tmp_path / "fitting"))}))
    assert model.classifier is not None
    assert fitting.classifier is not None
    assert torch.equal(model.classifier.weight, fitting.classifier.weight)
    other = str(tiny().save(tmp_path / "other"))
    model, notes = begun(digits("trades", **{"model.name": other}))
    assert is_zero(model)
    assert any("tells cat, dog, ship apart: the classifier begins at zero" in note for note in notes)


def test_in_python_a_new_classifier_is_drawn_unless_told(tmp_path: Path) -> None:
    encoder = tiny(None)
    assert not is_zero(encoder.copy_for_task(DIGITS))
    assert is_zero(encoder.copy_for_task(DIGITS, classifier_init="zero"))
    folder = encoder.save(tmp_path / "encoder")
    assert is_zero(ImageModel.from_pretrained(folder, labels=DIGITS, classifier_init="zero"))
    assert is_zero(ImageModel.from_pretrained("resnet8", labels=DIGITS, classifier_init="zero"))


def group_normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8)
    )  # fmt: skip


class Timm:
    """timm with one network, of layer norms alone or with batch norm; says whether its weights were asked for."""

    def __init__(self, norm: str) -> None:
        self.norm, self.asked = norm, list[bool]()

    def create_model(self, name: str, pretrained: bool, num_classes: int) -> nn.Module:
        self.asked.append(pretrained)
        encoder: Any = group_normed()
        if self.norm == "batch":
            encoder[1] = nn.BatchNorm2d(8)
        encoder.num_features, encoder.head_hidden_size = 8, None
        encoder.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
        return encoder


def test_dual_without_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="Sequential has no batch norm that could be dual") as caught:
        ImageModel(group_normed(), 8, dual=True)
    assert "model.dual=false" in str(caught.value.hint)
    assert not ImageModel(group_normed(), 8).dual
    with pytest.raises(UserError, match="no batch norm"):
        ImageModel(group_normed(), 8).copy_for_task(dual=True)


def test_a_dry_run_refuses_it_too_without_asking_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    settings = {"model.name": "timm/any"}
    for norm in ("layer", "batch"):
        timm = Timm(norm)
        monkeypatch.setitem(sys.modules, "timm", timm)  # type: ignore[arg-type]
        (stage,) = split_stages(digits("acl-ds", **settings))
        if norm == "layer":
            with pytest.raises(UserError, match="timm/any has no batch norm that could be dual"):
                dry_run(stage)
        else:
            assert dry_run(stage).unread == ["timm/any"]
        assert timm.asked == [False]
        (stage,) = split_stages(digits("acl-ds", **settings, **{"model.dual": False}))
        dry_run(stage)
    model = ImageModel.from_pretrained("timm/any", dual=True)
    assert any(isinstance(part, DualBatchNorm) for part in model.encoder.modules())


def test_pre_training_sees_what_fine_tuning_validates_on_without_labels() -> None:
    pretrained, fine_tuned = rows(digits("acl-ds")), rows(digits("trades"))
    train, validation = fine_tuned.need("train"), fine_tuned.need("validation")
    everything = pretrained.need("train")
    assert pretrained.validation is None
    assert everything.labels is None
    assert len(everything) == len(train) + len(validation) == 1438
    seen = {image.tobytes() for image in everything.pixels.numpy()}
    assert all(image.tobytes() in seen for image in validation.pixels.numpy())
    assert any("all 1,438 training images are seen" in note for note in pretrained.notes)
    assert rows(digits("acl-ds", **{"data.validation_fraction": 0.1})).validation is not None


def test_without_validation_images_the_last_weights_are_kept(tmp_path: Path) -> None:
    """The best cannot be chosen, which is noted; to stop early is asked for, and refused."""
    config = digits("trades", **TINY, **{"data.validation_fraction": 0})
    result = run(config, tmp_path / "run")
    assert result.split == "test"
    assert "nothing to validate on: the last weights are kept, not the best" in result.notes
    config = digits("trades", **TINY, **{"data.validation_fraction": 0, "train.early_stopping_patience": 2})
    with pytest.raises(UserError, match="no validation images") as caught:
        rows(config)
    assert caught.value.where == "train.early_stopping_patience"


@pytest.mark.parametrize("settings", [{"evaluation.epsilons": []}, {"evaluation.robust_validation": False}])
def test_accuracy_under_an_attack_that_is_not_run_chooses_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no validation image is attacked") as caught:
        rows(digits("trades", **settings))
    assert caught.value.where == "train.metric_for_best_model"
    rows(digits("trades", **settings, **{"train.metric_for_best_model": "accuracy"}))


def test_the_teachers_accuracy_is_that_over_all_training_images(tmp_path: Path) -> None:
    """ACL, Table 2: 86.73 % "computed over the entire training set"; the labelled ones count."""
    teacher = tiny(DIGITS)
    settings = {**TINY, "data.labels": "10%", "data.pseudo_labels": str(teacher.save(tmp_path / "teacher"))}
    config = digits("uat", **settings)
    run(config, tmp_path / "run")
    training = json.loads((tmp_path / "run" / "evaluation.json").read_text())["training"]
    splits = rows(config)
    labels, truth = splits.need("train").labels, splits.hidden
    assert labels is not None
    assert truth is not None
    with torch.no_grad():
        told = teacher({"pixel_values": splits.need("train").pixels / 255}, bn_branch="clean").logits.argmax(1)
    right = (told == truth).float() * 100
    assert training["teacher_accuracy"] == pytest.approx(right.mean().item(), abs=0.01)
    assert training["teacher_accuracy_unlabelled"] == pytest.approx(right[labels < 0].mean().item(), abs=0.01)


def test_online_targets_ask_no_teacher(tmp_path: Path) -> None:
    config = digits("uat", **TINY, **{"method.target": "online", "data.labels": "10%"})
    result = run(config, tmp_path / "run")
    assert any("the others are trained on without" in note for note in result.notes)
    with pytest.raises(UserError, match="no teacher is asked"):
        rows(digits("uat", **TINY, **{"method.target": "online", "data.pseudo_labels": "runs/any"}))


def test_a_file_of_weights_may_name_its_backbone(tmp_path: Path) -> None:
    """Others' weights may fit several backbones by their names; a run had no way to say which."""
    file = tiny(DIGITS).export_weights(tmp_path / "weights.safetensors")
    model, _ = begun(digits("trades", **{"model.name": str(file), "model.arch": "resnet8"}))
    assert model.labels == list(DIGITS)
    with pytest.raises(UserError, match="of resnet20"):
        begun(digits("trades", **{"model.name": str(file), "model.arch": "resnet20"}))
    with pytest.raises(UserError, match="names the backbone of a file of weights") as caught:
        begun(digits("trades", **{"model.name": "resnet8", "model.arch": "resnet8"}))
    assert caught.value.where == "model.arch"


def test_noise_on_texts_is_refused_for_images() -> None:
    with pytest.raises(UserError, match="noise is for texts") as caught:
        rows(digits("ce", **{"evaluation.noise": ["all"]}))
    assert caught.value.where == "evaluation.noise"
