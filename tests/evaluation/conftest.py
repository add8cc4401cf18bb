"""Random sentences over the tiny tokenizer's words, and models that read them."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.bag_of_words import BagOfWords
from reference.tiny import LABELS, WORDS

from contraverse.data import TextData
from contraverse.evaluation import predict
from contraverse.models import TextModel
from contraverse.types import HeadSpec


@pytest.fixture
def sentences() -> Callable[..., list[str]]:
    """``sentences(20)``: of 2 to 12 words, in no order of length."""

    def make(count: int, seed: int = 0) -> list[str]:
        draw = random.Random(seed)
        return [" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(count)]

    return make


@pytest.fixture
def labelled(sentences: Callable[..., list[str]]) -> Callable[..., TextData]:
    """``labelled(20)``: sentences of three classes, drawn at random."""

    def make(count: int, seed: int = 0) -> TextData:
        draw = random.Random(seed + 1)
        labels = [draw.randrange(len(LABELS)) for _ in range(count)]
        return TextData.from_rows([(text,) for text in sentences(count, seed)], labels=labels, label_names=LABELS)

    return make


@pytest.fixture
def bag(tiny_model: Callable[..., Any]) -> Callable[[int], BagOfWords]:
    """``bag(3)``: a linear classifier of three classes."""
    return lambda classes: BagOfWords(tiny_model().tokenizer, classes)


@pytest.fixture
def model(tiny_model: Callable[..., TextModel], labelled: Any) -> TextModel:
    """A random classifier whose classes are about as frequent, so that a few words change one for another."""
    model = tiny_model(dropout=0.0, heads={"reconstruction": HeadSpec(kind="mlm")})
    logits = torch.from_numpy(predict(model, labelled(200, seed=9)))
    with torch.no_grad():
        model.encoder.classifier.weight.mul_(10)
        model.encoder.classifier.bias.sub_(10 * logits.mean(0))
    return model


@pytest.fixture
def encoder(tiny_model: Callable[..., TextModel]) -> TextModel:
    return tiny_model("distilbert", labels=None, pooling="mean", dropout=0.0)
