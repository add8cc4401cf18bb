"""Classes of the rows and of the model in `Trainer`: by name, by number where there are no names, or refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.tiny import LABELS, rows
from torch import Tensor

from contraverse.data import EncodedText, ImageData, TextData
from contraverse.errors import UserError
from contraverse.methods import USCAL, CrossEntropy
from contraverse.models import ImageModel, TextModel
from contraverse.training import Trainer
from contraverse.types import UNLABELLED

Build = Callable[..., Trainer]
Make = Callable[..., TextModel]
STEPS: dict[str, Any] = {"max_steps": 2, "train_sampling_strategy": "sequential"}


def named(names: tuple[str, ...], ids: list[int]) -> TextData:
    return TextData.from_rows([row.texts for row in rows()], ids, names)


def trained(build: Build, name: str, data: TextData, model: TextModel) -> Tensor:
    trainer = build(CrossEntropy(), name, data=data, model=model, **STEPS)
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_the_same_names_in_another_order_train_the_same_model(build: Build, tiny_model: Make) -> None:
    """The labels as numbers differ, and what they name does not."""
    ids = [int(label) for label in rows().labels or ()]
    turned = named(tuple(name.upper() for name in reversed(LABELS)), [len(LABELS) - 1 - i for i in ids])
    expected = trained(build, "a", rows(), tiny_model(dropout=0.0))
    assert torch.equal(trained(build, "b", turned, tiny_model(dropout=0.0)), expected)
    training_info = build(CrossEntropy(), "c", data=turned, model=tiny_model()).train_dataset.labels
    assert list(training_info) == ids


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1", "LABEL_2"), LABELS])
def test_numbers_are_the_ids_of_the_models_classes(build: Build, tiny_model: Make, labels: tuple[str, ...]) -> None:
    data = TextData.from_rows([row.texts for row in rows()], [0, 1] * 6)
    dataset = build(CrossEntropy(), data=data, model=tiny_model(labels=labels)).train_dataset
    assert list(dataset.labels) == [0, 1] * 6


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (named(("a", "b", "c"), [0, 1, 2] * 4), LABELS),
        (named((*LABELS, "more"), [0, 1, 2, 3] * 3), LABELS),
        (named(("a", "b"), [0, 1] * 6), ("LABEL_0", "LABEL_1", "LABEL_2")),
        (named(("a", "b"), [0, 1] * 6), ("score",)),
        (TextData.from_rows(["good work"] * 4, [0, 1, 2, 3]), LABELS),
        (TextData.from_rows(["good work"] * 4, [0.5, 1.0, 0.0, 1.0]), LABELS),
    ],
)
def test_other_classes_are_refused_before_training(
    build: Build, tiny_model: Make, data: TextData, labels: tuple[str, ...]
) -> None:
    model = tiny_model(labels=labels)
    for given in (data, EncodedText(data, model.tokenizer, model.max_length)):
        with pytest.raises(UserError, match="the model tells"):
            build(CrossEntropy(), data=given, model=model)


def test_tokenized_rows_in_another_order_are_refused(build: Build, tiny_model: Make) -> None:
    model = tiny_model()
    data = EncodedText(named(tuple(reversed(LABELS)), [0, 1, 2] * 4), model.tokenizer, model.max_length)
    with pytest.raises(UserError, match="another order"):
        build(CrossEntropy(), data=data, model=model)


def test_a_method_without_labels_asks_for_no_classes(build: Build, tiny_model: Make) -> None:
    build(USCAL(), data=named(("a", "b"), [0, 1] * 6), model=tiny_model(labels=None)).train()
    build(USCAL(), "b", data=named(("a", "b"), [0, 1] * 6), model=tiny_model(pooling="mean"))


def test_images_are_matched_too_and_those_without_a_label_stay_so(build: Build) -> None:
    model = ImageModel.from_pretrained("resnet8", labels=["cat", "dog", "owl"])
    pixels, ids = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, UNLABELLED, 1])
    data = ImageData(pixels, ids, ("dog", "cat"))
    dataset = build(CrossEntropy(), data=data, model=model).train_dataset  # type: ignore[arg-type]
    assert dataset.labels.tolist() == [1, 0, UNLABELLED, 0]
    with pytest.raises(UserError, match="apart"):
        build(CrossEntropy(), data=ImageData(pixels, ids, ("dog", "cow")), model=model)  # type: ignore[arg-type]
