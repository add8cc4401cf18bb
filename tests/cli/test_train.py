"""From flags to the pipeline, and from what the pipeline does to what the user sees."""

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

from contraverse import pipeline
from contraverse.pipeline import Interrupted, QuickstartResult, RunResult
from contraverse.recipes import configure, load

SMALL = ("--set", "train.num_train_epochs=1", "--set", "train.use_cpu=true", "--set", "evaluation.steps=1")


@pytest.fixture
def start(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls to `pipeline.run`, which is not run."""
    made: list[dict[str, Any]] = []

    def run(config: Any, output: Path, *, resume: bool = False, **others: Any) -> RunResult:
        made.append({"config": config, "output": output, "resume": resume})
        return RunResult(output, "test", {"error_rate": 1.8, "accuracy@pgd-0.3": 76.0}, {"model": output / "model"})

    monkeypatch.setattr(pipeline, "run", run)
    return made


def test_every_flag_is_a_setting(invoke: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("method: {epsilon: .2, alpha: .7}\ntrain: {seed: 1}\n")
    flags = ("--model", "m", "--task", "pair", "--data", "d.csv", "--on-bad-row", "skip", "--label", "l", "--seed", 7)
    columns = ("--text", "a", "--text", "b")
    sets = ("--set", "method.epsilon=.4", "--set", "evaluation.epsilons=[.1,.2]")
    invoke("train", "scal", *flags, *columns, *sets, "--config", tmp_path / "c.yaml", "--output", tmp_path / "run")
    (call,) = calls
    expected = configure(
        "scal",
        task="pair",
        source="d.csv",
        settings={
            "model.name": "m",
            "data.on_bad_row": "skip",
            "data.text": ["a", "b"],
            "data.label": "l",
            "train.seed": 7,
            "method.epsilon": 0.4,
            "method.alpha": 0.7,
            "evaluation.epsilons": [0.1, 0.2],
        },
    )
    assert call == {"config": expected, "output": tmp_path / "run", "resume": False}


def test_set_wins_over_flags_and_one_text_column_is_no_list(invoke: Any, calls: list[dict[str, Any]]) -> None:
    invoke("train", "ce", "--seed", 7, "--set", "train.seed=8", "--text", "body", "--data", "d.csv")
    (call,) = calls
    assert call["config"].train.arguments["seed"] == 8
    assert call["config"].data.text == "body"
    assert call["output"] == Path("runs/ce-text")


def test_a_runs_configuration_is_the_run(invoke: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    config = configure("at", task="trec", source="d", settings={"method.epsilon": 0.2})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    invoke("train", "--config", tmp_path / "config.yaml", "--output", tmp_path / "again")
    assert calls[0]["config"] == config


def test_resume_takes_the_configuration_from_the_folder(
    invoke: Any, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = configure("at", task="trec", source="d")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    invoke("train", "--output", tmp_path, "--resume")
    assert calls == [{"config": config, "output": tmp_path, "resume": True}]


def test_there_must_be_something_to_resume(invoke: Any, tmp_path: Path) -> None:
    assert "nothing to resume" in invoke("train", "--output", tmp_path, "--resume", code=2).stderr
    assert "--output" in invoke("train", "--resume", code=2).stderr


def test_figures_and_places_are_shown_in_the_end(invoke: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    shown = invoke("train", "ce", "--data", "d.csv", "--output", tmp_path / "run").stdout
    assert "76.00" in shown
    assert "1.80" in shown
    assert str(tmp_path / "run" / "model") in shown


def test_interruption_tells_the_command_that_goes_on(
    invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(config: Any, output: Path, **others: Any) -> RunResult:
        raise Interrupted(output / "checkpoints" / "checkpoint-7")

    monkeypatch.setattr(pipeline, "run", run)
    output = tmp_path / "my run"
    result = invoke("train", "ce", "--data", "d.csv", "--output", output, code=130)
    assert "checkpoint-7" in result.stderr
    assert f"contraverse train --output '{output}' --resume" in result.stderr


def test_dry_run_prints_a_configuration_that_repeats_it_and_writes_nothing(
    invoke: Any, calls: list[dict[str, Any]], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("train", "scal", "--data", rows, "--set", "method.epsilon=.2", "--dry-run")
    assert "18 rows: no 9, yes 9" in result.stderr
    assert sorted(tmp_path.iterdir()) == [rows]
    assert calls == []
    (tmp_path / "c.yaml").write_text(result.stdout)
    assert load(tmp_path / "c.yaml") == configure("scal", source=str(rows), settings={"method.epsilon": 0.2})


def test_dry_run_does_not_ask_the_hub(invoke: Any) -> None:
    assert "SetFit/TREC-QC" in invoke("train", "scal", "--task", "trec", "--dry-run").stderr


def test_dry_run_tells_what_is_wrong_with_the_data(invoke: Any, tmp_path: Path) -> None:
    assert "none.csv" in invoke("train", "ce", "--data", tmp_path / "none.csv", "--dry-run", code=2).stderr
    assert "--data" in invoke("train", "ce", "--dry-run", code=2).stderr


@pytest.mark.parametrize(
    ("output", "settings", "words"),
    [
        ("file", [], "needs a folder"),
        ("file/run", [], "needs a folder"),
        ("file/deeper/run", [], "needs a folder"),
        ("run", ["--set", "train.metric_for_best_model=nonsense"], 'no metric of validation is called "nonsense"'),
        ("run", ["--set", "train.metric_for_best_model=robust_accuracy"], "evaluation.robust_validation"),
    ],
)
def test_dry_run_refuses_what_the_run_would_before_it_loads_the_model(
    invoke: Any, rows: Path, tmp_path: Path, output: str, settings: list[str], words: str
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["train", "ce", "--data", rows, "--output", tmp_path / output, *settings]
    assert words in invoke(*arguments, "--dry-run", code=2).stderr
    assert not (tmp_path / "run").exists()


def test_dry_run_shows_every_stage(
    invoke: Any, calls: list[dict[str, Any]], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--data", rows, "--set", "stages.itpt.train.num_train_epochs=4", "--seed", 5)
    result = invoke("train", "itpt", *given, "--dry-run")
    assert "[1-itpt] from minilm" in result.stderr
    assert "  num_train_epochs: 4" in result.stderr.replace("    ", "  ")
    assert "[2-ce] from 1-itpt/model" in result.stderr
    assert sorted(tmp_path.iterdir()) == [rows]
    (tmp_path / "c.yaml").write_text(result.stdout)
    settings = {"stages.itpt.train.num_train_epochs": 4, "train.seed": 5}
    assert load(tmp_path / "c.yaml") == configure("itpt", source=str(rows), settings=settings)


def test_init_takes_a_finished_runs_model(
    invoke: Any, calls: list[dict[str, Any]], classifier: Path, tmp_path: Path
) -> None:
    run = tmp_path / "first"
    run.mkdir()
    classifier.rename(run / "model")
    (run / "config.yaml").write_text(configure("ce").to_yaml())
    args = ("train", "scal", "--data", "d.csv", "--init", run)
    assert "not finished" in invoke(*args, code=2).stderr
    (run / "evaluation.json").write_text("{}")
    invoke(*args)
    assert [call["config"].model.name for call in calls] == [str(run / "model")]
    assert "--init and --model" in invoke(*args, "--model", "minilm", code=2).stderr
    assert "no run and no model" in invoke("train", "ce", "--init", tmp_path / "none", code=2).stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "no recipe is named"),
        (["itpt", "--set", "stages.itp.train.seed=1"], 'did you mean "itpt"?'),
        (["scla"], 'did you mean "scal"?'),
        (["scal", "--set", "method.epsilom=1"], 'did you mean "epsilon"?'),
        (["scal", "--set", "method.epsilon=-1"], "greater than 0"),
        (["scal", "--set", "epsilon"], "key=value"),
        (["scal", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_stop_a_run_before_it_starts(
    invoke: Any, calls: list[dict[str, Any]], args: list[str], says: str
) -> None:
    assert says in invoke("train", *args, code=2).stderr
    assert calls == []


def test_quickstart_compares_its_runs(invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def quickstart(output: Path, say: Any, counting: Any) -> QuickstartResult:
        runs = {
            name: RunResult(output / name, "test", {"accuracy": 96.4, "accuracy@pgd-0.3": robust}, {})
            for name, robust in (("ce", 42.8), ("scal", 76.0))
        }
        return QuickstartResult(runs, output / "report.html")

    monkeypatch.setattr(pipeline, "quickstart", quickstart)
    shown = invoke("quickstart", "--output", tmp_path / "q").stdout
    assert all(part in shown for part in ("ce", "scal", "42.80", "76.00", str(tmp_path / "q" / "report.html")))


def test_a_run_from_start_to_finish(invoke: Any, start: Path, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    args = ("train", "scal", "--model", start, "--data", rows, "--output", output, *SMALL)
    result = invoke(*args)
    assert "Accuracy" in result.stdout
    assert str(output / "model") in result.stdout
    assert all((output / name).exists() for name in ("config.yaml", "evaluation.json", "model", "report.html"))
    assert "a finished run is here" in invoke(*args, code=2).stderr
    assert "Accuracy" in invoke("train", "--output", output, "--resume").stdout
    invoke("evaluate", output, "--eps", "none", "--output", tmp_path / "e.json")
    invoke("predict", output, rows, "--output", tmp_path / "p.csv")


def test_a_run_from_another_tells_of_its_new_classes(invoke: Any, start: Path, rows: Path, tmp_path: Path) -> None:
    few = ("--set", "evaluation.epsilons=[]", *SMALL)
    invoke("train", "ce", "--model", start, "--data", rows, "--output", tmp_path / "first", *few)
    rows.write_text(rows.read_text().replace(",yes", ",agree"))
    said = invoke("train", "ce", "--init", tmp_path / "first", "--data", rows, "--output", tmp_path / "next", *few)
    assert "tells no, yes apart: the classifier is drawn anew" in said.stderr
    notes = json.loads((tmp_path / "next" / "evaluation.json").read_text())["notes"]
    assert any("drawn anew" in note for note in notes)


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_the_printed_command_goes_on_from(
    start: Path, rows: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = [sys.executable, "-c", "from contraverse.cli import main; main()", "train"]
    long = ["--set", "train.num_train_epochs=80", "--set", "train.early_stopping_patience=null"]
    args = ["ce", "--model", str(start), "--data", str(rows), "--output", str(output), *SMALL, *long]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *args], stderr=subprocess.PIPE, env=one_thread)
    deadline = time.monotonic() + 60
    while not list(output.glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (output / "model").exists()
    assert f"contraverse train --output {output} --resume" in said.decode()
    resumed = subprocess.run(
        [*command, "--output", str(output), "--resume"], capture_output=True, env=one_thread, check=True
    )
    assert "Accuracy" in resumed.stdout.decode()
    training = json.loads((output / "evaluation.json").read_text())["training"]
    assert training["steps"] == 80
