"""Shipped studies can be run: each distinct stage takes two training steps, tiny, on generated rows."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contraverse.data import TASKS
from contraverse.pipeline.run import Validation, _train
from contraverse.pipeline.steps import Steps, steps_of
from contraverse.recipes import Stage, change, split_stages
from contraverse.recipes.study import cell, choices, load_study
from contraverse.recipes.study_file import shipped_studies

ROWS = 24
STUDIES = shipped_studies()
FAST = ("acl", "carl-rar")  # with stages on images, and a bank; the others are trained in the slow tests


def texts(folder: Path, name: str) -> Path:
    """A folder with a few rows of the task, in three splits."""
    task = TASKS[name]
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = []
        for i in range(ROWS):
            row = {column: f"good work {split} {column} {i}" for column in task.columns}
            if task.label:
                row[task.label] = (task.labels or ())[i % len(task.labels or ())]
            rows.append(json.dumps(row) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("images") / "images.npz"
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = random.integers(0, 256, (ROWS, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(ROWS) % 10
    np.savez(path, **arrays)
    return path


def stages_of(name: str) -> Iterator[tuple[str, str, Stage]]:
    """Stages of each method on each task, with the task and the label."""
    study = load_study(name)
    for task in study.tasks:
        for label in study.methods:
            config = cell(study, "test", task, label, choices(study, label)[0], study.seeds[0]).config
            for stage in split_stages(config):
                yield config.task, label, stage


def tiny(stage: Stage, rows: Path, model: str, pairs: Path) -> Any:
    """The stage's configuration on few rows, for two steps."""
    config = stage.config
    local: dict[str, Any] = {"data.source": str(rows), "model.name": model, "data.train_rows": None}
    local |= {"data.validation_rows": None, "data.test_rows": None, "evaluation.rows": None}
    local |= {"train.max_steps": 2, "train.global_batch_size": 8, "train.warmup_steps": 0, "train.save_strategy": "no"}
    local |= {"train.eval_strategy": "no", "train.load_best_model_at_end": False, "train.logging_steps": 1}
    local |= {"train.metric_for_best_model": None, "train.early_stopping_patience": None}
    local |= {"train.disable_tqdm": True, "train.report_to": "none", "train.bf16": False, "train.fp16": False}
    local |= {"train.schedule": None}
    if model == "resnet8":
        local |= {"data.labels": None, "data.clusters": None, "task": "images"}
        local |= {"method.steps": 2} if "steps" in config.method.settings else {}
    else:
        local |= {"data.rows": "all", "model.keep_layers": None, "model.max_length": 16}
        local |= {"evaluation.sts": str(pairs)} if config.evaluation.sts is not None else {}
        local |= {"method.negatives": 8} if "negatives" in config.method.settings else {}
    return change(config, local)


def two_steps(steps: Steps[Any, Any], folder: Path) -> list[dict[str, Any]]:
    """Train without measuring or saving, and return the log."""
    splits = steps.load_and_prepare(test=True)
    model, _ = steps.init_model(splits)
    if steps.method.teacher == "targets":
        train = splits.need("train")
        steps.method.set_targets(torch.randn(len(train), len(train.label_names)))
    plan = Validation({}, steps.config.train.arguments, None, [])
    trainer, _ = _train(steps, folder, False, splits, plan, model, lambda line: None)
    return [line for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in STUDIES
        if not name.endswith("-small")
    ],
)
def test_each_stage_of_a_study_takes_two_steps(
    name: str, tmp_path: Path, tiny_folder: Callable[..., Path], images: Path
) -> None:
    encoder, pairs = str(tiny_folder("bert")), tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2,score\ngood work,the way,1\nthe house,no good,2\n", encoding="utf-8")
    trained: set[str] = set()
    for task, label, stage in stages_of(name):
        of_images = not hasattr(stage.config.model, "max_length")
        task = stage.config.task if not of_images else task
        rows = images if of_images else tmp_path / task
        if not rows.exists():
            texts(rows, task)
        config = tiny(stage, rows, "resnet8" if of_images else encoder, pairs)
        distinct = json.dumps([config.method.model_dump(), config.model.model_dump(), of_images or task])
        if distinct in trained:
            continue
        trained.add(distinct)
        log = two_steps(steps_of(config), tmp_path / f"run-{len(trained)}")
        assert len(log) == 2, label
        assert all(np.isfinite(line["loss"]) for line in log), label
    assert trained
