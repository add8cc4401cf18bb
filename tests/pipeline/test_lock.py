"""One process writes to a folder at a time."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.pipeline import lock, run, search
from contraverse.pipeline.lock import LOCK, one_writer
from contraverse.recipes import RunConfig, SearchConfig

Configured = Callable[..., RunConfig]


def holder(folder: Path) -> int:
    """A process that holds the lock of ``folder`` until it is killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with one_writer(folder):
            os.write(write, b"x")
            time.sleep(600)
        os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_second_is_told_who_holds_it_and_death_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    pid = holder(folder)
    try:
        message = f"another process is writing to this folder: process {pid} on {socket.gethostname()}, since 2"
        with pytest.raises(UserError, match=message), one_writer(folder):
            pass
    finally:
        end(pid)
    assert (folder / LOCK).is_file()  # a killed process removes nothing
    with one_writer(folder):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_and_a_search_hold_it(resume: bool, configured: Configured, rows: Path, tmp_path: Path) -> None:
    """F8."""
    config = configured("ce", rows)
    plan = SearchConfig(config=config, space={"train.learning_rate": "1e-5:1e-3:log"}, trials=1)
    for work, mark in ((run, "config.yaml"), (search, "search.yaml")):
        folder = tmp_path / mark
        pid = holder(folder)
        (folder / mark).write_text((config if work is run else plan).to_yaml(), encoding="utf-8")
        try:
            with pytest.raises(UserError, match=f"process {pid} on"):
                work(config if work is run else plan, folder, resume=resume)  # type: ignore[operator]
        finally:
            end(pid)
        assert sorted(path.name for path in folder.iterdir()) == [LOCK, mark]


def test_folders_that_were_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path / "a" / "b" / "c"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with one_writer(tmp_path / "mine"):
        pass
    with one_writer(tmp_path / "used" / "here"):
        (tmp_path / "used" / "here" / "file").touch()
    assert (tmp_path / "mine").is_dir()
    assert (tmp_path / "used" / "here" / "file").is_file()


def test_a_forked_child_does_not_hold_it_on(tmp_path: Path) -> None:
    read, write = os.pipe()
    with one_writer(tmp_path / "run"):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is done
            os._exit(0)
    with one_writer(tmp_path / "run"):
        pass
    os.close(write)
    os.close(read)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("how", ["no flock here", "no fcntl"])
def test_without_locks_it_goes_on(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    if how == "no fcntl":
        monkeypatch.setattr(lock, "fcntl", None)
    else:

        def refuse(*args: Any) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with one_writer(tmp_path / "run", say=said.append):
        assert (tmp_path / "run" / LOCK).is_file()
    assert len(said) == (how == "no flock here")
    assert all("no locks" in line for line in said)
