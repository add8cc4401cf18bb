"""Studies: which cells there are, who takes them, and what is kept of them."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contraverse.errors import UserError
from contraverse.evaluation.paired import pack_rows
from contraverse.pipeline.board import Board
from contraverse.pipeline.result import Interrupted
from contraverse.pipeline.study import append_lines, read_lines, run_study
from contraverse.recipes.study import Cell, Finished, load_study, ready, total_cells
from contraverse.recipes.study_file import StudyConfig
from contraverse.reporting.study import csv_lines, latex, markdown, tabulate

WRITTEN: dict[str, Any] = {
    "name": "tiny",
    "question": "Does adversarial training help?",
    "tasks": {"text": {"data.source": "rows.csv"}},
    "methods": {
        "ce": {"recipe": "ce"},
        "at": {"recipe": "at"},
        "scal, small": {"recipe": "scal", "settings": {"method.epsilon": 0.1}},
    },
    "settings": {"train.num_train_epochs": 1},
    "seeds": [1, 2, 3],
    "baseline": "ce",
}
SELECT = {
    "criterion": ["accuracy", "accuracy@apgd-0.1"],
    "space": {"train.learning_rate": [1e-5, 1e-4], "method.epsilon": [0.1, 0.3]},
    "seeds": [10, 11],
}


NONE = Finished([])


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate(WRITTEN | changes)


def line(cell: Cell, accuracy: float = 80.0) -> dict[str, Any]:
    right = np.arange(20) < accuracy / 5
    return {
        "stage": cell.stage,
        "task": cell.task,
        "method": cell.method,
        "settings": cell.settings,
        "seed": cell.seed,
        "metrics": {"accuracy": accuracy, "accuracy@apgd-0.1": accuracy / 2},
        "right": {"accuracy": pack_rows(right)},
        "config": json.loads(cell.config.model_dump_json()),
    }


def storage(folder: Path, kind: str = "sqlite") -> str:
    return str(folder / "journal.log") if kind == "journal" else f"sqlite:///{folder / 'cells.db'}"


# cells


def test_every_method_is_trained_with_every_seed_on_every_task() -> None:
    cells = list(ready(study(), NONE))
    assert len(cells) == total_cells(study()) == 9
    assert len({cell.key for cell in cells}) == 9
    first = cells[0].config
    assert (first.train.arguments["seed"], first.train.arguments["num_train_epochs"]) == (1, 1)
    assert {cell.config.method.settings["epsilon"] for cell in cells if cell.method == "scal, small"} == {0.1}


def test_another_setting_makes_other_cells_and_leaves_the_rest() -> None:
    before = {cell.key for cell in ready(study(), NONE)}
    methods = WRITTEN["methods"] | {"at": {"recipe": "at", "settings": {"method.epsilon": 0.2}}}
    after = {cell.key for cell in ready(study(methods=methods), NONE)}
    assert len(before & after) == 6


def test_a_setting_that_did_not_exist_then_had_todays_default() -> None:
    cells = list(ready(study(), NONE))
    old = line(cells[-1])
    del old["config"]["method"]["contrast"]
    assert Finished([old]).line(cells[-1]) is not None
    old["config"]["method"]["alpha"] = 0.5
    assert Finished([old]).line(cells[-1]) is None
    old = line(cells[-1])
    del old["config"]["method"]["epsilon"]  # which the study sets to another value than the default
    assert Finished([old]).line(cells[-1]) is None
    old = line(cells[-1])
    old["config"]["method"]["forgotten"] = 1
    assert Finished([old]).line(cells[-1]) is None


def test_shared_settings_have_the_same_values_for_every_method_that_has_them() -> None:
    plan = study(select=SELECT)
    tried: dict[str, set[str]] = {}
    for cell in ready(plan, NONE):
        tried.setdefault(cell.method, set()).add(json.dumps(cell.settings))
    # ce has no epsilon, and the third line's is fixed.
    assert {name: len(choices) for name, choices in tried.items()} == {"ce": 2, "at": 4, "scal, small": 2}
    assert all(cell.stage == "select" for cell in ready(plan, NONE))
    assert total_cells(plan) == (2 + 4 + 2) * 2 + 9


def test_the_test_stage_takes_what_has_the_best_mean_over_the_selections_seeds() -> None:
    plan = study(select=SELECT)
    lines = []
    for cell in ready(plan, NONE):
        best = cell.settings.get("train.learning_rate") == 1e-4
        lucky = cell.seed == 10 and not best
        lines.append(line(cell, 90.0 if lucky else 85.0 if best else 60.0))
    tests = [cell for cell in ready(plan, Finished(lines)) if cell.stage == "test"]
    assert len(tests) == 9
    assert {cell.settings["train.learning_rate"] for cell in tests} == {1e-4}


def test_nothing_is_tested_before_its_selection_is_complete() -> None:
    plan = study(select=SELECT)
    lines = [line(cell) for cell in ready(plan, NONE)][:-1]
    tested = {cell.method for cell in ready(plan, Finished(lines)) if cell.stage == "test"}
    assert tested == {"ce", "at"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "cee"}, "ce"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": []}, "seeds"),
        ({"methods": {"ce": {"recipe": "ce", "settings": {"method.epsilon": 1}}}}, "epsilon"),
        ({"methods": {"ce": {"recipe": "cce"}}}, "ce"),
        ({"select": {**SELECT, "space": {"train.learning_rat": [1, 2]}}}, "learning_rat"),
        ({"questions": "?"}, "question"),
    ],
)
def test_an_impossible_study_is_refused_before_anything_is_trained(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(WRITTEN | changes), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_study(file)


# workers


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_each_cell_is_trained_once_and_again_only_where_it_changed(tmp_path: Path, kind: str) -> None:
    trained: list[str] = []

    def train(cell: Cell, folder: Path) -> dict[str, Any]:
        trained.append(cell.key)
        return line(cell)

    results = tmp_path / "results.jsonl"
    for _ in range(2):
        progress = run_study(study(), tmp_path, storage(tmp_path, kind), results=results, train=train)
        assert (progress.done, progress.failed, progress.total) == (9, 0, 9)
    assert len(trained) == len(set(trained)) == 9
    fresh = run_study(study(), tmp_path / "other", storage(tmp_path / "other"), results=results, train=train)
    assert (fresh.done, len(trained)) == (9, 9)


def test_a_cell_that_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    def train(cell: Cell, folder: Path) -> dict[str, Any]:
        if cell.method == "at" and cell.seed == 2:
            raise RuntimeError("out of luck")
        return line(cell)

    progress = run_study(study(), tmp_path, storage(tmp_path), train=train)
    assert (progress.done, progress.failed, progress.total) == (8, 1, 9)
    board = Board(storage(tmp_path), "tiny")
    assert list(board.failures().values()) == ["RuntimeError: out of luck"]
    board.retry()
    again = run_study(study(), tmp_path, storage(tmp_path), train=lambda cell, folder: line(cell))
    assert (again.done, again.failed) == (9, 0)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(Path("checkpoint-2"))])
def test_ctrl_c_puts_the_cell_in_hand_up_again(tmp_path: Path, stop: BaseException) -> None:
    seen: list[str] = []

    def train(cell: Cell, folder: Path) -> dict[str, Any]:
        seen.append(cell.key)
        if len(seen) == 3:
            raise stop
        return line(cell)

    with pytest.raises(KeyboardInterrupt):
        run_study(study(), tmp_path, storage(tmp_path), train=train)
    progress = run_study(study(), tmp_path, storage(tmp_path), train=train)
    assert progress.done == 9
    assert sorted(seen) == sorted([*set(seen), seen[2]])


def _slow_worker(folder: Path, kind: str, log: Path, dies: bool) -> None:
    def train(cell: Cell, _: Path) -> dict[str, Any]:
        with log.open("a") as file:
            file.write(f"{cell.key}\n")
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return line(cell)

    run_study(study(), folder, storage(folder, kind), results=folder / "results.jsonl", train=train)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_worker_that_was_killed_leaves_its_cell_to_another(tmp_path: Path, kind: str) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    killed = context.Process(target=_slow_worker, args=(tmp_path, kind, log, True))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    workers = [context.Process(target=_slow_worker, args=(tmp_path, kind, log, False)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    keys = log.read_text().splitlines()
    assert len(set(keys)) == 9
    lines = read_lines(tmp_path / "results.jsonl")
    assert len(lines) == len({(one["method"], one["seed"]) for one in lines}) == 9


def _take(folder: Path, barrier: Any, log: Path) -> None:
    board = Board(storage(folder), "tiny")
    barrier.wait()

    def run(key: str) -> dict[str, Any]:
        with log.open("a") as file:
            file.write(f"{key}\n")
        return {}

    while board.work(run) is not None:
        pass


def test_sqlite_gives_a_cell_to_one_worker_alone(tmp_path: Path) -> None:
    """Optuna reads that a trial waits and then takes it, in what was no transaction."""
    Board(storage(tmp_path), "tiny").offer(str(number) for number in range(30))
    context = multiprocessing.get_context("fork")
    barrier, log = context.Barrier(3), tmp_path / "log"
    workers = [context.Process(target=_take, args=(tmp_path, barrier, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted(log.read_text().split(), key=int) == [str(number) for number in range(30)]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
@pytest.mark.parametrize("other_finishes", [False, True])
def test_a_worker_that_was_taken_for_dead_leaves_one_line(tmp_path: Path, kind: str, other_finishes: bool) -> None:
    first, second = (Board(storage(tmp_path, kind), "tiny") for _ in range(2))
    first.offer(["a"])

    def run(key: str) -> dict[str, Any]:
        trial = next(trial for trial in second.study.trials if trial.state.name == "RUNNING")
        second.study.tell(trial.number, state=trial.state.FAIL)
        second.study.enqueue_trial({}, user_attrs={"cell": key})
        if other_finishes:
            assert second.work(lambda key: {"by": "second"}) == "a"
        return {"by": "first"}

    assert first.work(run) == "a"
    expected = [{"by": "second" if other_finishes else "first"}]
    assert first.lines() == second.lines() == expected
    assert second.work(lambda key: pytest.fail("the cell is finished")) is None
    assert (second.lines(), second.waiting(), second.failures()) == (expected, 0, {})


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed:UserWarning")  # Optuna's, for ask
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_worker_that_died_before_it_signed_leaves_its_cell(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(storage(tmp_path, kind), "tiny")
    board.offer(["a"])
    board.study.ask()
    board.release()
    assert (board.waiting(), board.running()) == (0, 1)
    monkeypatch.setattr("contraverse.pipeline.board.GRACE", -1)
    board.release()
    assert (board.waiting(), board.running()) == (1, 0)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed:UserWarning")  # Optuna's, for ask
def test_another_hosts_worker_without_a_sign_of_life_leaves_even_the_last_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contraverse.pipeline.board.GRACE", 1)
    board = Board(storage(tmp_path), "tiny")
    board.offer(["a"])
    trial = board.study.ask()
    trial.set_user_attr("worker", "elsewhere:1")
    board.study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    board.release()
    assert board.waiting() == 0
    time.sleep(2.5)  # the database counts whole seconds
    board.release()
    assert board.waiting() == 1
    assert board.study.trials[-1].user_attrs == {"cell": "a"}  # without the dead worker's name


def test_results_have_one_line_a_cell_and_outlive_a_torn_one(tmp_path: Path) -> None:
    cells = list(ready(study(), NONE))
    lines = [line(cell) for cell in cells]
    results = tmp_path / "results.jsonl"
    append_lines(results, lines[:2], cells)
    with results.open("a") as file:
        file.write(json.dumps(lines[2])[:40])  # a worker that was killed
    append_lines(results, lines[1:4] + lines[3:], cells)
    assert read_lines(results) == lines


def test_lines_of_other_machines_are_in_everybodys_results(tmp_path: Path) -> None:
    def train(cell: Cell, folder: Path) -> dict[str, Any]:
        return line(cell)

    for name in ("here.jsonl", "there.jsonl"):
        run_study(study(), tmp_path, storage(tmp_path), results=tmp_path / name, train=train)
        assert len(read_lines(tmp_path / name)) == 9


# tables


def finished(**accuracy: float) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    lines = []
    for cell in ready(study(), NONE):
        value = accuracy[cell.method.partition(",")[0]] + random.choice([0.0, 5.0])
        lines.append(line(cell, value))
    return lines


def test_a_table_has_means_deviations_and_paired_differences() -> None:
    lines = finished(ce=60.0, at=60.0, scal=80.0)
    table = tabulate(lines, "text", [("scal, small", "ce"), ("at", "ce")], list(WRITTEN["methods"]))
    values = [one["metrics"]["accuracy"] for one in lines if one["method"] == "ce"]
    assert table.means["ce", "accuracy"].mean == pytest.approx(np.mean(values))
    assert table.means["ce", "accuracy"].deviation == pytest.approx(np.std(values, ddof=1))
    by_pair = {(c.first, c.metric): c for c in table.comparisons}
    clear = by_pair["scal, small", "accuracy"]
    assert (clear.paired.seeds, clear.paired.rows) == (3, 20)
    assert by_pair["scal, small", "accuracy@apgd-0.1"].paired.rows == 1
    assert clear.corrected >= clear.paired.p_value
    text = markdown(replace(table, printed={"ce": {"accuracy": 91.5}}))
    assert "(printed 91.5)" in text
    assert f"{clear.paired.difference:+.1f} [" in text
    assert text.count("\n| ce ") == 1
    assert r"\toprule" in latex(table)
    assert len(csv_lines([table]).splitlines()) == 1 + 3 * 2 + 2 * 2


def test_seeds_that_only_one_method_has_are_not_paired() -> None:
    lines = [one for one in finished(ce=60.0, at=60.0, scal=80.0) if one["method"] != "at" or one["seed"] != 2]
    table = tabulate(lines, "text", [("at", "ce")], list(WRITTEN["methods"]), ["accuracy"])
    assert table.comparisons[0].paired.seeds == 2
