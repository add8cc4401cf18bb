"""Characters that a reader does not see, made visible. Imports without torch."""

import unicodedata

JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: a part of the spelling of Persian, Hindi and others, and of emoji."""
UNJOINED = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "CJK", "HIRAGANA", "KATAKANA", "HANGUL")
"""Scripts, as the names of their characters begin, that are written without joiners."""
SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
"""Variation selectors: a part of the spelling of emoji and of rare Chinese characters."""
KEYCAP = "\u20e3"
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks without an outline, which Unicode does not count as formatting."""


def visible(text: str) -> str:
    """``text`` with its hidden characters as escapes, ``\\u202e``: it can neither reorder, hide nor clear anything.

    Hidden are control characters but for the line break and the tab, marks of the direction of writing, zero-width and
    blank characters, and lone surrogates. A joiner stays between two characters of emoji, or of a script that is
    written with joiners, as Arabic; a variation selector stays behind an emoji or another character outside of ASCII,
    and in a keycap.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(char)[1:-1] if _hidden(char, text[i - 1 : i], text[i + 1 : i + 2]) else char
        for i, char in enumerate(text)
    )


def _hidden(char: str, before: str, after: str) -> bool:
    if char in "\n\t":
        return False
    if char in JOINERS:
        return not (_joins(before) and _joins(after))
    if char in SELECTORS:
        return not before or before in SELECTORS or (before.isascii() and after != KEYCAP)
    return char in BLANK or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _joins(char: str) -> bool:
    """True of a character that a joiner may stand beside: one of emoji, or of a script with joiners."""
    return not char.isascii() and not unicodedata.name(char, "").startswith(UNJOINED)
