"""Shipped studies can be run: every method on every task, on a tiny model of random weights and generated rows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contraverse.data import TASKS
from contraverse.pipeline.dry_run import dry_run
from contraverse.recipes import change, split_stages
from contraverse.recipes.study import cell, choices, load_study, shipped_studies

ROWS = 60


def generated(folder: Path, name: str) -> Path:
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


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_passes_the_dry_run(name: str, tmp_path: Path, tiny_folder: Callable[..., Path]) -> None:
    study, model = load_study(name), str(tiny_folder("bert"))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2,score\ngood work,the way,1\nthe house,no good,2\n", encoding="utf-8")
    for task in study.tasks:
        rows = generated(tmp_path / task, task)
        for label in study.methods:
            config = cell(study, "test", task, label, choices(study, label)[0], study.seeds[0]).config
            local = {"model.name": model, "model.keep_layers": None, "data.source": str(rows)}
            local |= {"data.rows": "all", "data.validation_rows": None, "data.train_rows": None}  # fewer are generated
            if config.evaluation.sts is not None:
                local["evaluation.sts"] = str(pairs)
            for stage in split_stages(change(config, local)):
                result = dry_run(stage)
                assert result.unread == []
                assert result.splits is not None
