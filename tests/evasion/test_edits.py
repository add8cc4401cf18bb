"""Edits of characters: every one of them, none beyond the rules, whole characters."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from reference.text_edits import characters, damerau_levenshtein, single_edits

from contraverse.errors import UserError
from contraverse.evasion import Edits, Unicode
from contraverse.evasion.append import Append
from contraverse.evasion.changes import Change, Span, chunk_around, clusters, keeps_clusters, shifted
from contraverse.evasion.edits import LETTERS, RULES, _alphabet
from contraverse.evasion.search import Node, TextAttack
from contraverse.noise.typos import NEIGHBOURS

TEXTS = st.text(min_size=1, max_size=12).filter(str.strip) | st.text(
    st.sampled_from("ab é\u0301\u200d👍🏽👨🇩🇪क्षि한글ไทย\r\n中文\ufe0f'’-1"), min_size=1, max_size=10
).filter(str.strip)


def every(attack: TextAttack, text: str) -> set[str]:
    node = Node(text, 0.0, 0)
    return {
        change.apply(text) for place in attack.places(node, len(text)) for change in attack.changes(node, place)
    } - {text}


@given(TEXTS)
def test_free_edits_are_every_single_edit(text: str) -> None:
    expected = single_edits(text, _alphabet(text) + " ")
    assert {result for result in every(Edits(), text) if result.strip()} == expected


@pytest.mark.parametrize("text", ["a", "ab", "a b", "aa", "long words and, gaps  here\n", "x" * 60 + " y"])
def test_the_number_of_edits_of_ascii_texts(text: str) -> None:
    assert {result for result in every(Edits(), text) if result.strip()} == single_edits(text, LETTERS + " ")


@given(TEXTS, st.sampled_from(sorted(RULES)))
def test_an_edit_breaks_no_character_and_costs_one(text: str, rules: str) -> None:
    for result in list(every(Edits(rules), text))[:40]:
        before, after = characters(text), characters(result)
        assert damerau_levenshtein(before, after) <= 1
        assert "".join(after) == result


def test_pruthis_rules() -> None:
    text = "The movie isn't great, was fun"
    results = every(Edits("pruthi"), text)
    for result in results:
        words = result.split()
        changed = [(old, new) for old, new in zip(text.split(), words, strict=True) if old != new]
        assert len(changed) == 1
        old, new = changed[0]
        assert old in ("movie", "great,", "isn't")
        assert (old[0], old.rstrip(",")[-1]) == (new[0], new.rstrip(",")[-1])
    assert {"The mvoie isn't great, was fun", "The moie isn't great, was fun"} <= results
    assert {f"The m{letter}ovie isn't great, was fun" for letter in LETTERS} <= results
    substituted = {result for result in results if len(result) == len(text) and result[:5] == "The m"}
    assert {result[5] for result in substituted if result[6:] == text[6:]} == {*NEIGHBOURS["o"]}


def test_a_word_is_edited_once_where_the_rules_say_so() -> None:
    attack, node = Edits("pruthi"), Node("movie great", 0.0, 0)
    change = attack.changes(node, Span(0, 5))[0]
    after = change.apply(node.text)
    node = Node(after, 0.0, 0, attack.locks(node, change))
    assert [after[place.start : place.end] for place in attack.places(node, len(after))] == ["great"]


def test_only_what_is_read_is_edited() -> None:
    node = Node("movie great funny", 0.0, 0)
    assert attack_words(Edits("pruthi"), node, 11) == ["movie", "great"]
    assert attack_words(Edits(), node, 6) == ["movie "]


def attack_words(attack: Edits, node: Node, seen: int) -> list[str]:
    return [node.text[place.start : place.end] for place in attack.places(node, seen)]


def test_texts_of_one_character_stay_texts() -> None:
    assert "" not in every(Edits(), "x")


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(UserError, match="no rules are called 'typos'"):
        Edits("typos")


@given(TEXTS)
def test_unicode_changes_leave_what_is_read(text: str) -> None:
    for result in every(Unicode(), text):
        assert len(characters(result)) >= len(characters(text)) - 1
        hidden = [c for c in result if c in "\u200b\u2060\ufeff\u00ad"]
        if len(hidden) > sum(c in "\u200b\u2060\ufeff\u00ad" for c in text):
            assert len(result) == len(text) + 1
        else:
            differ = [(a, b) for a, b in zip(text, result, strict=True) if a != b]
            assert len(differ) == 1
            assert differ[0][0].isascii()
            assert not differ[0][1].isascii()


def test_look_alikes_and_invisible_characters_of_a_word() -> None:
    results = every(Unicode(), "so")
    assert {"s\u200bo", "s\u00ado"} <= results
    assert "s\u043e" in results or "s\u03bf" in results  # Cyrillic or Greek o


def test_chinese_words_take_invisible_characters() -> None:
    assert "这\u200b部" in {result[:3] for result in every(Unicode(), "这部电影")}


def test_words_are_appended_at_either_end() -> None:
    attack = Append(["sunny day", "tea", "tea"])
    assert every(attack, "buy now") == {"buy now sunny day", "buy now tea", "sunny day buy now", "tea buy now"}
    assert every(Append(["tea"], "after"), "buy") == {"buy tea"}
    by_class = Append({0: ["ham"], 1: ["spam"]}, "before")
    assert [c.new for c in by_class.changes(Node("x", 0.0, 1), Span(0, 0))] == ["spam "]


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(UserError, match="pool"):
        Append([])
    with pytest.raises(UserError, match="pool"):
        Append(["a", " "])


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_change_between_two_texts_makes_one_of_the_other(old: str, new: str) -> None:
    assert Change.between(old, new).apply(old) == new


def test_spans_move_with_changes() -> None:
    spans = (Span(0, 3), Span(4, 7))
    assert shifted(spans, Change(3, 4, "--")) == (Span(0, 3), Span(5, 8))
    assert shifted(spans, Change(1, 2, "")) == (Span(0, 2), Span(3, 6))


def test_chunks_end_at_white_space() -> None:
    assert chunk_around("one two three", Change(5, 6, "")) == Span(4, 7)
    assert chunk_around("one two", Change(3, 4, "")) == Span(0, 7)


def test_clusters_of_ascii_and_others() -> None:
    assert [tuple(span) for span in clusters("a\r\nb")] == [(0, 1), (1, 3), (3, 4)]
    assert len(clusters("👨‍👩‍👧🇩🇪e\u0301")) == 3


def test_what_joins_two_characters_is_no_edit() -> None:
    assert not keeps_clusters("🇩a🇪", Change(1, 2, ""), Span(0, 3))
    assert keeps_clusters("🇩ab🇪", Change(1, 2, ""), Span(0, 3))
    assert not keeps_clusters("\u0300" + "0", Change(0, 2, "0\u0300"), Span(0, 2))  # swapped, they are one
