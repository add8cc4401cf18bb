"""Studies on local rows, workers without a table, and the page's example: a method is added by one line."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contraverse.errors import UserError
from contraverse.evaluation.paired import pack_rows
from contraverse.recipes.study import Cell, Finished, load_study, ready, with_data

PAGE = Path(__file__).parents[2] / "docs" / "studies.md"


def line(cell: Cell, accuracy: float) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "accuracy@apgd-0.1": accuracy / 2}
    right = pack_rows(np.arange(100) < accuracy + cell.seed)
    place = {"stage": cell.stage, "task": cell.task, "method": cell.method, "settings": {}, "seed": cell.seed}
    return {**place, "metrics": metrics, "right": {"accuracy": right}, "config": json.loads(json.dumps(cell.fields))}


def test_a_method_is_added_by_one_line_and_compared(invoke: Any, tmp_path: Path) -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (added,) = re.findall(r"the line `( *freelb: .*?)` adds three cells", PAGE.read_text(encoding="utf-8"))
    study, results = tmp_path / "mine.yaml", tmp_path / "results.jsonl"
    study.write_text(written, encoding="utf-8")
    cells = list(ready(load_study(study), Finished([])))
    assert len(cells) == 6
    results.write_text("".join(json.dumps(line(cell, 80.0)) + "\n" for cell in cells), encoding="utf-8")
    study.write_text(written.replace("\nsettings:", f"\n{added}\nsettings:"), encoding="utf-8")
    listed = invoke("study", study, "--results", results, "--dry-run").stdout
    assert listed.count("done ") == 6
    assert "9 of 9 cells are known" in listed
    new = [cell for cell in ready(load_study(study), Finished([])) if cell.method == "freelb"]
    with results.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line(cell, 90.0)) + "\n" for cell in new)
    report = invoke("study", "report", study, "--results", results).stdout
    assert "| freelb | 3 | 90.0 " in report
    assert re.search(r"\| freelb - ce \| \+10\.0 \[\+4\.5, \+15\.5\], p \.\d+ ", report)


def test_rows_of_each_task_are_found_in_a_folder(tmp_path: Path) -> None:
    plan = load_study("scal-ablation")
    (tmp_path / "mrpc").mkdir()
    (tmp_path / "cola.csv").touch()
    with pytest.raises(UserError, match="no rows of the task rte"):
        with_data(plan, tmp_path)
    (tmp_path / "rte").mkdir()
    sources = {task: settings["data.source"] for task, settings in with_data(plan, tmp_path).tasks.items()}
    expected = {"mrpc": "mrpc", "cola": "cola.csv", "rte": "rte"}
    assert sources == {task: str(tmp_path / place) for task, place in expected.items()}


def test_a_worker_needs_a_storage_and_an_archive_is_not_trained(invoke: Any) -> None:
    assert "--storage, which is not given" in invoke("study", "scal-small", "--worker", code=2).stderr
    archived = PAGE.parents[1] / "studies" / "archive" / "equal-climbs.yaml"
    assert "an archived study cannot be trained" in invoke("study", archived, code=2).stderr
