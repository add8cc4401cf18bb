"""One voice for names that do not exist: what was asked for, the nearest name, and the names to choose from."""

import pytest

from contraverse.errors import UserError, nearest, suggestion, unknown


def test_the_message_names_the_thing_the_name_and_the_place() -> None:
    error = unknown("recipe", "scla", ["ce", "scal"], where="study.yaml")
    assert isinstance(error, UserError)
    assert str(error) == 'study.yaml: no recipe is called "scla"\ndid you mean "scal"? known: ce, scal'


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("SCAL", ["ce", "scal"], 'did you mean "scal"? known: ce, scal'),  # case does not matter
        ("zzz", ["ce", "scal"], "known: ce, scal"),
        ("zzz", [], "there are none to choose from"),
        ("n07", [f"n{i:02}" for i in range(30)], 'did you mean "n07"? nearest: n07, n00, n01, n02, n03'),
    ],
)
def test_a_hint_suggests_and_lists(name: str, known: list[str], hint: str) -> None:
    assert suggestion(name, known) == hint


def test_names_are_sorted_by_likeness_and_then_by_alphabet() -> None:
    assert nearest("trin", ["test", "label", "train"])[0] == "train"
    assert nearest("x", ["b", "a"]) == ["a", "b"]
    assert nearest("x", []) == []
