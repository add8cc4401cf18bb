"""The same trainer on images: batches, views, both kinds of resume, and what it refuses."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import rows
from torch import Tensor

from contraverse.data import ImageData
from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.errors import UserError
from contraverse.evaluation import TaskEvaluator, evaluate
from contraverse.methods import SCAL, CrossEntropy, DynACL
from contraverse.models import ImageModel, TextModel
from contraverse.training import Trainer
from contraverse.training.inputs import _epoch_rows
from contraverse.types import Batch

Build = Callable[..., Trainer]
LABELS = ("dark", "light")


@pytest.fixture
def images() -> ImageData:
    """Twelve images of two classes that their brightness tells apart."""
    random = np.random.default_rng(0)
    labels = np.arange(12) % 2
    pixels = random.integers(0, 100, (12, 3, 8, 8)) + 120 * labels[:, None, None, None]
    return ImageData.from_arrays(pixels.astype(np.uint8), labels, LABELS)


def model(**settings: Any) -> ImageModel:
    torch.manual_seed(0)
    return ImageModel.from_pretrained("resnet8", **{"labels": LABELS, **settings})


def test_it_learns_and_is_measured(build: Build, images: ImageData) -> None:
    made = model()
    trainer = build(
        SCAL(epsilon=0.5),
        model=made,
        data=images,
        views=OneView(CropFlip(padding=1)),
        evaluators={"train": TaskEvaluator(images, ("accuracy",))},
        num_train_epochs=12,
        learning_rate=1e-2,
        dataloader_drop_last=True,
    )
    assert trainer.evaluate()["eval_accuracy"] <= 60
    trainer.train()
    found = evaluate(made, images, epsilons=[0.01, 100.0], norm="l2")
    assert found["accuracy"] == 100
    assert found["accuracy@pgd-0.01"] == 100
    assert found["accuracy@pgd-100"] == 0


@pytest.mark.parametrize("views", [None, OneView(CropFlip(padding=1)), TwoViews(SimCLRAugment(strength=0.5))])
def test_a_method_gets_the_views(build: Build, images: ImageData, views: Any) -> None:
    seen: list[Batch] = []

    class Kept(CrossEntropy):
        image_views = 2 if isinstance(views, TwoViews) else 1

        def losses(self, model: Any, batch: Batch) -> Any:
            seen.append(batch)
            return super().losses(model, batch)

    build(Kept(), model=model(), data=images, views=views, num_train_epochs=1).train()
    assert torch.equal(torch.cat([b["index"] for b in seen]).sort().values, torch.arange(12))
    for batch in seen:
        plain = images.pixels[batch["index"]].float() / 255
        assert torch.equal(batch["pixel_values"], plain) == (views is None)
        assert ("positive" in batch) == isinstance(views, TwoViews)
        if "positive" in batch:
            assert not torch.equal(batch["positive"]["pixel_values"], batch["pixel_values"])


def test_two_views_are_the_default_of_a_method_that_wants_them(build: Build, images: ImageData) -> None:
    class Two(CrossEntropy):
        image_views = 2

    views = build(Two(), model=model(), data=images).views
    assert isinstance(views, TwoViews)
    assert build(CrossEntropy(), "one", model=model(), data=images).views is None


def test_a_method_sets_the_strength_of_the_next_views(build: Build, images: ImageData) -> None:
    class Fading(CrossEntropy):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        @property
        def augmentation_strength(self) -> float:  # type: ignore[override]
            return 1.0 if not self.seen else 0.0

        def losses(self, model: Any, batch: Batch) -> Any:
            self.seen.append((batch["pixel_values"] - images.pixels[batch["index"]] / 255).abs().max())
            return super().losses(model, batch)

    method = Fading()
    build(method, model=model(), data=images, views=OneView(SimCLRAugment(flip=0)), num_train_epochs=1).train()
    assert method.seen[0] > 0.01
    assert max(method.seen[1:]) < 1e-5
    with pytest.raises(UserError, match="strength"):
        build(Fading(), model=model(), data=images, views=OneView(CropFlip()))


def test_the_method_is_told_of_the_images_and_the_epochs(build: Build, images: ImageData) -> None:
    told = []

    class Told(CrossEntropy):
        def prepare(self, training_info: Any) -> None:
            told.append(training_info)

    build(Told(), model=model(), data=images, num_train_epochs=5)
    build(Told(), model=model(), data=images, max_steps=6)
    assert [training_info.num_examples for training_info in told] == [12, 12]
    assert [training_info.epochs for training_info in told] == [5, 2]
    assert torch.equal(told[0].labels, torch.arange(12) % 2)
    assert told[0].vocab_size is None


def test_dynacl_weakens_its_views_at_the_epochs_also_where_the_last_batch_is_left_out(
    build: Build, images: ImageData
) -> None:
    """12 images in batches of 5: two steps an epoch, of which the method sees 10 images."""
    strengths = []

    class Seen(DynACL):
        def losses(self, model: Any, batch: Batch) -> Any:
            strengths.append(self.augmentation_strength)
            return super().losses(model, batch)

    build(
        Seen(period=1, steps=1),
        model=ImageModel.from_pretrained("resnet8", dual=True),
        data=images,
        num_train_epochs=4,
        per_device_train_batch_size=5,
        dataloader_drop_last=True,
    ).train()
    assert strengths == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(("drop", "ranks", "expected"), [(False, 1, 12), (True, 1, 10), (False, 2, 20), (True, 2, 10)])
def test_the_rows_of_an_epoch(drop: bool, ranks: int, expected: int) -> None:
    arguments = SimpleNamespace(train_batch_size=5, world_size=ranks, dataloader_drop_last=drop)
    assert _epoch_rows(arguments, 12) == expected  # type: ignore[arg-type]


def test_only_the_classifier_learns_where_the_method_says_so(build: Build, images: ImageData) -> None:
    class Probe(CrossEntropy):
        trainable = "classifier"

    made = model()
    before = {name: value.clone() for name, value in made.named_parameters()}
    build(Probe(), model=made, data=images, num_train_epochs=1).train()
    changed = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("crash", [2, 5])
def test_a_broken_run_goes_on_bit_for_bit(build: Build, images: ImageData, crash: int) -> None:
    from transformers import TrainerCallback

    class Crash(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == crash:
                raise RuntimeError("power failure")

    def trainer(name: str, **more: Any) -> Trainer:
        settings = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2, **more}
        views = OneView(SimCLRAugment())
        return build(SCAL(), name, model=model(dual=True), data=images, views=views, **settings)

    whole = trainer("whole")
    whole.train()
    with pytest.raises(RuntimeError, match="power"):
        trainer("broken", callbacks=[Crash()]).train()
    torch.manual_seed(99)
    resumed = trainer("broken")
    resumed.train(resume_from_checkpoint=True)
    first, second = whole.model.state_dict(), resumed.model.state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_what_does_not_go_together_is_refused(
    build: Build, images: ImageData, tiny_model: Callable[..., TextModel]
) -> None:
    class OfImages(CrossEntropy):
        modality = "images"

    with pytest.raises(UserError, match="images, but a model of texts"):
        build(CrossEntropy(), data=images)
    with pytest.raises(UserError, match="texts, but a model of images"):
        build(CrossEntropy(), model=model(), data=rows())
    with pytest.raises(UserError, match="trains on images"):
        build(OfImages())
    with pytest.raises(UserError, match="no views"):
        build(CrossEntropy(), views=OneView(CropFlip()))
