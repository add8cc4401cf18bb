"""The command line in this process, and a tiny trained-looking classifier and encoder on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from contraverse.cli.app import app
from contraverse.cli.console import notes, result


class Invoke(Protocol):
    def __call__(self, *args: object, stdin: str | bytes | None = None, code: int = 0) -> Result: ...


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``invoke("train", "ce", code=2)``: runs a command, checks its exit code, gives what it printed."""
    monkeypatch.setenv("CONTRAVERSE_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "200")
    for console in (result, notes):  # made when COLUMNS was what pytest-xdist says it is
        monkeypatch.setattr(console, "_width", 200)

    def run(*args: object, stdin: str | bytes | None = None, code: int = 0) -> Result:
        outcome = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
        assert outcome.exit_code == code, (outcome.output, outcome.exception)
        return outcome

    return run


@pytest.fixture
def classifier(tiny_model: Callable[..., Any], tmp_path: Path) -> Path:
    return tiny_model(labels=("no", "yes"), max_length=16).save(tmp_path / "classifier")


@pytest.fixture
def encoder(tiny_model: Callable[..., Any], tmp_path: Path) -> Path:
    return tiny_model(labels=None, pooling="mean").save(tmp_path / "encoder")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twenty labelled rows of words that the tiny tokenizer knows."""
    words = ["good work", "no good", "the way back", "very long years", "my own house"]
    lines = [f"{words[i % 5]} {'is not the same' * (i % 3)} {i},{'yes' if i % 2 else 'no'}" for i in range(20)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PNG files, 8 x 8: dark and light ones, in training and test."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        for name, lightest in (("dark", 90), ("light", 250)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(lightest - 90, lightest, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root
