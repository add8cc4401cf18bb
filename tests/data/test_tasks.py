import math

import pytest

from contraverse.data import TASKS, Task, get_task, load_splits
from contraverse.errors import UserError

INFERENCE = ["mnli", "mnli-mm", "snli", "fever-nli", "anli_a1", "anli_a2", "anli_a3", "anli"]
NAMES = """mrpc qqp rte qnli sst2 cola ag_news yelp_polarity yahoo_answers trec stsb nli sentences text pair""".split()
NAMES += INFERENCE


def test_every_task_of_the_design_is_there() -> None:
    assert set(TASKS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_consistent(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.summary
    assert 1 <= len(task.columns) <= 3
    assert task.metric == task.metrics[0]
    assert set(task.splits) == {"train", "validation", "test"}
    assert task.max_length > 0
    assert (task.label is None) == (task.kind in ("sentences", "triplets"))
    assert task.labels is None or len(set(task.labels)) == len(task.labels) >= 2
    assert (len(task.columns) == 3) == (task.kind == "triplets")
    assert set(task.aliases.values()) <= set(task.labels or ())
    assert not {name.casefold() for name in task.left_out} & {name.casefold() for name in task.labels or ()}
    assert all(len(layout.texts) == len(task.columns) for layout in task.layouts)
    assert set(task.paper_rows or {}) <= set(task.splits)


def test_the_figures_that_the_papers_print() -> None:
    assert TASKS["mrpc"].metric == "f1"
    assert TASKS["mrpc"].labels == ("not_equivalent", "equivalent")
    assert TASKS["cola"].metric == "mcc"
    assert TASKS["trec"].metric == "error_rate"
    assert TASKS["mnli"].splits["validation"] == "validation_matched"
    assert TASKS["mnli-mm"].splits["validation"] == "validation_mismatched"


@pytest.mark.parametrize("name", INFERENCE)
def test_the_order_of_inference_is_that_of_its_papers(name: str) -> None:
    assert TASKS[name].labels == ("entailment", "neutral", "contradiction")


def test_the_draws_of_table_9() -> None:
    """CARL/RAR, 4.1 and Table 9: rows of each class, and of the whole training split."""
    whole = {
        name: (task.paper_rows["train"] * len(task.labels), task.paper_rows["validation"], task.paper_rows["test"])
        for name, task in TASKS.items()
        if task.paper_rows and task.labels
    }
    assert whole == {
        "yahoo_answers": (60_000, 400, 400),
        "yelp_polarity": (60_000, 1_000, 1_000),
        "ag_news": (60_000, 500, 500),
    }
    assert TASKS["sst2"].paper_rows == {}
    four = ("Society & Culture", "Science & Mathematics", "Health", "Education & Reference")
    assert TASKS["yahoo_answers"].labels == (*four, "Computers & Internet")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match='no task is called "mrcp"') as error:
        get_task("mrcp")
    assert 'did you mean "mrpc"?' in str(error.value)
    assert get_task("mrpc") is TASKS["mrpc"]


def test_a_row_is_all_that_a_new_task_takes(tmp_path) -> None:
    task = Task(
        name="irony",
        summary="Is it meant?",
        kind="classification",
        columns=("utterance",),
        label="meant",
        labels=("no", "yes"),
        metrics=("accuracy",),
        metric="accuracy",
        other_columns=(("Utterance Text",),),
        other_labels=("is_meant",),
    )
    rows = "\n".join(f"{i % 2},{i},sentence number {i}" for i in range(20))
    for header in ("meant,id,utterance", "is_meant,id,Utterance Text"):
        (tmp_path / "train.csv").write_text(f"{header}\n{rows}\n")
        splits = load_splits(task, tmp_path, validation_fraction=0.25)
        assert len(splits.need("train")) == 15
        assert splits.need("train").label_names == ("no", "yes")
        assert splits.need("train").columns == ("utterance",)
        assert math.isclose(sum(splits.need("train").labels or []), 7.5, abs_tol=0.5)
