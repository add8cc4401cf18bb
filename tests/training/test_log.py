"""``metrics.jsonl``: one JSON object a line, whole after a crash and cut to the checkpoint on resume."""

import json
from pathlib import Path

from contraverse.training import read_metrics
from contraverse.training.callbacks import MetricsLog


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.begin(0)
    log.add(5, 0.5, {"loss": 1.25, "name": "x"})
    log.add(10, 1.0, {"eval_accuracy": 90})
    assert read_metrics(log.path) == [
        {"step": 5, "epoch": 0.5, "loss": 1.25, "name": "x"},
        {"step": 10, "epoch": 1.0, "eval_accuracy": 90},
    ]
    assert len(log.path.read_text().splitlines()) == 2


def test_a_new_run_starts_the_file_anew_and_resume_keeps_what_was_done(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.begin(0)
    for step in (5, 10, 10, 15):
        log.add(step, None, {"loss": float(step)})
    log.begin(10)
    assert [row["step"] for row in read_metrics(log.path)] == [5, 10, 10]
    log.begin(0)
    assert read_metrics(log.path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_is_no_json_number_becomes_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.begin(0)
    log.add(1, 0.1, {"loss": float("nan"), "grad_norm": float("inf")})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    row = json.loads(log.path.read_text(), parse_constant=refuse)
    assert row == {"step": 1, "epoch": 0.1, "loss": None, "grad_norm": None}


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.begin(0)
    log.add(1, 0.1, {"loss": 1.0})
    with log.path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(log.path)] == [1]
    log.begin(1)
    log.add(2, 0.2, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2]


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
