"""Classifiers that cost nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference.letters import by_letters

from contraverse.data import TextData


@pytest.fixture
def predict() -> Callable[[list[Any]], np.ndarray]:
    """Deterministic scores of two classes that each character moves."""
    return by_letters


SENTENCES = (
    "a fine film with heart",
    "the plot is a mess, and long",
    "good people doing good work",
    "nothing here is new or funny",
    "it's so-so at best",
    "une œuvre très réussie, déjà vue",
    "这部电影很好看",
    "👍🏽👨‍👩‍👧 🇩🇪🇫🇷",
    "x",
    "...!?",
)


@pytest.fixture
def right_rows() -> TextData:
    """Ten rows of several scripts, labelled as `predict` has it."""
    labels = by_letters(list(SENTENCES)).argmax(1).tolist()
    return TextData.from_rows(list(SENTENCES), labels, ["no", "yes"])
