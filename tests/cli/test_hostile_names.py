"""Labels, texts and names from anywhere act neither on the terminal nor on a spreadsheet, and can all be written."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.table import Table

from contraverse.cli import console
from contraverse.visible import visible

HOSTILE = {
    "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "title": ("\x1b]0;owned\x07x", r"\x1b]0;owned\x07x"),
    "C1": ("\x9b2Jx", r"\x9b2Jx"),
    "back": ("safe\b\b\b\bevil", r"safe\x08\x08\x08\x08evil"),
    "bidi": ("user\u202etxt.exe", r"user\u202etxt.exe"),
    "isolate": ("a\u2066b\u2069", r"a\u2066b\u2069"),
    "surrogate": ("half \ud83d", r"half \ud83d"),
    "line": ("a\u2028b", r"a\u2028b"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hidden_characters_are_shown(kind: str) -> None:
    raw, shown = HOSTILE[kind]
    assert visible(raw) == shown


@pytest.mark.parametrize("text", ["a\tb\nc", "café", "今天", "שלום", "👩‍👩‍👧", "می‌خواهم"])
def test_writing_of_any_kind_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("kind", ["colour", "C1", "bidi", "isolate"])
def test_notes_errors_warnings_and_tables_are_shown_so(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw, shown = HOSTILE[kind]
    console.say(f"label {raw}")
    console.warn(f"label {raw}")
    console.complain(f"label {raw}\nlabel {raw}")
    table = Table(title=raw)
    table.add_column(raw)
    table.add_row(raw)
    console.result.print(table)
    console.result.print(console.figures(raw, {raw: {"accuracy": 1.0}}))
    with console.doing(raw):
        pass
    printed = capsys.readouterr()
    both = printed.out + printed.err
    assert both.count(shown) >= 7
    assert not any(letter in both for letter in "\x1b\x9b\x07\u202e")


def test_a_dry_run_shows_labels_so(invoke: Any, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    rows = [f"of the {i},{chr(27)}[2Jevil" if i % 2 else f"to and {i},good" for i in range(20)]
    (tmp_path / "x.csv").write_text("\n".join(["text,label", *rows]))
    args = ["train", "ce", "--task", "text", "--model", tiny_folder(), "--data", tmp_path / "x.csv", "--dry-run"]
    result = invoke(*args)
    assert r"\x1b[2Jevil 9" in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("label", "cell"),
    [
        ("=cmd|'/c calc'!A0", "'=cmd|'/c calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("-1", "-1"),
        ("+1.5", "+1.5"),
        ("a=b", "a=b"),
        ("c-d", "c-d"),
    ],
)
def test_a_label_is_no_formula(invoke: Any, tiny_model: Any, tmp_path: Path, label: str, cell: str) -> None:
    model = tiny_model(labels=(label, "other"), max_length=16)
    model.encoder.classifier.bias.data[:] = model.encoder.classifier.bias.new_tensor([100.0, -100.0])
    folder = model.save(tmp_path / "m")
    (tmp_path / "x.txt").write_text("of the\n")
    for ending in ("csv", "jsonl"):
        invoke("predict", folder, tmp_path / "x.txt", "--output", tmp_path / f"p.{ending}")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["label"] == cell
    assert json.loads((tmp_path / "p.jsonl").read_text())["label"] == label


def picture(path: bytes, light: int) -> None:
    random = np.random.default_rng(light)
    with open(path, "wb") as file:
        Image.fromarray(random.integers(light, light + 90, (8, 8, 3)).astype(np.uint8)).save(file, "PNG")


@pytest.fixture
def bytes_folder(tmp_path: Path) -> Path:
    """Two classes, of which one has a name that is not UTF-8, as an image of the other has."""
    root = os.fsencode(tmp_path / "images")
    for name, light in ((b"caf\xe9", 0), (b"light", 160)):
        os.makedirs(root + b"/" + name)
        for i in range(10):
            picture(root + b"/" + name + b"/" + (b"\xff%d.png" % i if name == b"light" else b"%d.png" % i), light)
    return tmp_path / "images"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_names_that_are_not_utf8_are_written_as_escapes(invoke: Any, bytes_folder: Path, ending: str) -> None:
    run = bytes_folder.parent / "run"
    settings = ["train.max_steps=2", "train.per_device_train_batch_size=8", "evaluation.epsilons=[]"]
    args = ["train", "ce", "--task", "images", "--model", "resnet8", "--data", bytes_folder, "--output", run]
    invoke(*args, *(part for one in settings for part in ("--set", one)))
    assert json.loads((run / "evaluation.json").read_text())["labels"] == [r"caf\xe9", "light"]
    output = run.parent / f"p.{ending}"
    invoke("predict", run, bytes_folder, "--output", output)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": pd.read_csv,
        "jsonl": lambda path: pd.read_json(path, lines=True),
        "parquet": pd.read_parquet,
    }
    names = list(readers[ending](output)["image"])
    assert len(names) == 20
    assert str(bytes_folder / r"light/\xff3.png") in names
    invoke("encode", run, bytes_folder, "--output", run.parent / "x.parquet")
    assert str(bytes_folder / r"caf\xe9/3.png") in list(pd.read_parquet(run.parent / "x.parquet")["image"])
