"""Drives the command line in this process, and says what is wrong with the way in which it ends."""

import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow
import torch
from click import unstyle
from PIL import Image
from pyarrow import parquet
from reference.tiny import tiny_config, tiny_tokenizer
from transformers import AutoModel
from typer.testing import CliRunner

from contraverse.cli.app import app
from contraverse.models import ImageModel, TextModel

LONGEST = 60
"""Seconds that an example may take: on an idle machine none needs two."""


class Hang(BaseException):
    """Not an `Exception`, which the command line would take for a fault of its own and report."""


@dataclass(frozen=True)
class Valid:
    """What the examples are mutations of, or use as it is."""

    classifier: Path
    encoder: Path
    images_model: Path
    rows: Path
    images: Path

    @property
    def paths(self) -> list[str]:
        """All of them, as words of a command line."""
        return [str(value) for value in vars(self).values()]


def build(root: Path) -> Valid:
    """Tiny models of random weights, a table, and a folder of images."""
    torch.manual_seed(0)
    plain = root / "bert"
    AutoModel.from_config(tiny_config("bert", 0.1)).save_pretrained(plain)
    tiny_tokenizer(type_ids=True).save_pretrained(plain)
    classifier = TextModel.from_pretrained(plain, labels=("no", "yes"), max_length=16)
    encoder = TextModel.from_pretrained(plain, pooling="mean", max_length=16)
    images_model = ImageModel.from_pretrained("resnet8", labels=("dark", "light"))
    rows = root / "rows.csv"
    rows.write_text(table_lines(","), encoding="utf-8")
    images = root / "images"
    for i in range(8):
        file = images / ("dark", "light")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(file)
    return Valid(
        classifier.save(root / "classifier"),
        encoder.save(root / "encoder"),
        images_model.save(root / "images-model"),
        rows,
        images,
    )


def table_lines(separator: str) -> str:
    """Twelve labelled rows of words that the tiny tokenizer knows."""
    words = ("good work", "no good", "the way back", "very long years")
    lines = [separator.join((f"{words[i % 4]} {i}", ("no", "yes")[i % 2])) for i in range(12)]
    return "\n".join([separator.join(("text", "label")), *lines]) + "\n"


def picture(seed: int) -> Image.Image:
    """Random pixels, 8 x 8."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8))


def parquet_table(file: Path) -> None:
    """The rows of `table_lines` as Parquet."""
    lines = [line.split(",") for line in table_lines(",").splitlines()[1:]]
    columns = {"text": [line[0] for line in lines], "label": [line[1] for line in lines]}
    parquet.write_table(pyarrow.table(columns), file)


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder, which is the current one."""
    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="contraverse-fuzz-"))
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder)


def drive(words: Sequence[str], stdin: bytes | None = None) -> Any:
    """Run one command in the current folder.

    Raises:
        AssertionError: it ended in another way than by a result or by one clear message and exit 2, took too long,
            or left something behind when it failed.
    """
    before = _tree()
    shown = f"contraverse {' '.join(map(repr, words))}"
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    try:
        result = CliRunner(env={"CONTRAVERSE_DEBUG": "", "COLUMNS": "200"}).invoke(app, list(words), input=stdin)
    except Hang as error:
        raise AssertionError(f"{shown}: more than {LONGEST} seconds\n{traceback.format_exc()}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    error = result.exception
    cause = error.__cause__ if isinstance(error, SystemExit) and error.__cause__ else error
    trace = "".join(traceback.format_exception(cause)) if cause else ""
    assert result.exit_code in (0, 2), f"{shown}: exit {result.exit_code}\n{result.output}\n{trace}"
    if result.exit_code == 0:
        return result
    said = unstyle(result.stderr)
    messages = [line for line in said.splitlines() if line.startswith(("error: ", "╭─ Error", "Usage: "))]
    assert messages, f"{shown}: no message\n{result.output}"
    assert sum(line.startswith("error: ") for line in messages) <= 1, f"{shown}: more than one message\n{said}"
    assert "Traceback" not in said, f"{shown}: a traceback\n{said}"
    assert _tree() == before, f"{shown}: left {sorted(set(_tree()) ^ set(before))}\n{said}"
    return result


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Hang


def _tree() -> dict[str, tuple[int, int]]:
    """Every path below the current folder, with its size and the time at which it was changed."""
    found = {}
    for path in Path().rglob("*"):
        status = path.lstat()
        found[os.fsencode(path).decode("utf-8", "backslashreplace")] = (
            (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)
        )
    return found
