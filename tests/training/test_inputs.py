"""A newcomer's first mistakes in the call of a trainer, and the tables that it reads itself."""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from reference.tiny import LABELS
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from transformers import AutoModelForSequenceClassification

from contraverse.data import ImageData, Splits, TextData, get_task
from contraverse.errors import UserError
from contraverse.evaluation import evaluate
from contraverse.methods import CrossEntropy, SimCSE, SupervisedSimCSE
from contraverse.models import ImageModel, TextModel
from contraverse.training import Trainer
from contraverse.types import Method

Build = Callable[..., Trainer]

TEXTS = ["the cat sat", "a dog ran", "hello you", "the park"] * 2
NAMES = [LABELS[i % len(LABELS)] for i in range(8)]
TABLE = {"text": TEXTS, "label": NAMES}
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def state_after(build: Build, rows: Any) -> dict[str, Any]:
    trainer = build(CrossEntropy(), data=rows, max_steps=2)
    trainer.train()
    assert trainer.model is not None
    return trainer.model.state_dict()


@pytest.mark.parametrize("kind", ["Dataset", "DatasetDict", "DataFrame", "list of dicts", "Splits"])
def test_a_table_trains_as_the_rows_that_it_holds(build: Build, kind: str) -> None:
    data = TextData.from_rows(TEXTS, NAMES, LABELS)
    table: Any = {
        "Dataset": lambda: datasets.Dataset.from_dict(TABLE),
        "DatasetDict": lambda: datasets.DatasetDict(train=datasets.Dataset.from_dict(TABLE)),
        "DataFrame": lambda: pd.DataFrame(TABLE),
        "list of dicts": lambda: pd.DataFrame(TABLE).to_dict("records"),
        "Splits": lambda: Splits(data, None, None, get_task("text")),
    }[kind]()
    expected, state = state_after(build, data), state_after(build, table)
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_evaluation_reads_the_same_tables(tiny_model: Callable[..., TextModel]) -> None:
    model, data = tiny_model(), TextData.from_rows(TEXTS, NAMES, LABELS)
    assert evaluate(model, pd.DataFrame(TABLE)) == evaluate(model, data)
    assert evaluate(model, datasets.Dataset.from_dict(TABLE)) == evaluate(model, data)


def test_a_dataset_of_images_trains_an_image_model(build: Build) -> None:
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    table = datasets.Dataset.from_dict({"image": list(PIXELS), "label": [0, 1, 0, 1]}, features=features)
    model = ImageModel.from_pretrained("resnet8", labels=["a", "b"])
    build(CrossEntropy(), data=table, model=model, max_steps=1).train()


def image_model() -> ImageModel:
    return ImageModel.from_pretrained("resnet8", labels=["a", "b"])


def bert(tiny_model: Callable[..., TextModel]) -> Any:
    return AutoModelForSequenceClassification.from_config(tiny_model().encoder.config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": TEXTS}, r"expected a TextData, got a list\nmake one: TextData.from_rows\(texts, labels\)"),
        ({"data": "rows.csv"}, "expected a TextData, got a str"),
        ({"data": TensorDataset(torch.zeros(2))}, "expected a TextData, got a TensorDataset"),
        ({"data": ImageData.from_arrays(PIXELS)}, "images, but a model of texts\ngive texts to a TextModel"),
        ({"data": TextData.from_rows(TEXTS)}, "ce needs labels, and the rows have none\ngive labels, or take a method"),
        ({"method": SupervisedSimCSE()}, "simcse-sup needs pairs, and the rows have none\ngive rows of three texts"),
        ({"method": CrossEntropy}, r"the method is the class CrossEntropy\nmake one of it: CrossEntropy\(\)"),
        ({"method": "scal"}, r"the method must be a Method, not a str\nmake one by its name: METHODS\['scal'\]\(\)"),
        ({"method": None}, "the method must be a Method, not a NoneType"),
        ({"model": "minilm"}, r"must be a TextModel or an ImageModel, not a str\nload it first: TextModel.from_pre"),
        ({"model": torch.nn.Linear(2, 2)}, "not a Linear\nmake one of it: ImageModel"),
        ({"model": bert}, r"not a BertForSequenceClassification\nmake one of it: TextModel.from_transformers\(model"),
        ({"model": SimCSE()}, "the model must be a TextModel or an ImageModel, not a SimCSE"),
    ],
)
def test_a_first_mistake_is_explained(build: Build, tiny_model: Any, change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"method": CrossEntropy(), "data": TextData.from_rows(TEXTS, NAMES, LABELS), **change}
    if call.get("model") is bert:
        call["model"] = bert(tiny_model)
    with pytest.raises(UserError, match=message):
        build(**call)


@pytest.mark.parametrize("rows", [TextData.from_rows(TEXTS, NAMES), TEXTS])
def test_texts_do_not_train_an_image_model(build: Build, rows: Any) -> None:
    with pytest.raises(UserError, match=r"texts, but a model of images|expected an ImageData, got a list"):
        build(CrossEntropy(), data=rows, model=image_model())


def test_several_splits_are_not_evaluated_at_once(tiny_model: Callable[..., TextModel]) -> None:
    table = datasets.DatasetDict(train=datasets.Dataset.from_dict(TABLE), test=datasets.Dataset.from_dict(TABLE))
    with pytest.raises(UserError, match="got a DatasetDict of several splits\nchoose one: train, test"):
        evaluate(tiny_model(), table)  # type: ignore[arg-type]
    data = TextData.from_rows(TEXTS, NAMES)
    with pytest.raises(UserError, match=r"got Splits of several splits\nchoose one: splits\.test"):
        evaluate(tiny_model(), Splits(data, None, data, get_task("text")))  # type: ignore[arg-type]


def test_a_method_of_nothing_but_losses_trains(build: Build) -> None:
    """Class attributes that a run does not need have defaults, and a plain tensor is a loss."""

    class Bare(Method):
        def losses(self, model: Any, batch: Any) -> Any:
            yield cross_entropy(model(batch).logits, batch["labels"])

    trainer = build(Bare(), data=TextData.from_rows(TEXTS, NAMES, LABELS), max_steps=2)
    assert trainer.train().training_loss > 0
    assert Bare.name == "bare"
