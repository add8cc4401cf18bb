"""Full disks, closed pipes, missing permission, long names, signals: exit 2 with the reason, and nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from contraverse.cli import files
from contraverse.pipeline.text import TextSteps

COMMAND = [sys.executable, "-c", "from contraverse.cli import main; main()"]
LONG = "x" * 256
SMALL = ("--set", "train.num_train_epochs=1", "--set", "evaluation.epsilons=[]", "--set", "train.report_to=none")


@pytest.fixture
def start(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder()


def process(*args: object, **how: Any) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", **how.pop("env", {})}
    return subprocess.run([*COMMAND, *map(str, args)], env=environment, check=False, **how)


def test_figures_are_on_disk_before_they_are_shown(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F10."""
    shown: list[bool] = []

    def failing(text: str) -> None:
        shown.append((tmp_path / "e.json").is_file())
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("contraverse.cli.console.print_text", failing)
    invoke("evaluate", classifier, "--task", "text", "--data", rows, "--output", tmp_path / "e.json", code=141)
    assert shown == [True]
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]


@pytest.mark.parametrize("where", ["full", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gone", "ascii"))])
def test_a_bad_stdout_costs_no_file(where: str, classifier: Path, rows: Path, tmp_path: Path) -> None:
    args = ("evaluate", classifier, "--task", "text", "--data", rows, "--eps", ".3", "--output", tmp_path / "e.json")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"} if where == "ascii" else {}
    read, write = os.pipe()
    os.close(read)
    with Path("/dev/full" if where == "full" else os.devnull).open("w") as sink:
        stdout: Any = {"gone": write, "full": sink, "ascii": subprocess.PIPE}[where]
        done = process(*args, stdout=stdout, stderr=subprocess.PIPE, env=ascii_only)
    os.close(write)
    assert json.loads((tmp_path / "e.json").read_text())["metrics"]
    assert done.returncode == {"gone": 141, "full": 2, "ascii": 0}[where], done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    if where == "full":
        assert b"cannot be written: No space left on device" in done.stderr


def test_places_that_cannot_be_written_are_said_before_the_work(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: too long a name, a folder that is a file, a file system that cannot be written."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(files, "read_texts", refused)
    monkeypatch.setattr("contraverse.cli.texts.load_model", refused)
    monkeypatch.setattr(TextSteps, "load_and_prepare", refused)
    for output, reason in ((tmp_path / f"{LONG}.csv", "File name too long"), (Path("/proc/x.csv"), "/proc/x.csv")):
        result = invoke("predict", classifier, rows, "--output", output, code=2)
        assert reason in result.stderr
        assert "Traceback" not in result.stderr
    for output, reason in (
        (tmp_path / LONG, "File name too long"),
        (rows / "run", "a run needs a folder"),
        (tmp_path / "\udcff", "this name is not UTF-8"),
    ):
        result = invoke("train", "ce", "--data", rows, "--task", "text", "--output", output, code=2)
        assert reason in result.stderr, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier", "rows.csv"]


def test_a_name_that_is_nearly_too_long_is_not(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / ("x" * 251 + ".csv")
    invoke("predict", classifier, rows, "--output", output)
    assert len(output.read_text().splitlines()) == 21


@pytest.mark.parametrize("length", [300, 5000])
def test_names_of_inputs_that_are_too_long(length: int, invoke: Any, classifier: Path, tmp_path: Path) -> None:
    name = "x" * length
    for args in (
        ("train", "ce", "--task", "text", "--data", name, "--output", tmp_path / "run"),
        ("predict", classifier, name),
        ("evaluate", name, "--eps", ".3"),
    ):
        assert "Traceback" not in invoke(*args, code=2).stderr


def test_no_temporary_folder_is_needed_to_predict_a_file(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    invoke("predict", classifier, rows, "--output", tmp_path / "p.csv")


def test_the_handler_of_unforeseen_faults_cannot_fail(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F18: no place for a log, and a name that UTF-8 does not have."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("\udcff")

    monkeypatch.setattr("contraverse.cli.listing.print_text", fail)
    monkeypatch.setattr(sys, "argv", ["contraverse", "\udcff"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    result = invoke("list", "recipes", "--json", code=1)
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback (most recent call last)" in result.stderr
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    invoke("list", "recipes", "--json", code=1)
    (log,) = tmp_path.glob("contraverse-*.log")
    assert log.stat().st_mode & 0o777 == 0o600
    assert "\\udcff" in log.read_text()


def test_settings_of_another_version_are_left_out_with_a_note(
    invoke: Any, start: Path, rows: Path, tmp_path: Path
) -> None:
    """F21."""
    output = tmp_path / "run"
    invoke("train", "ce", "--task", "text", "--model", start, "--data", rows, "--output", output, *SMALL)
    config = output / "config.yaml"
    assert config.read_text().startswith("# contraverse 0.")
    written = yaml.safe_load(config.read_text())
    written["evaluation"]["sharpness"] = 3
    written["method"] |= {"later": [1]}
    written["future"] = {"a": 1}
    config.write_text("# contraverse 9.1\n" + yaml.safe_dump(written))
    for args in (
        ("evaluate", output, "--eps", "none"),
        ("predict", output, rows, "--output", tmp_path / "p.csv"),
        ("predict", output / "model", rows, "--output", tmp_path / "q.csv"),
    ):
        said = invoke(*args).stderr
        assert "which contraverse 9.1 wrote: this version does not know evaluation.sharpness, future" in said
    assert "no such setting" in invoke("train", "--output", output, "--resume", code=2).stderr
    # The settings of a neighbour that is no run concern nobody.
    (tmp_path / "config.yaml").write_text("port: 80\n")
    (output / "model").rename(tmp_path / "alone")
    invoke("predict", tmp_path / "alone", rows, "--output", tmp_path / "r.csv")


def test_quickstart_writes_over_nothing(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("mine")
    (tmp_path / "report.html").write_text("mine")
    for images in ((), ("--images",)):
        assert "the folder is not empty" in invoke("quickstart", "--output", tmp_path, *images, code=2).stderr
        assert "this is a file" in invoke("quickstart", "--output", "/etc/passwd", *images, code=2).stderr
    assert (tmp_path / "data" / "train.csv").read_text() == (tmp_path / "report.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "report.html"]


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint(start: Path, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    long = ("--set", "train.num_train_epochs=400", "--set", "train.early_stopping_patience=null", *SMALL[2:])
    args = ["train", "ce", "--task", "text", "--model", start, "--data", rows, "--output", output, *long]
    running = subprocess.Popen([*COMMAND, *map(str, args)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(output.glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 143
    assert b"To go on:" in said
