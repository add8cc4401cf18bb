"""Fixtures shared by all tests: a tiny random encoder of each architecture, and small padded batches."""

import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from reference.tiny import LABELS, random_batch, tiny_config, tiny_tokenizer, with_pairs
from transformers import AutoModel
from transformers.utils import logging

from contraverse.models import TextModel

torch.set_num_threads(1)
logging.disable_progress_bar()
logging.set_verbosity_error()
# How long an example takes says how busy the machine is; derandomised, a failure is the same on every machine.
hypothesis.settings.register_profile("contraverse", deadline=None, derandomize=True)
hypothesis.settings.load_profile("contraverse")


def pytest_collection_finish() -> None:
    """Keep all imports out of garbage collection: with them a full one takes 0.5 s, and forks copy them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny_folder("albert", dropout=.1, embedding_size=8)``: a plain transformers folder, made once a session."""

    @cache
    def make(architecture: str = "bert", dropout: float = 0.1, **settings: Any) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModel.from_config(tiny_config(architecture, dropout, **settings))
        folder = tmp_path_factory.mktemp(architecture)
        model.save_pretrained(folder)
        tiny_tokenizer(type_ids=architecture in ("bert", "albert", "electra", "deberta-v2")).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def tiny_model(tiny_folder: Callable[..., Path]) -> Callable[..., TextModel]:
    """``tiny_model("roberta", labels=None, dropout=0, heads=method.heads)``: the same weights every time, eval mode.

    Settings that are not named go to the architecture's configuration.
    """

    def make(
        architecture: str = "bert",
        *,
        labels: tuple[str, ...] | None = LABELS,
        dropout: float = 0.1,
        heads: Any = None,
        pooling: Any = "cls",
        embedding: Any = "h",
        max_length: int = 32,
        **settings: Any,
    ) -> TextModel:
        folder = tiny_folder(architecture, dropout, **settings)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = TextModel.from_pretrained(
                folder, labels=labels, pooling=pooling, embedding=embedding, max_length=max_length
            )
            model.add_heads(heads or {})
        return model.eval()

    return make


@pytest.fixture
def batch() -> dict[str, Any]:
    """Four rows of 9, 8, 7 and 6 tokens."""
    return random_batch()


@pytest.fixture
def full_batch() -> dict[str, Any]:
    """What every method can use: labels, and a ``positive`` and a ``negative`` for each row."""
    return with_pairs(random_batch())
