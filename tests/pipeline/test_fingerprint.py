"""A run goes on with the rows, classes and start that it was started with, or not at all; its machine is noted."""

import csv
import getpass
import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from contraverse.errors import UserError
from contraverse.pipeline import Interrupted, run
from contraverse.pipeline.fingerprint import _commit, environment
from contraverse.recipes import RunConfig

Configured = Callable[..., RunConfig]


def change(file: Path, edit: Callable[[list[list[str]]], list[list[str]]]) -> None:
    with file.open(newline="") as lines:
        head, *table = list(csv.reader(lines))
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows([head, *edit(table)])


def relabel(table: list[list[str]]) -> list[list[str]]:
    return [[text, "nein" if label == "no" else label] for text, label in table]


CHANGES: dict[str, tuple[str, Callable[[list[list[str]]], list[list[str]]], str]] = {
    "fewer": ("train", lambda t: t[:-1], "there were 48 train rows, and there are 47"),
    "more": ("validation", lambda t: [*t, t[0]], "there were 12 validation rows, and there are 13"),
    "texts": ("train", lambda t: [[t[0][0] + " now", t[0][1]], *t[1:]], "the train rows have other inputs"),
    "order": ("train", lambda t: t[::-1], "the train rows have other inputs and labels, or stand in another order"),
    "labels": ("train", lambda t: [[t[0][0], "no"], *t[1:]], "the train rows have other labels"),
    "test": ("test", lambda t: [[t[0][0], "no"], *t[1:]], "the test rows have other labels"),
}


@pytest.fixture
def stopped(configured: Configured, rows: Path, tmp_path: Path, ctrl_c: Any) -> RunConfig:
    config = configured("ce", rows, **{"train.report_to": "none"})
    ctrl_c(at=4)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run")
    return config


def test_other_rows_are_refused_with_what_changed(stopped: RunConfig, rows: Path, tmp_path: Path) -> None:
    """F9: each change alone, and back."""
    before = (tmp_path / "run" / "fingerprint.json").read_bytes()
    for split, edit, says in CHANGES.values():
        kept = (rows / f"{split}.csv").read_bytes()
        change(rows / f"{split}.csv", edit)
        with pytest.raises(UserError, match=f"cannot go on with this run: {says}"):
            run(stopped, tmp_path / "run", resume=True)
        (rows / f"{split}.csv").write_bytes(kept)
    files = {path: path.read_bytes() for path in rows.iterdir()}
    for path in files:
        change(path, relabel)
    with pytest.raises(UserError, match="the classes were no, yes and are nein, yes"):
        run(stopped, tmp_path / "run", resume=True)
    for path, content in files.items():
        path.write_bytes(content)
    assert (tmp_path / "run" / "fingerprint.json").read_bytes() == before
    run(stopped, tmp_path / "run", resume=True)


def test_another_start_and_other_processes_are_refused(
    stopped: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Path(stopped.model.name) / "model.safetensors"
    kept, state = weights.read_bytes(), load_file(weights)
    try:
        save_file({name: value + 1e-3 for name, value in state.items()}, weights, metadata={"format": "pt"})
        with pytest.raises(UserError, match="the model that it started from has other weights"):
            run(stopped, tmp_path / "run", resume=True)
    finally:
        weights.write_bytes(kept)
    file = tmp_path / "run" / "fingerprint.json"
    seen = json.loads(file.read_text())
    file.write_text(json.dumps(seen | {"processes": 4}))
    with pytest.raises(UserError, match="started with 4 processes, and this is 1 process") as caught:
        run(stopped, tmp_path / "run", resume=True)
    assert "torchrun --nproc-per-node 4" in str(caught.value)
    file.unlink()  # of an older version
    run(stopped, tmp_path / "run", resume=True)


def test_the_environment_names_versions_and_nobody() -> None:
    made_with = environment()
    assert {"python", "torch", "transformers", "contraverse", "platform", "cpus", "threads"} <= set(made_with)
    assert made_with["threads"] == 1
    text = json.dumps(made_with)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert getpass.getuser() not in text.split('"')


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *settings, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@needs_git
def test_the_commit_is_that_of_the_checkout_that_tracks_the_file(tmp_path: Path) -> None:
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("x = 1\n")
    assert _commit(file) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "other.txt").write_text("")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-q", "-m", "somebody else's project")
    assert _commit(file) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    assert _commit(file) == git(tmp_path, "rev-parse", "HEAD")
    file.write_text("x = 2\n")
    assert _commit(file) == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_no_git_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _commit(Path(__file__)) is None
