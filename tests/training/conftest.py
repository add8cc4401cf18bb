"""A small data set, and a way to train on it in a few lines."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reference.tiny import rows

from contraverse.data import TextData
from contraverse.models import TextModel
from contraverse.training import Trainer
from contraverse.types import Method


@pytest.fixture(scope="session", autouse=True)
def _frozen() -> Iterator[None]:
    """Accelerate collects garbage at every start, and the modules that are imported take it half a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def data() -> TextData:
    return rows()


@pytest.fixture
def build(tiny_model: Callable[..., TextModel], tmp_path: Path) -> Callable[..., Trainer]:
    """``build(method, "run", dropout=.1, max_steps=3, ...)``: a trainer on a fresh model, silent, four rows a batch."""

    def make(
        method: Method,
        name: str = "run",
        *,
        data: TextData | None = None,
        dropout: float = 0.0,
        model: Any = None,
        **args: Any,
    ) -> Trainer:
        defaults: dict[str, Any] = {
            "per_device_train_batch_size": 4,
            "num_train_epochs": 3,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": 7,
        }
        return Trainer(
            model if model is not None else tiny_model(dropout=dropout),
            method,
            data if data is not None else rows(),
            output_dir=tmp_path / name,
            **{**defaults, **args},
        )

    return make
