"""A search as its user has it: trials, their record, the winner, and what happens when it is cut short."""

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contraverse.data import load_splits
from contraverse.errors import UserError
from contraverse.evaluation import StsbDev, TaskEvaluator
from contraverse.models import TextModel
from contraverse.pipeline import Interrupted, run, search
from contraverse.pipeline.search import score
from contraverse.recipes import SearchConfig, change, configure

pytest.importorskip("optuna")
Configured = Callable[..., Any]
MODULE = importlib.import_module("contraverse.pipeline.search")
SPACE = {"method.epsilon": ".1:1:log", "train.learning_rate": "1e-4:1e-2:log"}


@pytest.fixture
def plan(configured: Configured, rows: Path) -> Callable[..., SearchConfig]:
    def make(recipe: str = "at", *, source: Path = rows, space: Any = None, trials: int = 3, **more: Any) -> Any:
        settings = more.pop("settings", {})
        config = configured(recipe, source, **{"train.num_train_epochs": 1, **settings})
        return SearchConfig(config=config, space=space or SPACE, trials=trials, **more)

    return make


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()]


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": None} for line in lines(folder)]


def test_trials_are_recorded_and_the_winner_is_a_configuration(plan: Any, rows: Path, tmp_path: Path) -> None:
    said: list[str] = []
    made = plan()
    done = search(made, tmp_path / "s", say=said.append)
    recorded = lines(tmp_path / "s")
    assert [line["trial"] for line in recorded] == [0, 1, 2] == [trial.trial for trial in done.trials]
    assert len({json.dumps(line["settings"]) for line in recorded}) == 3
    assert [line.split("  ")[0] for line in said] == ["trial 1/3", "trial 2/3", "trial 3/3"]
    assert done.best is not None
    assert done.best.value == max(line["value"] for line in recorded)
    assert done.best.value == done.best.metrics["accuracy"]
    # The best one's settings, the rest as it was, the test rows and the attack included.
    best = configure(file=done.config)
    assert best == change(made.config, done.best.settings)
    assert best.evaluation == made.config.evaluation
    run(best, tmp_path / "run")
    model = TextModel.load(tmp_path / "run" / "model")
    validation = load_splits("text", rows).need("validation")
    assert TaskEvaluator(validation, ("accuracy",))(model)["accuracy"] == pytest.approx(done.best.value)
    left = {path.name for path in (tmp_path / "s").rglob("*")}
    assert not {"model", "checkpoints", "model.safetensors"} & left
    assert {"metrics.jsonl", "evaluation.json"} <= left
    seeds = {
        configure(file=tmp_path / "s" / "trials" / f"00{i}" / "config.yaml").train.arguments["seed"] for i in range(3)
    }
    assert seeds == {42}


