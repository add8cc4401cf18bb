"""docs/extending.md, followed to the letter on a copy of the source: everything that it adds then works."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
RUN = """
import json, sys
from contraverse.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["contraverse", *arguments]
    try:
        main()
    except SystemExit as stopped:
        if stopped.code:
            raise
"""


def apply(source: Path) -> None:
    """Write the new files of the page, and insert the lines that its diffs add.

    A line that is added before a definition stands above the diff's first line, others below it.
    """
    for name, code in re.findall(r"<!-- new file: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        assert not (source / name).exists(), f"{name} is there already"
        (source / name).write_text(code, encoding="utf-8")
    for diff in re.findall(r"^```diff\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        for name, hunk in re.findall(r"^--- (\S+)\n((?:[ +].*\n)+)", diff, re.MULTILINE):
            anchor, *added = hunk.splitlines()
            text = (source / name).read_text(encoding="utf-8")
            line = anchor[1:] + "\n"
            assert text.count(line) == 1, f"{name} has no single line {anchor!r}"
            new = "".join(addition[1:] + "\n" for addition in added)
            above = any(addition.startswith("+def ") for addition in added)
            (source / name).write_text(text.replace(line, new + line if above else line + new), encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[..., Path]) -> Path:
    """A folder with the extended source, and two runs of its command line."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    apply(folder)
    words = [word for _ in range(12) for word in ("joy", "fear", "anger")]
    table = pa.table({"text": [f"{word} {i // 3}" for i, word in enumerate(words)], "label": words})
    feather.write_feather(table, folder / "rows.feather")
    text = ["train", "rdrop", "--task", "emotion", "--data", "rows.feather", "--output", "text"]
    text += ["--model", str(tiny_folder("bert")), "--set", "train.max_steps=2", "--set", "train.logging_steps=1"]
    text += ["--set", "evaluation.attack=momentum", "--set", "evaluation.epsilons=[0.5]", "--set", "evaluation.steps=2"]
    images = ["train", "ce", "--task", "digits", "--output", "images", "--model", "resnet14", "--dry-run"]
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", RUN, json.dumps([text, images])]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_the_method_trains_and_the_attack_and_the_metric_measure(extended: Path) -> None:
    config = (extended / "text" / "config.yaml").read_text(encoding="utf-8")
    assert "alpha: 1.0" in config
    log = (extended / "text" / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"kl"' in log
    metrics = json.loads((extended / "text" / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
    assert {"accuracy", "balanced_accuracy", "accuracy@momentum-0.5"} <= metrics.keys()


def test_the_report_has_the_new_figure(extended: Path) -> None:
    report = (extended / "text" / "report.html").read_text(encoding="utf-8")
    assert "Learning rate" in report
    assert "Balanced accuracy" in report
    assert "MIM" in report


def test_the_pages_files_are_those_of_the_source() -> None:
    """Paths in the tables exist, but for names in capitals and what is new."""
    for path in re.findall(r"`((?:\w+/)+\w+\.\w+)`", PAGE):
        if not re.search(r"NAME|KIND", path):
            assert (ROOT / path).exists() or (ROOT / "src" / "contraverse" / path).exists(), path
