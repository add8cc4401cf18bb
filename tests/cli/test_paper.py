"""``--paper`` on the command line, with local stand-ins for what the Hub has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contraverse.data import TASKS
from contraverse.recipes import RECIPES, configure, load

KINDS = [
    (name, recipe.experiments[0].tasks[-1])
    for name, recipe in RECIPES.items()
    if recipe.experiments and recipe.experiments[0].tasks[0] in TASKS
]


@pytest.fixture
def local(tmp_path: Path) -> Callable[[str], Path]:
    """``local("trec")``: a folder with a few rows of the task, in three splits."""

    def make(name: str) -> Path:
        task = TASKS[name]
        folder = tmp_path / name
        folder.mkdir()
        for split in ("train", "validation", "test"):
            with (folder / f"{split}.jsonl").open("w") as file:
                for i in range(24):
                    row = {column: f"good work {split} {column} {i}" for column in task.columns}
                    if task.label:
                        row[task.label] = (task.labels or ())[i % len(task.labels or ())]
                    file.write(json.dumps(row) + "\n")
        return folder

    return make


@pytest.mark.parametrize(("recipe", "task"), KINDS)
def test_each_papers_experiment_is_planned_on_a_local_model_and_rows(
    invoke: Any, tiny_folder: Callable[..., Path], local: Callable[[str], Path], tmp_path: Path, recipe: str, task: str
) -> None:
    rows, model = local(task), tiny_folder("bert")
    args = ("train", recipe, "--task", task, "--paper", "--model", model, "--data", rows)
    # Table 9 draws more rows than these, and the STS sets are on the Hub.
    own = "data.rows=all" if TASKS[task].labelled else f"evaluation.sts={pairs(tmp_path)}"
    result = invoke(*args, "--set", own, "--dry-run")
    (tmp_path / "c.yaml").write_text(result.stdout)
    config = load(tmp_path / "c.yaml")
    assert (config.paper, config.recipe, config.model.name) == (True, recipe, str(model))
    assert "not read: on the Hub" not in result.stderr
    assert "24 rows" in result.stderr
    assert f"paper       {RECIPES[recipe].experiments[0].source}; paper scale: not run" in result.stderr
    assert f"differs     model.name: {model} (with --paper: " in result.stderr


def pairs(folder: Path) -> Path:
    (folder / "pairs.csv").write_text("sentence1,sentence2,score\ngood work,the way,1\nthe house,no good,2\n")
    return folder / "pairs.csv"


def test_the_dry_run_says_what_is_needed_what_differs_and_what_is_ours(invoke: Any) -> None:
    said = invoke("train", "carl", "--task", "ag_news", "--paper", "--set", "method.gamma=.1", "--dry-run").stderr
    assert "fancyzhx/ag_news is not read: on the Hub" in said
    assert "albert/albert-base-v2 is not read: on the Hub" in said
    assert "differs     method.gamma: 0.1 (with --paper: 0.0)" in said
    assert "ours        train.lr_scheduler_type: constant (constant, without warm-up; 4.3 names no schedule)" in said
    plain = invoke("train", "carl", "--task", "ag_news", "--dry-run").stderr
    assert "differs     model.name: minilm (with --paper: albert/albert-base-v2)" in plain
    own = invoke("train", "carl", "--task", "trec", "--dry-run").stderr
    assert "paper       none has an experiment of carl on trec" in own


def test_a_task_that_no_paper_ran_is_refused(invoke: Any) -> None:
    said = invoke("train", "carl", "--task", "trec", "--paper", "--dry-run", code=2).stderr
    assert "no paper's experiment of carl on trec" in said
    assert "sst2, yahoo_answers, yelp_polarity, ag_news" in said


def test_recipes_are_listed_with_their_experiments_and_what_is_ours(invoke: Any) -> None:
    listed = {row["name"]: row for row in json.loads(invoke("list", "recipes", "--json").stdout)}
    assert all(row["run"].startswith("paper scale: ") for row in listed.values())
    (first, *_) = listed["carl"]["experiments"]
    assert (first["tasks"], first["model"]) == (["sst2"], "albert/albert-base-v2")
    assert first["settings"]["method.gamma"] == 0.6
    assert {"setting", "why"} == set(first["ours"][0])
    table = invoke("list", "recipes").stdout
    for part in ("albert/albert-base-v2", "train.lr_scheduler_type", "paper scale: not run"):
        assert part in table


def test_a_search_of_the_papers_experiment_varies_what_the_paper_did(
    invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contraverse import pipeline

    plans = []

    def search(plan: Any, output: Path, **others: Any) -> Any:
        plans.append(plan)
        return pipeline.SearchResult(output, "f1", [], None, output / "best.yaml")

    monkeypatch.setattr(pipeline, "search", search)
    invoke("search", "scal", "--task", "mrpc", "--paper", "--trials", 5, "--timeout", 0)
    (plan,) = plans
    assert plan.config == configure("scal", task="mrpc", paper=True)
    assert plan.space == {"method.epsilon": [0.1, 0.2, 0.3, 0.4, 0.5]}