@pytest.mark.parametrize(
    ("recipe", "robust"), [("at", None), pytest.param("at", 0.5, marks=pytest.mark.slow), ("itpt", None)]
)
def test_the_test_rows_decide_nothing(recipe: str, robust: float | None, plan: Any, rows: Path, tmp_path: Path) -> None:
    """With the labels of all test rows turned round, every line is the same."""
    settings = {"stages.itpt.train.num_train_epochs": 1} if recipe == "itpt" else {}
    space = {"train.learning_rate": "1e-4:1e-2:log"}
    made = plan(recipe, space=space, trials=1 if settings else 2, robust=robust, settings=settings)
    search(made, tmp_path / "one")
    text = (rows / "test.csv").read_text(encoding="utf-8")
    turned = text.replace(",yes", ",?").replace(",no", ",yes").replace(",?", ",no")
    assert turned != text
    (rows / "test.csv").write_text(turned, encoding="utf-8")
    search(made, tmp_path / "other")
    assert timeless(tmp_path / "one") == timeless(tmp_path / "other")
    for file in (tmp_path / "one").rglob("evaluation.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert found["split"] in ("validation", "none")
        assert "test" not in found["rows"]


def test_robust_accuracy_has_its_weight(plan: Any, tmp_path: Path) -> None:
    done = search(
        plan(robust=0.25, trials=1, settings={"evaluation.epsilons": [0.1, 0.5], "evaluation.attack": "pgd"}),
        tmp_path / "s",
    )
    (trial,) = done.trials
    attacked = [trial.metrics[f"accuracy@pgd-{epsilon}"] for epsilon in (0.1, 0.5)]
    assert trial.value == pytest.approx(0.75 * trial.metrics["accuracy"] + 0.25 * sum(attacked) / 2, abs=1e-5)


def test_the_score() -> None:
    metrics = {"mcc": 40.0, "accuracy": 80.0, "accuracy@pgd-0.1": 60.0, "accuracy@pgd-0.3": 20.0}
    assert score(metrics, "mcc", None) == 40
    assert score(metrics, "mcc", 0.5) == pytest.approx(0.5 * 40 + 0.5 * 40)
    assert score(metrics, "accuracy", 1.0) == pytest.approx(40)
    own = metrics | {"mcc@pgd-0.1": 30.0, "mcc@pgd-0.3": -50.0}
    assert score(own, "mcc", 0.5) == pytest.approx(0.5 * 40 + 0.5 * 15)
    assert score({"mcc": -10.0}, "mcc", None) == 0
    for wrong in ({"accuracy": float("nan")}, {"accuracy": 90.0, "accuracy@pgd-1": float("nan")}):
        with pytest.raises(ValueError, match="finite"):
            score(wrong, "accuracy", 0.5 if len(wrong) > 1 else None)


def test_a_search_that_was_stopped_ends_as_one_that_was_not(plan: Any, tmp_path: Path, ctrl_c: Any) -> None:
    made = plan(trials=3, settings={"train.num_train_epochs": 3})
    search(made, tmp_path / "whole")
    ctrl_c(during=2)
    with pytest.raises(Interrupted):
        search(made, tmp_path / "cut")
    assert len(lines(tmp_path / "cut")) == 1
    with (tmp_path / "cut" / "trials.jsonl").open("a") as file:
        file.write('{"trial": 1, "sett')  # as a kill leaves it
    with pytest.raises(UserError, match="a search is here"):
        search(made, tmp_path / "cut")
    search(made, tmp_path / "cut", resume=True)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
    assert (tmp_path / "whole" / "best.yaml").read_text() == (tmp_path / "cut" / "best.yaml").read_text()


def failing(monkeypatch: pytest.MonkeyPatch, errors: dict[int, BaseException]) -> None:
    """Runs that train nothing: a figure of their settings, or for trials of these numbers an error."""

    def fake(config: Any, folder: Path, **others: Any) -> None:
        if int(folder.name) in errors:
            raise errors[int(folder.name)]
        folder.mkdir(parents=True)
        accuracy = 50 + 40 * config.method.settings["epsilon"]
        (folder / "evaluation.json").write_text(json.dumps({"metrics": {"accuracy": accuracy}}), encoding="utf-8")

    monkeypatch.setattr(MODULE, "run", fake)


@pytest.mark.slow
def test_more_trials_go_on_from_the_first_ones(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {3: RuntimeError("no")})
    search(plan(trials=15), tmp_path / "whole")
    for trials in (5, 12, 15):
        search(plan(trials=trials), tmp_path / "grown", resume=trials > 5)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "grown")
    with pytest.raises(UserError, match="settings are not those"):
        search(plan(trials=15, seed=1), tmp_path / "grown", resume=True)
    assert len(search(plan(), tmp_path / "late", timeout=0).trials) == 0


def test_a_failed_trial_is_recorded_and_the_search_goes_on(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, {0: RuntimeError("out of memory\nlots"), 1: UserError("too many layers")})
    done = search(plan(), tmp_path / "s")
    assert [trial.error for trial in done.trials] == ["RuntimeError: out of memory", "too many layers", None]
    assert [trial.value is None for trial in done.trials] == [True, True, False]
    assert done.best is done.trials[2]
    assert "Traceback" in (tmp_path / "s" / "trials" / "000" / "error.txt").read_text()


