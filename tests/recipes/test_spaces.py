"""How a search's space is written, and that the table's spaces are possible."""

from pathlib import Path
from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.recipes import (
    PAPER_SPACES,
    SPACES,
    Choices,
    Range,
    SearchConfig,
    change,
    configure,
    load_search,
    parse_range,
    read_space,
    space_of,
)
from contraverse.recipes.schema import dotted


@pytest.mark.parametrize(
    ("written", "means"),
    [
        (".1:1", Range(0.1, 1)),
        ("0:.8", Range(0, 0.8)),
        (".1:1:log", Range(0.1, 1, log=True)),
        ("1e-5:1e-4:log", Range(1e-5, 1e-4, log=True)),
        ("2:4", Range(2, 4)),
        ("null|.01:.5", Range(0.01, 0.5, null=True)),
        ("null|1:8:log", Range(1, 8, log=True, null=True)),
        (["fgm", "fgsm"], Choices(("fgm", "fgsm"))),
    ],
)
def test_a_range_means_what_it_says(written: Any, means: Range | Choices) -> None:
    assert parse_range("x", written) == means


def test_what_lies_in_a_range() -> None:
    assert 2 in Range(2, 4)
    assert 4 in Range(2, 4)
    assert 2.5 not in Range(2, 4)
    assert 2.5 in Range(2.0, 4)
    assert 5 not in Range(2, 4)
    assert None not in Range(2, 4)
    assert None in Range(2, 4, null=True)
    assert Range(2, 4).whole
    assert not Range(0, 0.8).whole


@pytest.mark.parametrize(
    "written", ["1", "1:0", "1:1", "0:1:log", "a:b", "1:2:3", "1:2:lin", "", None, 3, [], ".1:inf"]
)
def test_what_is_no_range_is_refused(written: Any) -> None:
    with pytest.raises(UserError, match=r"method\.epsilon"):
        parse_range("method.epsilon", written)


def test_a_space_is_read_from_assignments_and_files(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("method.epsilon: .1:1:log\nmethod.steps: 2:4\nmethod.attack: [fgm, fgsm]\n", encoding="utf-8")
    space = read_space([str(file), "method.epsilon=.2:.3", "train.learning_rate=1e-5:1e-4:log"])
    assert space == {
        "method.epsilon": ".2:.3",
        "method.steps": "2:4",
        "method.attack": ["fgm", "fgsm"],
        "train.learning_rate": "1e-5:1e-4:log",
    }
    for wrong, says in (("epsilon", "key=low:high"), ("none.yaml", "none.yaml"), ("a=1", "no range")):
        with pytest.raises(UserError, match=says):
            read_space([wrong])


def test_freelb_is_searched_within_table_8() -> None:
    space = {name: parse_range(name, written) for name, written in space_of("freelb").items()}
    assert space["method.gamma"] == Range(0, 0.8)
    assert space["method.step_size"] == Range(0.01, 0.2)
    assert space["method.steps"] == Range(2, 4)
    epsilon = space["method.epsilon"]
    assert isinstance(epsilon, Range)
    assert (epsilon.high, epsilon.null) == (0.5, True)  # 0 of the paper is no limit
    assert space["train.learning_rate"] == parse_range("x", "1e-5:1e-4:log")
    assert space_of("ce") == space_of("unheard-of") == {"train.learning_rate": "1e-5:1e-4:log"}


def test_every_space_is_of_a_method() -> None:
    assert set(SPACES) | set(PAPER_SPACES) <= set(METHODS)


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_end_of_a_methods_space_is_possible(name: str, paper: bool) -> None:
    config = configure(name)
    for setting, written in space_of(name, paper=paper).items():
        for end in parse_range(setting, written).ends:
            change(config, {setting: end})


@pytest.mark.parametrize("name", ["carl", "rar", "infobert", "scal", "freelb", "smart", "alum"])
def test_the_recipe_itself_lies_in_its_methods_space(name: str) -> None:
    values = dict(dotted(configure(name).model_dump()))
    for setting, written in space_of(name).items():
        assert values[setting] in parse_range(setting, written), setting


def test_carl_rar_and_infobert_are_searched_for_their_own_settings_beside_freelbs() -> None:
    own = {
        "carl": {"weight", "start", "temperature", "negatives", "momentum"},
        "rar": {"weight", "skip_special", "head_warmup"},
        "infobert": {"alpha", "beta", "low", "high"},
    }
    for name, settings in own.items():
        assert set(space_of(name)) - set(space_of("freelb")) == {f"method.{setting}" for setting in settings}
        assert set(space_of("freelb")) <= set(space_of(name))


def test_a_search_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    plan = SearchConfig(config=configure("itpt"), space=space_of("scal") | {"a": [1, "b"]}, trials=7, robust=0.5)
    (tmp_path / "search.yaml").write_text(plan.to_yaml(), encoding="utf-8")
    assert load_search(tmp_path / "search.yaml") == plan
    (tmp_path / "search.yaml").write_text("trials: 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="is missing"):
        load_search(tmp_path / "search.yaml")
