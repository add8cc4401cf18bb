"""Images of which some have no label: what each kind of method gets, and who tells the labels that are missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.image_files import write_folder
from reference.images import tiny

from contraverse.data import ImageSplits, load_images
from contraverse.errors import UserError
from contraverse.methods import UAT
from contraverse.models import ImageModel
from contraverse.pipeline.dry_run import dry_run
from contraverse.pipeline.images import ImageSteps
from contraverse.pipeline.run import run
from contraverse.pipeline.text import TextSteps
from contraverse.recipes import ImageRunConfig, configure, split_stages
from contraverse.training import read_metrics

LABELS = ("cat", "dog")


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Twelve labelled images, twelve others, and four to test on, 8 x 8."""
    write_folder(tmp_path / "heap" / "train", {"cat": 6, "dog": 6, "unlabelled": 12})
    write_folder(tmp_path / "heap" / "test", {"cat": 2, "dog": 2}, start=30)
    return tmp_path / "heap"


def configured(recipe: str, heap: Path, **settings: Any) -> ImageRunConfig:
    given = {"model.name": "resnet8", "data.validation_rows": 2} | settings
    config = configure(recipe, task="images", source=str(heap), settings=given)
    assert isinstance(config, ImageRunConfig)
    return config


def rows(config: ImageRunConfig) -> tuple[ImageSplits, ImageSteps]:
    steps = ImageSteps(config)
    splits = steps.load_and_prepare(test=True)
    assert len(splits.need("validation")) == 2
    return splits, steps


def start(config: ImageRunConfig) -> tuple[ImageModel, list[str]]:
    splits, steps = rows(config)
    return steps.init_model(splits)


def labels_in(splits: ImageSplits) -> list[int]:
    labels = splits.need("train").labels
    assert labels is not None
    return labels.tolist()


@pytest.mark.parametrize("recipe", ["ce", "trades", "pgd-at", "probe"])
def test_a_supervised_method_leaves_them_out_and_says_how_many(recipe: str, heap: Path) -> None:
    splits, _ = rows(configured(recipe, heap))
    assert sorted(labels_in(splits)) == [0] * 5 + [1] * 5
    assert f"trained on the 10 labelled images of 22: {recipe} leaves the other 12 out" in splits.notes
    assert splits.hidden is None


@pytest.mark.parametrize("recipe", ["simclr", "acl-ds", "dynacl"])
def test_a_method_without_labels_has_all_of_them(recipe: str, heap: Path) -> None:
    splits, _ = rows(configured(recipe, heap, **{"data.labels": "50%"}))
    train = splits.need("train")
    assert (len(train), train.labels) == (22, None)
    assert splits.hidden is not None
    assert sorted(splits.hidden.tolist()) == [-100] * 12 + [0] * 5 + [1] * 5
    assert f"{recipe} does not use the labels of images, so that data.labels: 50% changes nothing" in splits.notes


@pytest.mark.parametrize("said", [None, "all"])
def test_uat_has_them_as_unlabelled(said: str | None, heap: Path) -> None:
    splits, _ = rows(configured("uat", heap, **{"data.labels": said}))
    assert sorted(labels_in(splits)) == [-100] * 12 + [0] * 5 + [1] * 5
    assert splits.hidden is not None
    assert splits.hidden.tolist() == labels_in(splits)
    assert "10 of 22 images keep their label; the model as it starts predicts the others" in splits.notes


def test_labels_are_hidden_beside_those_that_are_missing(heap: Path) -> None:
    splits, _ = rows(configured("uat", heap, **{"data.labels": "40%"}))
    labels, train = labels_in(splits), load_images("images", heap, validation_rows=2).need("train")
    assert train.labels is not None
    assert splits.hidden is not None
    assert splits.hidden.tolist() == train.labels.tolist()
    assert [sum(label == k for label in labels) for k in (0, 1)] == [2, 2]
    assert all(label in (-100, truth) for label, truth in zip(labels, train.labels.tolist(), strict=True))
    assert "data.labels: 40% keeps 4 of 10 labels, and --labels all every one" in splits.notes


