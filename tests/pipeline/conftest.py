"""A tiny encoder to start from, rows to train on and STS sets to measure on."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contraverse.evaluation import STS_SETS
from contraverse.recipes import RunConfig, configure
from contraverse.training import StopOnInterrupt

WORDS = ["good work", "no good", "the way back", "very long years", "my own house", "people of the state"]


def texts(n: int) -> list[str]:
    return [f"{WORDS[i % 6]} {'is not the same ' * (i % 4)}{WORDS[i % 5]}" for i in range(n)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder with 48 training, 12 validation and 18 test rows of two classes."""
    for name, n in {"train": 48, "validation": 12, "test": 18}.items():
        labels = ["yes" if "good" in text else "no" for text in texts(n)]
        (tmp_path / "rows").mkdir(exist_ok=True)
        pd.DataFrame({"text": texts(n), "label": labels}).to_csv(tmp_path / "rows" / f"{name}.csv", index=False)
    return tmp_path / "rows"


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    file = tmp_path / "sentences.txt"
    file.write_text("\n".join(texts(32)), encoding="utf-8")
    return file


@pytest.fixture
def sts(tmp_path: Path) -> Path:
    """The seven sets and STS-B's validation split, eight pairs each."""
    left = texts(8)
    table = pd.DataFrame({"sentence1": left, "sentence2": left[1:] + left[:1], "score": [0, 5, 1, 4.5, 2, 5, 3, 4]})
    for name in STS_SETS:
        folder = tmp_path / "sts" / name
        folder.mkdir(parents=True)
        table.assign(subset=["a", "b"] * 4).to_parquet(folder / "test.parquet")
    table.to_parquet(tmp_path / "sts" / "stsb" / "validation.parquet")
    return tmp_path / "sts"


@pytest.fixture
def configured(tiny_folder: Callable[..., Path]) -> Callable[..., RunConfig]:
    """``configured("scal", rows, **{"train.seed": 3})``: a recipe on the tiny encoder, two short epochs."""

    def make(recipe: str, source: Path, *, task: str | None = None, **settings: Any) -> RunConfig:
        tiny = {
            "model.name": str(tiny_folder()),
            "train.num_train_epochs": 2,
            "train.per_device_train_batch_size": 8,
            "train.learning_rate": 1e-3,
            "train.logging_steps": 2,
            "evaluation.steps": 2,
        }
        return configure(recipe, task=task, source=str(source), settings=tiny | settings)

    return make


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``ctrl_c(during=2, at=3)``: from now on, Ctrl-C is pressed once, in the second training's fourth step."""

    def press(during: int = 1, at: int = 2) -> None:
        trainings = 0

        def on_train_begin(self: StopOnInterrupt, *args: Any, **kwargs: Any) -> None:
            nonlocal trainings
            trainings += 1

        def on_step_begin(self: StopOnInterrupt, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if trainings == during and state.global_step == at:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(StopOnInterrupt, "on_train_begin", on_train_begin)
        monkeypatch.setattr(StopOnInterrupt, "on_step_begin", on_step_begin)

    return press