def test_a_diverged_trial_has_failed(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(config: Any, folder: Path, **others: Any) -> Any:
        done = run(config, folder, **others)
        if folder.name == "001":
            model = TextModel.load(folder / "model")
            next(model.parameters()).data.view(-1)[0] = torch.nan
            model.save(folder / "model")
        return done

    monkeypatch.setattr(MODULE, "run", fake)
    done = search(plan(trials=2), tmp_path / "s")
    assert [trial.value is None for trial in done.trials] == [False, True]
    assert "diverged" in str(done.trials[1].error)


def test_where_every_trial_fails_there_is_no_winner(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, dict.fromkeys(range(3), RuntimeError("no")))
    done = search(plan(), tmp_path / "s")
    assert done.best is None
    assert not done.config.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": {"method.epsilom": ".1:1"}}, "method.epsilom: no such setting"),
        ({"space": {"method.epsilon": "0:1"}}, "greater than 0"),
        ({"space": {"method.epsilon": "1"}}, "no range"),
        ({"settings": {"evaluation.epsilons": []}, "robust": 0.5}, "nothing is attacked"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    changes: Any, says: str, plan: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        search(plan(**changes), tmp_path / "s")
    assert says in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_mistake_in_the_first_trial_leaves_nothing(plan: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep_layers"):
        search(plan(settings={"model.keep_layers": 9}), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_other_folders_are_left_alone(plan: Any, rows: Path, tmp_path: Path) -> None:
    for output, resume, says in (
        (rows, False, "no search"),
        (rows / "train.csv", False, "file"),
        (tmp_path / "none", True, "nothing to resume"),
    ):
        with pytest.raises(UserError, match=says):
            search(plan(), output, resume=resume)
    assert {path.name for path in rows.iterdir()} == {"train.csv", "validation.csv", "test.csv"}


def test_sentence_encoders_are_chosen_on_stsb_dev(plan: Any, sentences: Path, sts: Path, tmp_path: Path) -> None:
    steps = {"train.eval_steps": 2, "train.save_steps": 2}
    with pytest.raises(UserError, match=r"evaluation\.sts"):
        search(plan("uscal", source=sentences, settings=steps), tmp_path / "s")
    done = search(plan("uscal", source=sentences, settings={**steps, "evaluation.sts": str(sts)}), tmp_path / "s")
    assert done.metric == "stsb_spearman"
    assert done.best is not None
    assert set(done.best.metrics) == {"stsb_spearman"}  # and none of the test sets
    run(configure(file=done.config), tmp_path / "run")
    found = StsbDev(sts)(TextModel.load(tmp_path / "run" / "model"))
    assert max(0.0, found["stsb_spearman"]) == pytest.approx(done.best.value, abs=1e-3)


def test_resume_never_removes_a_search(plan: Any, tmp_path: Path, ctrl_c: Any) -> None:
    """F3: the start has gone when the first trial is resumed."""
    start = tmp_path / "start"
    shutil.copytree(plan().config.model.name, start)
    made = plan(settings={"model.name": str(start), "train.num_train_epochs": 3})
    ctrl_c(at=4)
    with pytest.raises(Interrupted):
        search(made, tmp_path / "s")
    start.rename(tmp_path / "gone")
    for _ in range(2):
        with pytest.raises(UserError):
            search(made, tmp_path / "s", resume=True)
        assert (tmp_path / "s" / "search.yaml").is_file()
    (tmp_path / "gone").rename(start)
    assert len(search(made, tmp_path / "s", resume=True).trials) == 3


def test_a_mistake_in_the_first_trial_takes_nothing_of_others_with_it(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(config: Any, folder: Path, **others: Any) -> Any:
        (tmp_path / "s" / "notes.txt").write_text("mine")
        (tmp_path / "s" / "trials").mkdir()
        (tmp_path / "s" / "trials" / "mine").mkdir()
        raise UserError("no such model")

    monkeypatch.setattr(MODULE, "run", fake)
    with pytest.raises(UserError, match="no such model"):
        search(plan(), tmp_path / "s")
    assert sorted(path.relative_to(tmp_path / "s").as_posix() for path in (tmp_path / "s").rglob("*")) == [
        "notes.txt",
        "trials",
        "trials/mine",
    ]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), PermissionError(13, "no")])
def test_faults_of_the_machine_end_a_search(
    error: Exception, plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F12: they are no verdict on the settings."""
    failing(monkeypatch, {1: error})
    with pytest.raises(type(error)):
        search(plan(), tmp_path / "s")
    assert len(lines(tmp_path / "s")) == 1
    failing(monkeypatch, {})
    assert [trial.error for trial in search(plan(), tmp_path / "s", resume=True).trials] == [None] * 3


@pytest.mark.slow
def test_a_trial_that_cannot_be_resumed_is_begun_anew(plan: Any, tmp_path: Path, ctrl_c: Any) -> None:
    """F12: its only checkpoint is torn."""
    made = plan(settings={"train.num_train_epochs": 2})
    search(made, tmp_path / "whole")
    ctrl_c(during=2, at=4)
    with pytest.raises(Interrupted) as stopped:
        search(made, tmp_path / "cut")
    for weights in stopped.value.checkpoint.parent.glob("*/model.safetensors"):
        os.truncate(weights, 100)
    search(made, tmp_path / "cut", resume=True)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")


def test_the_best_configuration_is_written_whenever_it_is_not_there(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F13: killed between the line of a trial and best.yaml."""
    failing(monkeypatch, {})
    done = search(plan(), tmp_path / "s")
    best = done.config.read_bytes()
    for damage in (lambda: done.config.unlink(), lambda: done.config.write_bytes(b"# Trial 9\n")):
        damage()
        assert search(plan(), tmp_path / "s", resume=True).config.read_bytes() == best