def test_uat_keeps_the_others_where_every_image_has_a_label() -> None:
    config = configure("uat", task="digits", settings={"data.labels": "10%", "model.name": "resnet8"})
    splits = ImageSteps(config).load_and_prepare(test=True)
    labels = torch.tensor(labels_in(splits))
    assert (len(labels), int((labels >= 0).sum())) == (1294, 129)
    assert splits.hidden is not None
    assert (splits.hidden >= 0).all()
    assert (splits.hidden[labels >= 0] == labels[labels >= 0]).all()


def test_a_teacher_tells_them_and_is_judged_by_the_hidden_labels_alone(heap: Path, tmp_path: Path) -> None:
    teacher = tiny(LABELS)
    taught = {"data.labels": "40%", "data.pseudo_labels": str(teacher.save(tmp_path / "teacher"))}
    for recipe in ("uat", "trades"):
        config = configured(recipe, heap, **taught)
        splits, steps = rows(config)
        before, train, method = torch.tensor(labels_in(splits)), splits.need("train"), steps.method
        steps.assign_pseudo_labels(splits)
        with torch.no_grad():
            logits = teacher({"pixel_values": train.pixels / 255}).logits
        truth, told = splits.hidden, logits.argmax(1)
        assert truth is not None
        asked = [i for i in range(22) if before[i] == -100 and truth[i] != -100]
        assert len(asked) == 6
        right = 100 * sum(bool(told[i] == truth[i]) for i in asked) / 6
        assert f"the teacher is right on {right:.1f} % of the 6 other images whose label is known" in splits.notes
        if isinstance(method, UAT):
            assert method.targets is not None
            torch.testing.assert_close(method.targets, logits, rtol=0, atol=1e-4)
            assert method.labelled is not None
            assert method.labelled.tolist() == (before != -100).tolist()
        else:
            assert labels_in(splits) == torch.where(before != -100, before, told).tolist()


def test_clusters_are_judged_by_known_labels_alone(heap: Path, tmp_path: Path) -> None:
    folder = tiny(None).save(tmp_path / "encoder")
    config = configured("trades", heap, **{"data.pseudo_labels": str(folder), "data.clusters": 2})
    splits, steps = rows(config)
    steps.assign_pseudo_labels(splits)
    found, truth = torch.tensor(labels_in(splits)), splits.hidden
    assert truth is not None
    assert len(found) == 22
    same = sum(int(a == b) for a, b in zip(found.tolist(), truth.tolist(), strict=True) if b >= 0)
    right = 100 * max(same, 10 - same) / 10
    expected = f"2 clusters in the place of labels; {right:.1f} % of those with a label lie in the one of their class"
    assert expected in splits.notes


def test_uat_without_a_teachers_run_starts_from_the_teacher(heap: Path, tmp_path: Path) -> None:
    folder = tiny(LABELS).save(tmp_path / "teacher")
    config = configured("uat", heap, **{"model.name": str(folder)})
    splits, steps = rows(config)
    model, notes = steps.init_model(splits)
    assert notes == []
    weights, before = model.state_dict(), tiny(LABELS).state_dict()
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert steps.method.needs_reference_model
    exported = ImageModel.load(folder).export_weights(tmp_path / "teacher.safetensors")
    config = configured("uat", heap, **{"model.name": str(exported)})
    assert start(config)[1] == []


@pytest.mark.parametrize("labels", [None, ("ant", "bee"), ("dog", "cat")])
def test_a_start_that_cannot_teach_is_refused(labels: Any, heap: Path, tmp_path: Path) -> None:
    folder = tiny(labels).save(tmp_path / "model")
    for name in (str(folder), "resnet8"):
        config = configured("uat", heap, **{"model.name": name})
        splits, steps = rows(config)
        with pytest.raises(UserError, match="has no classifier of cat, dog"):
            steps.init_model(splits)
    taught = {"data.pseudo_labels": str(tiny(LABELS).save(tmp_path / "teacher"))}
    config = configured("uat", heap, **taught)
    start(config)


