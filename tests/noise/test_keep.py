"""Words and phrases of the user's own that nothing changes."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from contraverse.errors import UserError
from contraverse.noise import KINDS, noisy
from contraverse.noise.keep import Keep, parse_phrases

PIECES = ["not", "Refund", "退款", " ", ", ", "words", "é", "中", "👩\u200d👧", "'", "x1", "\u0301"]
TEXT = "Please Refund my order: it is not  working, l'amour refunded 退款很好 not-working REFUND"


def test_phrases_are_whole_words_in_any_case_with_any_white_space() -> None:
    keep = Keep(["refund", "not working", "退款", "amour"])
    assert keep.written(TEXT) == ["Refund", "not  working", "amour", "退款", "REFUND"]
    assert Keep(["not", "not working"]).written("not working, not") == ["not working", "not"]
    assert Keep(["C++", "#1 (a)"]).written("c++ is #1 (A)") == ["c++", "#1 (A)"]
    assert Keep(["no"]).written("no\u0301 now nono n\u200bo") == []
    assert Keep([]).written(TEXT) == []


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.sampled_from(PIECES)), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=20)
def test_no_kind_changes_them(kind: str, pieces: list[str], strength: int, row: int) -> None:
    text, keep = "".join(pieces), ("not", "refund", "退款", "not refund")
    (changed,) = noisy([text], kind, strength, rows=[row], keep=keep)
    for start, end in Keep(keep).spans(text):
        assert all(last <= start or first >= end for first, last, _ in changed.edits)
    without = noisy([text], kind, strength, rows=[row])[0]
    if not Keep(keep).spans(text):
        assert changed == without


def test_a_list_or_a_file_of_phrases(tmp_path: Path) -> None:
    assert parse_phrases("refund, not working ,refund") == ["refund", "not working"]
    file = tmp_path / "keep.txt"
    file.write_text("\ufeffnot, never\n\nrefund\n", encoding="utf-8")
    assert parse_phrases(str(file)) == ["not, never", "refund"]
    with pytest.raises(UserError, match="cannot be read"):
        parse_phrases("nowhere.txt")
    with pytest.raises(UserError, match="names no word"):
        parse_phrases(" ,")
    with pytest.raises(UserError, match="empty"):
        noisy(["a"], "swap", 1, keep=[""])
