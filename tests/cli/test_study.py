"""``contraverse study`` from a file to a table, with a real training of each cell."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contraverse.evaluation.paired import unpack_rows
from contraverse.pipeline.study import read_lines


@pytest.fixture
def file(tmp_path: Path, rows: Path, tiny_folder: Callable[..., Path]) -> Path:
    written = {
        "name": "tiny",
        "question": "Does adversarial training help?",
        "tasks": {"text": {"data.source": str(rows)}},
        "methods": {"ce": {"recipe": "ce"}, "at": {"recipe": "at", "space": {"method.epsilon": [0.1, 0.2]}}},
        "select": {"criterion": ["accuracy@apgd-0.1"], "seeds": [7]},
        "settings": {
            "model.name": str(tiny_folder()),
            "model.max_length": 16,
            "train.num_train_epochs": 1,
            "evaluation.epsilons": [0.1],
            "evaluation.shift": True,
        },
        "seeds": [1, 2],
        "baseline": "ce",
        "printed": {"text": {"at": {"accuracy": 90.1}}},
    }
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(written), encoding="utf-8")
    return path


def test_a_study_ends_with_a_table_and_goes_on_from_its_lines(invoke: Any, file: Path, tmp_path: Path) -> None:
    results, flags = tmp_path / "kept" / "tiny.jsonl", ("--output", tmp_path / "out")
    listed = invoke("study", file, "--dry-run", *flags).stdout
    assert "4 of 6 cells" in listed
    assert "--probe" in listed
    assert "7F" in listed
    probed = invoke("study", file, "--dry-run", "--probe", *flags).stdout
    assert "on one worker for what is left, by a few steps" in probed
    assert not (tmp_path / "out").exists()
    done = invoke("study", file, *flags, "--results", results)
    assert "6 of 6 cells are done, 0 failed" in done.stderr
    assert "(printed 90.1)" in done.stdout
    assert "at - ce" in done.stdout
    lines = read_lines(results)
    assert [line["stage"] for line in lines] == ["select", "select", "test", "test", "test", "test"]
    assert {line["split"] for line in lines if line["stage"] == "select"} == {"validation"}
    for line in lines[2:]:
        right = unpack_rows(line["right"]["accuracy@apgd-0.1"])
        assert 100 * right.mean() == pytest.approx(line["metrics"]["accuracy@apgd-0.1"])
        assert {"cosine@0.1", "euclidean@0.1"} <= line["metrics"].keys()
    assert "6 of 6 cells are known" in invoke("study", file, "--dry-run", "--results", results).stdout
    assert not list((tmp_path / "out" / "cells").iterdir())
    # The lines alone say what is done.
    again = invoke("study", file, "--output", tmp_path / "elsewhere", "--results", results)
    assert len(read_lines(results)) == 6
    assert again.stdout == done.stdout == invoke("study", "report", file, *flags, "--results", results).stdout
    assert "accuracy,at,ce," in invoke("study", "report", file, "--results", results, "--format", "csv").stdout
    assert r"\begin{tabular}" in invoke("study", "report", file, "--results", results, "--format", "latex").stdout


def test_a_report_of_nothing_and_a_missing_file_are_told(invoke: Any, tmp_path: Path) -> None:
    assert "contraverse study report FILE" in invoke("study", "report", code=2).stderr
    assert "cannot be read" in invoke("study", tmp_path / "none.yaml", code=2).stderr


def test_shipped_studies_are_listed_and_found_by_name(invoke: Any) -> None:
    listed = invoke("study", "list").stdout
    assert "scal-glue        paper" in listed
    assert "carl-rar-small   small" in listed
    plan = invoke("study", "carl-rar-small", "--dry-run").stdout
    assert "20 of 20 cells are known" in plan
    assert "test trec rar seed 1" in plan
