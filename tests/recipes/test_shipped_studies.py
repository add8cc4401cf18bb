"""Studies that come with the package: each is possible, on the tasks and with the models of its scale."""

import pytest

from contraverse.recipes.study import Finished, load_study, ready, total_cells
from contraverse.recipes.study_file import shipped_studies

STUDIES = shipped_studies()


@pytest.mark.parametrize("name", STUDIES)
def test_a_shipped_study_is_possible_and_says_what_it_shows(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert study.scale == ("small" if name.endswith("-small") else "paper")
    assert study.shows
    assert len(study.seeds) >= 5
    cells = list(ready(study.model_copy(update={"seeds": study.seeds[:1]}), Finished([])))
    assert 0 < len(cells) <= total_cells(study)
    assert {cell.config.paper for cell in cells} == {study.scale == "paper"}


def test_the_three_papers_are_there_at_both_scales() -> None:
    shown = {(load_study(name).shows.split(",")[0], load_study(name).scale) for name in STUDIES}
    assert shown == {(paper, scale) for paper in ("SCAL", "CARL/RAR", "ACL") for scale in ("paper", "small")}
