"""Hidden characters are seen, in every place where a text is shown."""

import pytest

from contraverse.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 100 %", "plain text, 100 %"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),  # direction of writing
        ("pay\u200bpal", "pay\\u200bpal"),  # zero width
        ("pay\u200dpal", "pay\\u200dpal"),
        ("soft\u00adhyphen", "soft\\xadhyphen"),
        ("\ufeffbom", "\\ufeffbom"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("blank\u3164", "blank\\u3164"),
        ("\x1b[31mred\x9b", "\\x1b[31mred\\x9b"),
        ("carriage\rreturn", "carriage\\rreturn"),
        ("\u2028", "\\u2028"),
        ("bad \ud800", "bad \\ud800"),
        ("при\u200cвет", "при\\u200cвет"),  # a joiner in a script that has none
        ("中\u200d文", "中\\u200d文"),
        ("a\ufe0fb", "a\\ufe0fb"),  # a variation selector that selects nothing
        ("👋\ufe0f\U000e0101", "👋\ufe0f\\U000e0101"),
    ],
)
def test_hidden_characters_become_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text", ["می‌خواهم", "👩‍👩‍👧", "1\ufe0f\u20e3", "🏳\ufe0f\u200d🌈", "👋🏽", "🇪🇺", "Größe – 日本", "क्‍ष", "שלום"]
)
def test_words_and_emoji_keep_the_joiners_that_they_are_spelled_with(text: str) -> None:
    assert visible(text) == text


def test_a_joiner_at_the_edge_or_beside_ascii_is_shown() -> None:
    assert visible("\u200dé") == "\\u200dé"
    assert visible("é\u200c") == "é\\u200c"
    assert visible("éa\u200cé") == "éa\\u200cé"
