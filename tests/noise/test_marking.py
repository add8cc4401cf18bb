"""Changed places for a reader, with what is not seen made visible."""

from contraverse.noise import Edit, mark_edits, visible


def test_edits_are_marked() -> None:
    edits = [Edit(0, 1, "x"), Edit(2, 2, "y"), Edit(3, 4, "")]
    assert mark_edits("abcde", edits) == "⟦a→x⟧b⟦+y⟧c⟦-d⟧e"
    assert mark_edits("ab", [Edit(1, 1, "\u200b")]) == "a⟦+‹200B›⟧b"
    assert mark_edits("a\u200bb", []) == "a‹200B›b"


def test_what_is_not_seen_is_shown_by_number() -> None:
    assert visible("a\u202eb\u202c\ufeffc\x07\ud800") == "a‹202E›b‹202C›‹FEFF›c‹0007›‹D800›"
    assert visible("\u3164\U000e0041\xad") == "‹3164›‹E0041›‹00AD›"


def test_emoji_stay_whole() -> None:
    for emoji in ("👩\u200d👩\u200d👧", "1\ufe0f\u20e3", "🏳\ufe0f\u200d🌈", "👋🏽", "🇪🇺"):
        assert visible(f"a {emoji} b") == f"a {emoji} b"
    assert visible("x\u200dy") == "x‹200D›y"
