"""Hours of a study, from finished cells: worked out by hand."""

from typing import Any

import pytest

from contraverse.pipeline.study_estimate import Timing, forward_units, measured_timing, time_left
from contraverse.recipes.study import Finished, ready
from contraverse.recipes.study_file import StudyConfig

STUDY = StudyConfig.model_validate(
    {
        "name": "tiny",
        "question": "Does adversarial training help?",
        "tasks": {"text": {"data.source": "rows.csv"}},
        "methods": {"ce": {"recipe": "ce"}, "at": {"recipe": "at", "space": {"method.epsilon": [0.1, 0.2]}}},
        "select": {"criterion": ["accuracy"], "seeds": [7]},
        "seeds": [1, 2],
        "baseline": "ce",
    }
)


def test_speed_is_the_median_over_finished_cells_in_seconds_of_a_forward_unit() -> None:
    cells = [cell for cell in ready(STUDY, Finished([])) if cell.method == "ce"]
    lines: list[dict[str, Any]] = [
        {"steps": 10, "seconds": 60.0, "wall_seconds": 100.0},  # 3F a step: 2 s of a unit
        {"steps": 10, "seconds": 120.0, "wall_seconds": 180.0},
    ]
    assert forward_units(cells[0].config) == 3
    assert measured_timing(lines, cells)["text"] == Timing(unit=3.0, steps=10, evaluation=50.0)
    assert measured_timing([], []) == {}


def test_time_left_counts_the_tests_that_wait_for_their_selection() -> None:
    cells = list(ready(STUDY, Finished([])))
    assert [cell.title for cell in cells if cell.method == "at"] == [
        "select text at seed 7 method.epsilon=0.1",
        "select text at seed 7 method.epsilon=0.2",
    ]
    timing = Timing(unit=1.0, steps=2, evaluation=5.0)
    ce, at = 2 * 3 + 5.0, 2 * 7 + 5.0
    left = time_left(STUDY, cells, [False] * len(cells), {"text": timing})
    assert left == pytest.approx(2 * at + 2 * ce + 2 * at)
    assert time_left(STUDY, cells, [True] * len(cells), {"text": timing}) == pytest.approx(2 * at)
