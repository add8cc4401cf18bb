"""Studies with pre-trainings: each is an ordinary stage, trained once for all cells of a seed."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from contraverse.pipeline.study import train_cell
from contraverse.recipes import split_stages
from contraverse.recipes.study import Cell, Finished, cell
from contraverse.recipes.study_file import StudyConfig

SHORT = {"model.name": "resnet8", "train.max_steps": 2, "train.per_device_train_batch_size": 8, "train.bf16": False}
ROWS = {"data.train_rows": 40, "data.test_rows": 16, "data.validation_rows": 10}
PLAN: dict[str, Any] = {
    "name": "tiny",
    "question": "Does pre-training help?",
    "tasks": {
        "half": {"task": "digits", "data.labels": "50%", **ROWS},
        "all": {"task": "digits", **ROWS},
    },
    "settings": SHORT
    | {"method.steps": 1, "evaluation.steps": 1, "train.eval_strategy": "no", "train.load_best_model_at_end": False}
    | {"evaluation.diagnostics": False, "train.metric_for_best_model": None},
    "starts": {
        "simclr": {"recipe": "simclr", "settings": {"train.max_steps": 2, "train.per_device_train_batch_size": 8}}
    },
    "methods": {"random": {"recipe": "trades"}, "simclr": {"recipe": "trades", "start": "simclr"}},
    "seeds": [1],
    "baseline": "random",
}


def first(plan: StudyConfig, task: str, method: str = "simclr", seed: int = 1) -> Cell:
    return cell(plan, "test", task, method, {}, seed)


def test_a_start_is_a_stage_with_its_recipes_settings_and_the_cells_rows() -> None:
    plan = StudyConfig.model_validate(PLAN)
    before, last = split_stages(first(plan, "half", seed=3).config)
    assert (before.config.method.name, last.config.method.name) == ("simclr", "trades")
    assert (before.config.data.labels, last.config.data.labels) == (None, "50%")  # type: ignore[attr-defined]
    assert before.config.data.train_rows == last.config.data.train_rows == 40
    assert before.config.data.views.kind == "simclr"  # type: ignore[attr-defined]
    assert before.config.model.name == last.config.model.name == "resnet8"
    assert before.config.train.arguments["seed"] == 3
    assert before.config.train.optimizer is not None
    assert before.config.train.optimizer.name == "lars"
    assert not first(plan, "half", "random").config.stages


def test_cells_of_a_seed_share_their_pre_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_module = import_module("contraverse.pipeline.run")
    trained: list[str] = []
    train = run_module._train

    def counted(steps: Any, *arguments: Any) -> Any:
        trained.append(steps.config.method.name)
        return train(steps, *arguments)

    monkeypatch.setattr(run_module, "_train", counted)
    plan = StudyConfig.model_validate(PLAN)
    lines = [train_cell(first(plan, task), tmp_path / "cells" / task) for task in ("half", "all")]
    assert trained == ["simclr", "trades", "trades"]
    assert all({"accuracy", "probe"} <= line["metrics"].keys() for line in lines)
    assert len(list((tmp_path / "stages").iterdir())) == 1
    # By itself, without what was kept, a cell comes to the same figures.
    alone = train_cell(first(plan, "all"), tmp_path / "elsewhere" / "cells" / "all")
    assert alone["metrics"] == lines[1]["metrics"]


def test_a_setting_of_a_stage_that_did_not_exist_then_had_todays_default() -> None:
    one = first(StudyConfig.model_validate(PLAN), "half")
    line = {"stage": "test", "task": "half", "method": "simclr", "seed": 1, "settings": {}}
    config = json.loads(one.config.model_dump_json())
    del config["stages"]["start"]["evaluation"]["rows"]
    del config["stages"]["start"]["method"]["head_layers"]
    assert Finished([{**line, "config": config}]).line(one) is not None
    del config["stages"]["start"]["train"]["max_steps"]  # which the study sets
    assert Finished([{**line, "config": config}]).line(one) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"random": {"recipe": "trades", "start": "simclar"}}}, "no start of the study is labelled"),
        ({"printed": {"digits": {"random": {"accuracy": 1.0}}}}, 'the study has no task "digits"'),
        ({"claims": [{"of": "x", "first": "ce", "second": "random", "metrics": ["accuracy"]}]}, "no method of the"),
    ],
)
def test_labels_that_do_not_exist_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudyConfig.model_validate(PLAN | changes)
