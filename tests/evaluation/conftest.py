"""Random sentences over the tiny tokenizer's words."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from reference.bag_of_words import BagOfWords
from reference.tiny import LABELS, WORDS

from contraverse.data import TextData


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