def test_uat_on_texts_needs_a_teacher_too(tiny_folder: Callable[..., Path], tiny_model: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"good work {i},{('no', 'yes')[i % 2]}\n" for i in range(20)))
    folder = tiny_model(labels=("no", "yes")).save(tmp_path / "teacher")
    for name, fits in ((str(tiny_folder()), False), (str(folder), True)):
        given = {"model.name": name, "method.name": "uat"}
        config = configure("ce", task="text", source=str(file), settings=given)
        steps = TextSteps(config)
        splits = steps.load_and_prepare(test=True)
        if fits:
            steps.init_model(splits)
        else:
            with pytest.raises(UserError, match="no classifier of no, yes"):
                steps.init_model(splits)


def test_a_random_encoder_that_teaches_itself_is_noted(heap: Path, tmp_path: Path) -> None:
    config = configured("deacl", heap)
    assert "resnet8 is drawn at random, and is its own teacher" in start(config)[1][0]
    config = configured("deacl", heap, **{"model.name": str(tiny(None).save(tmp_path / "encoder"))})
    assert start(config)[1] == []
    assert start(configured("simclr", heap))[1] == []


def test_the_model_knows_the_size_of_its_images(heap: Path, tmp_path: Path) -> None:
    for size, config in ((8, configured("ce", heap)), (12, configured("ce", heap, **{"data.size": 12}))):
        model, _ = start(config)
        assert ImageModel.load(model.save(tmp_path / "model")).image_size == (size, size)
        assert model.copy_for_task().image_size == (size, size)


def test_patches_that_do_not_fit_are_refused_with_the_rows(heap: Path) -> None:
    rows(configured("selfie", heap))
    with pytest.raises(UserError, match="8 x 8 pixels cannot be cut into 3 x 3"):
        rows(configured("selfie", heap, **{"method.grid": 3}))


def test_a_plan_of_stages_looks_for_no_model_that_is_to_come(heap: Path) -> None:
    config = configured("acl-semi", heap, **{"data.labels": "all"})
    plans = [dry_run(stage) for stage in split_stages(config)]
    sizes = [len(found.splits.need("train")) for found in plans if found.splits is not None]
    assert sizes == [22, 10, 22]
    assert not any(found.unread for found in plans)


def test_a_plan_looks_for_the_teachers_run(heap: Path, tmp_path: Path) -> None:
    (stage,) = split_stages(configured("uat", heap, **{"data.pseudo_labels": str(tmp_path / "none")}))
    with pytest.raises(UserError, match="no run and no model is here"):
        dry_run(stage)


def test_views_of_kind_none_are_the_image_itself(heap: Path) -> None:
    batch = {"pixel_values": torch.rand(3, 3, 8, 8)}
    for recipe, two in (("acl-ds", True), ("trades", False)):
        config = configured(recipe, heap, **{"data.views.kind": "none"})
        views = ImageSteps(config).views(rows(config)[0])
        found = views(batch)
        assert torch.equal(found["pixel_values"], batch["pixel_values"])
        assert ("positive" in found) is two
        assert not two or torch.equal(found["positive"]["pixel_values"], batch["pixel_values"])


def test_a_training_shorter_than_its_log_has_one(heap: Path, tmp_path: Path) -> None:
    few = {"train.num_train_epochs": 2, "train.per_device_train_batch_size": 4, "train.schedule.warmup_epochs": 0}
    quiet = {"train.report_to": "none", "train.save_strategy": "no"}
    config = configured("simclr", heap, **few, **quiet)
    assert config.train.arguments["logging_steps"] == 50
    run(config, tmp_path / "run")
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row] == [5, 10]
