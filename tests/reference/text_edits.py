"""Edits of texts by their definitions: every single one, and the distance of two texts. Slow, for short texts."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import numpy as np
import regex


def characters(text: str) -> list[str]:
    """Grapheme clusters."""
    return list(regex.findall(r"\X", text))


def single_edits(text: str, alphabet: str) -> set[str]:
    """Texts that one insertion, deletion, substitution or swap of neighbours makes, with all characters whole."""
    units = characters(text)
    results = []
    for i in range(len(units) + 1):
        results += [[*units[:i], letter, *units[i:]] for letter in alphabet]
    for i in range(len(units)):
        results.append([*units[:i], *units[i + 1 :]])
        results += [[*units[:i], letter, *units[i + 1 :]] for letter in alphabet]
    for i in range(len(units) - 1):
        results.append([*units[:i], units[i + 1], units[i], *units[i + 2 :]])
    whole = {"".join(result) for result in results if characters("".join(result)) == result}
    return {result for result in whole if result != text and result.strip()}


def damerau_levenshtein(first: Sequence[str], second: Sequence[str]) -> int:
    """Least number of insertions, deletions, substitutions and swaps of neighbours (Lowrance and Wagner, 1975)."""

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        best = min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        )
        for a, b in product(range(1, i), range(1, j)):  # all between a pair that is swapped goes, and comes
            if first[a - 1] == second[j - 1] and first[i - 1] == second[b - 1]:
                best = min(best, distance(a - 1, b - 1) + (i - a - 1) + 1 + (j - b - 1))
        return best

    return distance(len(first), len(second))


def worst_margin(texts: Sequence[str], margin: Callable[[list[str]], np.ndarray]) -> float:
    """Least margin of some texts."""
    return float(margin(list(texts)).min())
