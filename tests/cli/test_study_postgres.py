"""Workers of a study on one PostgreSQL server, which the test starts from Debian's package."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contraverse.pipeline.board import Board
from contraverse.pipeline.study import read_lines

SERVERS = [*map(Path, filter(None, [shutil.which("initdb")])), *Path("/usr/lib/postgresql").glob("*/bin/initdb")]
USER = "postgres" if os.name == "posix" and os.getuid() == 0 else None
"""The server refuses to run as root; Debian's package makes a user for it."""


@pytest.fixture
def database() -> Iterator[str]:
    """URL of an empty database, reached by a socket in a folder of its own."""
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install 'contraverse[postgres]'")
    if not SERVERS:
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    bin_ = SERVERS[-1].resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # pytest's own is closed to other users
    if USER is not None:
        try:
            shutil.chown(folder, USER)
        except LookupError:
            folder.rmdir()
            pytest.skip(f"as root, and there is no user {USER} to run the server as")
    data = folder / "data"
    initdb = [bin_ / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, user=USER, cwd=folder, stdout=subprocess.DEVNULL)
    command = [bin_ / "postgres", "-D", data, "-k", folder, "-h", "", "-F"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, user=USER, cwd=folder, stdout=log, stderr=log)
    try:
        while subprocess.run([bin_ / "pg_isready", "-q", "-h", folder], check=False).returncode:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for clients
        server.wait(60)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_finish_every_cell_once(
    database: str, rows: Path, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    written = {
        "name": "tiny",
        "question": "Does adversarial training help?",
        "tasks": {"text": {"data.source": str(rows)}},
        "methods": {"ce": {"recipe": "ce"}, "at": {"recipe": "at"}, "scal": {"recipe": "scal"}},
        "settings": {
            "model.name": str(tiny_folder()),
            "model.max_length": 16,
            "train.num_train_epochs": 2,
            "evaluation.epsilons": [0.1],
            "evaluation.diagnostics": False,
        },
        "seeds": [1, 2, 3, 4],
        "baseline": "ce",
    }
    file, log = tmp_path / "study.yaml", tmp_path / "log"
    file.write_text(json.dumps(written), encoding="utf-8")

    def worker(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "contraverse", "study", file, "--storage", database]
        command += ["--output", tmp_path / "out", "--results", tmp_path / f"{name}.jsonl"]
        with log.open("a") as output:
            return subprocess.Popen(command, stdout=output, stderr=output)

    board = Board(database, "tiny")
    workers = [worker("killed"), worker("survivor")]
    try:
        in_hand = None
        while in_hand is None:
            assert workers[0].poll() is None, log.read_text()
            running = board.study.get_trials(states=[_state("RUNNING")])
            signed = [t for t in running if t.user_attrs.get("worker", "").endswith(f":{workers[0].pid}")]
            in_hand = next(iter(signed), None)
            time.sleep(0.05)
        workers[0].kill()
        assert workers[0].wait() == -signal.SIGKILL
        assert board.study.trials[in_hand.number].state.name == "RUNNING"  # in the middle of the cell
        assert workers[1].wait(600) == 0, log.read_text()
    finally:
        for process in workers:
            process.kill()
    lines = read_lines(tmp_path / "survivor.jsonl")
    assert len(lines) == 12
    assert set(Counter((line["method"], line["seed"]) for line in lines).values()) == {1}
    assert len(board.lines()) == 12
    assert (board.running(), board.waiting(), board.failures()) == (0, 0, {})
    assert board.study.trials[in_hand.number].state.name == "FAIL"


def _state(name: str) -> object:
    from optuna.trial import TrialState

    return TrialState[name]
