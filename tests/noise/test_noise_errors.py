"""Mistakes in names, strengths and texts."""

import pytest

from contraverse.errors import UserError
from contraverse.noise import KINDS, get_kind, noise, noisy, parse_kinds


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("keyborrd", "keyboard"), ("zero_width", "zero-width"), ("Homoglyphs", "homoglyph"), ("spaced-out", "space-out")],
)
def test_an_unknown_kind_gets_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f'no kind of noise is called "{name}"\ndid you mean "{nearest}"'):
        noise("text", name, 1)


def test_a_name_like_none_gets_all_of_them() -> None:
    with pytest.raises(UserError, match=r"known: keyboard, swap, .*prepend"):
        get_kind("qqq")


@pytest.mark.parametrize("strength", [0, 6, -1, 2.5])
def test_strengths_are_1_to_5(strength: int) -> None:
    with pytest.raises(UserError, match=f"strengths 1 to 5, not {strength}"):
        noise("text", "swap", strength)


def test_a_value_that_is_no_text_is_named() -> None:
    with pytest.raises(UserError, match="text 1 is None"):
        noisy(["a", None], "swap", 1)  # type: ignore[list-item]


def test_lists_of_kinds() -> None:
    assert parse_kinds("all") == list(KINDS)
    assert parse_kinds("leet, keyboard,leet") == ["keyboard", "leet"]
    assert parse_kinds(["append"]) == ["append"]
    for written in ("", ",", "keyboard,,swap"):
        with pytest.raises(UserError):
            parse_kinds(written)


def test_no_texts_are_no_texts() -> None:
    assert noisy([], "swap", 3) == []
