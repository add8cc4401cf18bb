"""Characters that a reader does not see, made visible. Imports without torch."""

import unicodedata

JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: a part of the spelling of Persian, Hindi and others, and of emoji."""
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks without an outline, which Unicode does not count as formatting."""


def visible(text: str) -> str:
    """``text`` with its hidden characters as escapes, ``\\u202e``: it can neither reorder, hide nor clear anything.

    Hidden are control characters but for the line break and the tab, marks of the direction of writing, zero-width and
    blank characters, and lone surrogates. A joiner between two characters outside of ASCII stays: words and emoji need
    it.
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
        return not (before and after) or before.isascii() or after.isascii()
    return char in BLANK or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
