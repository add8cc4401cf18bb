"""The way of a row from the command line to the loss: the files of the package that it enters."""

import csv
import importlib
import pkgutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import typer

import contraverse
from contraverse.methods import SCAL

ROOT = f"{Path(contraverse.__file__).parent}/"
MOST = 58
"""Files that ``train scal`` on a CSV file may enter before its first loss. Lower it when there are fewer."""


def test_a_row_enters_no_more_files_than_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Any
) -> None:
    """Reading a file, naming its columns and classes, splitting, loading the model and starting the trainer."""
    for module in pkgutil.walk_packages(contraverse.__path__, "contraverse."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # so that importing enters none of them
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"good work {i}", ("no", "yes")[i % 2]) for i in range(60))])
    entered: dict[str, None] = {}

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOT) and code.co_name != "<module>":
            entered[code.co_filename.removeprefix(ROOT)] = None

    def arrive(*args: Any) -> Any:
        raise typer.Exit(77)  # the first loss is about to be computed

    monkeypatch.setattr(SCAL, "losses", arrive)
    monkeypatch.chdir(tmp_path)
    app = importlib.import_module("contraverse.cli.app").app
    command = ["train", "scal", "--task", "text", "--data", "rows.csv", "--model", str(tiny_folder())]
    sys.setprofile(watch)
    try:
        assert app([*command, "--output", "run", "--set", "train.use_cpu=true"], standalone_mode=False) == 77
    finally:
        sys.setprofile(None)
    assert {"recipes/resolve.py", "data/load.py", "pipeline/text.py", "training/step.py"} <= set(entered)
    assert len(entered) <= MOST, "\n".join(entered)
