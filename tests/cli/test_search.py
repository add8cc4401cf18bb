"""From flags to a search, and what its user sees."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contraverse import pipeline
from contraverse.errors import UserError
from contraverse.pipeline import Interrupted, SearchResult, Trial
from contraverse.recipes import SearchConfig, configure, space_of

TRIALS = [
    Trial(0, {"method.epsilon": None}, 90.5, {"accuracy": 90.5}, 12.0),
    Trial(1, {"method.epsilon": 0.25}, None, {}, 3.0, "RuntimeError: [no] memory"),
    Trial(2, {"method.epsilon": 0.4}, 91.25, {"accuracy": 91.25}, 13.0),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def search(plan: SearchConfig, output: Path, **others: Any) -> SearchResult:
        made.append({"plan": plan, "output": output, **others})
        return SearchResult(output, "accuracy", TRIALS, TRIALS[2], output / "best.yaml")

    monkeypatch.setattr(pipeline, "search", search)
    return made


def test_flags_make_a_plan(invoke: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    flags = ("--trials", 3, "--task", "trec", "--data", "d", "--model", "m", "--set", "train.seed=3", "--seed", 5)
    ranges = ("--space", "method.epsilon=.1:1:log", "--space", "method.attack=[fgm, fgsm]")
    invoke("search", "at", *flags, *ranges, "--robust", 0.5, "--timeout", 60, "--output", tmp_path / "s")
    (call,) = calls
    config = configure("at", task="trec", source="d", settings={"model.name": "m", "train.seed": 3})
    space = {"method.epsilon": ".1:1:log", "method.attack": ["fgm", "fgsm"]}
    assert call["plan"] == SearchConfig(config=config, space=space, trials=3, seed=5, robust=0.5)
    assert (call["output"], call["resume"], call["timeout"]) == (tmp_path / "s", False, 60)


def test_without_flags_the_methods_own_space_is_searched(invoke: Any, calls: list[dict[str, Any]]) -> None:
    said = invoke("search", "scal", "--data", "d.csv").stderr
    assert calls[0]["plan"] == SearchConfig(config=configure("scal", source="d.csv"), space=space_of("scal"), trials=20)
    assert calls[0]["output"] == Path("runs/search-scal-text")
    assert "method.alpha in .01:1:log" in said


def test_resume_takes_the_plan_from_the_folder(invoke: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    plan = SearchConfig(config=configure("scal", source="d"), space=space_of("scal"), trials=4, seed=9, robust=0.5)
    (tmp_path / "search.yaml").write_text(plan.to_yaml())
    invoke("search", "--output", tmp_path, "--resume")
    invoke("search", "--output", tmp_path, "--resume", "--trials", 6)
    assert [call["plan"] for call in calls] == [plan, plan.model_copy(update={"trials": 6})]
    assert all(call["resume"] for call in calls)
    assert "--output" in invoke("search", "--resume", code=2).stderr
    assert "takes the settings" in invoke("search", "scal", "--output", tmp_path, "--resume", code=2).stderr
    assert "nothing to resume" in invoke("search", "--output", tmp_path / "none", "--resume", code=2).stderr


def test_the_best_trials_are_shown_with_what_varied(invoke: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    shown = invoke("search", "at", "--trials", 3, "--space", "method.epsilon=.1:1", "--output", tmp_path / "s").stdout
    assert shown.index("91.25") < shown.index("90.50")
    assert all(part in shown for part in ("method.epsilon", "0.4", "null", "1 of which failed"))
    assert f"contraverse train --config {tmp_path}/s/best.yaml" in shown


def test_interruption_tells_the_command_that_goes_on(
    invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for error in (Interrupted(tmp_path / "checkpoint-7"), KeyboardInterrupt()):

        def search(*args: Any, error: BaseException = error, **others: Any) -> SearchResult:
            raise error

        monkeypatch.setattr(pipeline, "search", search)
        said = invoke("search", "ce", "--output", tmp_path / "my search", code=130).stderr
        assert f"contraverse search --output '{tmp_path}/my search' --resume" in said


def test_where_all_fail_the_first_reason_is_told(invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = SearchResult(tmp_path, "accuracy", TRIALS[1:2], None, tmp_path / "best.yaml")
    monkeypatch.setattr(pipeline, "search", lambda *args, **others: done)
    said = invoke("search", "ce", "--trials", 1, code=2).stderr
    assert "all 1 trials failed" in said
    assert "RuntimeError: [no] memory" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "no recipe is named"),
        (["scla"], 'did you mean "scal"?'),
        (["scal", "--space", "method.epsilon"], "key=low:high"),
        (["scal", "--space", "method.epsilon=1"], "no range"),
        (["scal", "--space", "method.epsilom=1:2"], 'did you mean "epsilon"?'),
        (["scal", "--data", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_mistakes_stop_a_search_before_it_starts(
    invoke: Any, args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in invoke("search", *args, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_search_from_start_to_finish(
    invoke: Any, tiny_folder: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    small = ("--set", "train.num_train_epochs=1", "--set", "evaluation.epsilons=[]", "--set", "train.use_cpu=true")
    args = ("search", "ce", "--model", tiny_folder(), "--data", rows, "--output", tmp_path / "s", *small)
    result = invoke(*args, "--trials", 2)
    assert "trial 2/2" in result.stderr
    assert "The best of 2 trials" in result.stdout
    assert "a search is here" in invoke(*args, code=2).stderr
    invoke("train", "--config", tmp_path / "s" / "best.yaml", "--output", tmp_path / "run")
    rows_written = [json.loads(line) for line in (tmp_path / "s" / "trials.jsonl").read_text().splitlines()]
    best = max(rows_written, key=lambda row: row["value"])
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["training"]["best_validation"] == pytest.approx(best["value"])


def test_an_unknown_mistake_of_the_search_is_the_users(
    invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def search(*args: Any, **others: Any) -> SearchResult:
        raise UserError("a search needs Optuna", hint="pip install 'contraverse[search]'")

    monkeypatch.setattr(pipeline, "search", search)
    assert "contraverse[search]" in invoke("search", "ce", code=2).stderr
