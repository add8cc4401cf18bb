"""Changed places for a reader, with what is not seen made visible."""

from contraverse.noise import Edit, mark_edits


def test_edits_are_marked() -> None:
    edits = [Edit(0, 1, "x"), Edit(2, 2, "y"), Edit(3, 4, "")]
    assert mark_edits("abcde", edits) == "⟦a→x⟧b⟦+y⟧c⟦-d⟧e"
    assert mark_edits("ab", [Edit(1, 1, "\u200b")]) == "a⟦+\\u200b⟧b"
    assert mark_edits("a\u200bb", []) == "a\\u200bb"
    assert mark_edits("при", [Edit(1, 1, "\u200d")]) == "п⟦+\\u200d⟧ри"
