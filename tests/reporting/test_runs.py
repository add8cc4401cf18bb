import getpass
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from contraverse.errors import UserError
from contraverse.reporting import environment, read_run
from contraverse.reporting.runs import _commit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("method:\n  name: scal\n  epsilon: 0.3\n")
    (run / "environment.json").write_text('{"python": "3.11"}')
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n')
    (run / "evaluation.json").write_text('{"metrics": {"accuracy": 96.4}}')
    return run


def test_a_run_is_read_back(folder: Path) -> None:
    run = read_run(str(folder))
    assert run.folder == folder
    assert run.config == {"method": {"name": "scal", "epsilon": 0.3}}
    assert run.environment == {"python": "3.11"}
    assert [line["step"] for line in run.log] == [1, 2]
    assert run.evaluation == {"metrics": {"accuracy": 96.4}}


def test_an_unfinished_run_has_no_evaluation(folder: Path) -> None:
    for name in ("environment.json", "metrics.jsonl", "evaluation.json"):
        (folder / name).unlink()
    run = read_run(folder)
    assert (run.environment, run.log, run.evaluation) == ({}, [], None)


def test_a_log_cut_anywhere_gives_its_whole_lines(folder: Path) -> None:
    whole = [{"step": i, "text": "Größe"} for i in range(3)]
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in whole).encode()
    ends = [i for i, byte in enumerate(data) if byte == 10]
    for cut in range(len(data) + 1):
        (folder / "metrics.jsonl").write_bytes(data[:cut])
        # A line is whole with its closing brace; the line break after it may be lost.
        assert read_run(folder).log == whole[: sum(cut >= end for end in ends)]


def test_a_broken_line_before_the_last_is_an_error_with_its_place(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2"):
        read_run(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "nowhere")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder\n.*config\.yaml"):
        read_run(tmp_path)


def test_a_folder_of_runs_names_them(folder: Path) -> None:
    with pytest.raises(UserError, match="it holds runs: run"):
        read_run(folder.parent)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- 1"),
        ("config.yaml", b""),
        ("config.yaml", b"\xff\xfe"),
        ("environment.json", b"{"),
        ("evaluation.json", b"[1, 2]"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read_run(folder)


def test_the_environment_names_versions_and_nobody() -> None:
    found = environment()
    assert {"python", "torch", "transformers", "contraverse", "platform", "cpus", "threads"} <= set(found)
    assert found["threads"] == 1
    text = json.dumps(found)
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
