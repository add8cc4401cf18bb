"""Answers of studies: what is read from an interval, which seeds come next, and what a study would have to be."""

from typing import Any

import numpy as np
import pytest

from contraverse.evaluation.paired import pack_rows, paired_difference
from contraverse.recipes.study_file import StudyConfig
from contraverse.reporting.study import tabulate
from contraverse.reporting.study_answers import answers, next_lines, next_seeds, verdict, what_it_takes

PLAN = StudyConfig.model_validate(
    {
        "name": "tiny",
        "question": "Does it help?",
        "holds_for": "a tiny model",
        "tasks": {"text": {}},
        "methods": {"ce": {"recipe": "ce"}, "at": {"recipe": "at"}, "scal": {"recipe": "scal"}},
        "seeds": [1, 2, 3],
        "baseline": "ce",
        "metrics": ["accuracy", "cosine@0.1"],
        "stopping": {"margin": 1.0, "most": 10},
        "claims": [
            {"of": "AT", "first": "at", "second": "ce", "metrics": ["accuracy"]},
            {"of": "SCAL", "first": "scal", "second": "ce", "metrics": ["accuracy"]},
        ],
    }
)


def line(method: str, seed: int, share: float) -> dict[str, Any]:
    right = np.arange(400) < 400 * share
    metrics = {"accuracy": 100 * share, "cosine@0.1": 0.9}
    line = {"stage": "test", "task": "text", "method": method, "settings": {}, "seed": seed, "metrics": metrics}
    return line | {"right": {"accuracy": pack_rows(right)}}


def tables(**shares: list[float]) -> list[Any]:
    lines = [line(method, seed, share) for method, own in shares.items() for seed, share in enumerate(own, 1)]
    return [tabulate(lines, "text", PLAN.compared, list(PLAN.methods), PLAN.metrics)]


def test_an_answer_is_read_from_the_interval() -> None:
    made = tables(ce=[0.70, 0.71], at=[0.80, 0.82], scal=[0.66, 0.78])
    text = answers([(PLAN, made)])
    at, scal = text.splitlines()[:2]
    start = "- **Does AT help?** Against ce, with a tiny model ([tiny](#tiny)). It helps: Accuracy on text +10.5 ["
    assert at.startswith(start)
    assert "It cannot be told yet: Accuracy on text " in scal
    assert "| AT | at - ce | text | Accuracy | +10.5 [" in text
    assert "| 2 | helps | a tiny model | [tiny](#tiny) |" in text
    assert "| 2 | cannot be told yet: " in text
    nothing = answers([(PLAN, tables(ce=[0.7]))])
    assert "**Does AT help?** It cannot be told yet: no pair of cells is finished." in nothing
    assert answers([]) == ""


def test_a_method_that_costs_and_one_that_changes_nothing() -> None:
    worse = paired_difference(np.full((3, 400), 50.0), np.full((3, 400), 50.4))
    assert verdict(worse, "accuracy") == "costs"
    assert verdict(worse, "error_rate") == "helps"
    random = np.random.default_rng(0).normal(size=(4, 400))
    near = paired_difference(random, random + np.random.default_rng(1).normal(scale=0.1, size=(4, 400)))
    assert verdict(near, "accuracy") == "makes no difference"
    single = paired_difference(np.array([[1.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 1.0]]))
    assert verdict(single, "accuracy", 0.1) == "cannot be told yet"
    assert what_it_takes(single) == "more than one seed"


def test_the_stopping_rule_asks_for_seeds_of_what_is_open() -> None:
    made = tables(ce=[0.70, 0.71], at=[0.80, 0.82], scal=[0.66, 0.78])
    asked = next_seeds(PLAN, made)
    assert [(n.first, n.second, n.metric, n.seed) for n in asked] == [("scal", "ce", "accuracy", 3)]
    assert next_lines(asked) == ["text: seed 3 of scal and ce (Accuracy)"]
    more = tables(ce=[0.70, 0.71, 0.70], at=[0.80, 0.82, 0.80], scal=[0.66, 0.78, 0.72])
    assert [n.seed for n in next_seeds(PLAN, more)] == [4]  # beyond the file's seeds
    few = PLAN.model_copy(update={"stopping": PLAN.stopping.model_copy(update={"most": 2})})  # type: ignore[union-attr]
    assert next_seeds(few, made) == []


@pytest.mark.parametrize(("seeds", "rows"), [(4, 50), (6, 1)])
def test_power_with_as_many_seeds_is_the_studys_own_and_grows_with_more(seeds: int, rows: int) -> None:
    random = np.random.default_rng(3)
    first = random.normal(size=(seeds, rows)) + random.normal(size=(seeds, 1)) + random.normal(size=(1, rows))
    paired = paired_difference(first, np.zeros((seeds, rows)))
    assert paired.detectable_with(seeds) == pytest.approx(paired.detectable, rel=1e-6)
    assert paired.detectable_with(4 * seeds) < paired.detectable
    wanted = paired.detectable_with(9)
    assert paired.seeds_to_detect(wanted + 1e-9) == 9
    if rows > 1:  # what differs between rows is left, however many seeds
        assert paired.seeds_to_detect(1e-3) is None
