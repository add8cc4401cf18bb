"""Slips of the hand and of the scanner: at most one in a word, and never in its first letter but for `ocr`."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from contraverse.noise.draws import Draws
from contraverse.noise.edits import Edit
from contraverse.noise.text import Span, Text

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_STAGGER = (0.0, 0.25, 0.75)  # of a row against the top one, in widths of a key


def _neighbours() -> dict[str, str]:
    """Keys of a QWERTY keyboard whose centres are at most 1.3 widths apart."""
    places = {
        key: (x + shift, y)
        for y, (row, shift) in enumerate(zip(_ROWS, _STAGGER, strict=True))
        for x, key in enumerate(row)
    }
    near = {
        key: "".join(
            other for other, (a, b) in places.items() if other != key and (x - a) ** 2 + (y - b) ** 2 <= 1.3**2
        )
        for key, (x, y) in places.items()
    }
    return near | {key.upper(): others.upper() for key, others in near.items()}


NEIGHBOURS = _neighbours()

OCR = {
    **{"rn": ("m",), "m": ("rn",), "cl": ("d",), "d": ("cl",), "vv": ("w",), "w": ("vv",), "ri": ("n",), "ii": ("u",)},
    **{"li": ("h",), "tl": ("d",), "l": ("1", "I"), "I": ("l", "1"), "i": ("1", "l"), "o": ("0",), "O": ("0",)},
    **{"S": ("5",), "s": ("5",), "B": ("8",), "Z": ("2",), "z": ("2",), "G": ("6",), "g": ("9", "q"), "q": ("g",)},
    **{"e": ("c",), "c": ("e",), "h": ("b",), "b": ("h",), "u": ("ii", "n"), "n": ("u", "ri"), "f": ("t",)},
    **{"t": ("f",), "fi": ("\ufb01",), "fl": ("\ufb02",), "D": ("O",), "Q": ("O",), "T": ("I",), "a": ("o",)},
}
"""Letters that scanners take for others."""


def keyboard(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter becomes one that lies beside it on a QWERTY keyboard."""
    written = text.text
    words = [[start for start, end in word if end == start + 1 and written[start] in NEIGHBOURS] for word in text.inner]
    for places in draws.share_of([places for places in words if places], share):
        i = draws.choice(places)
        yield Edit(i, i + 1, draws.choice(NEIGHBOURS[written[i]]))


def swap(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """Two letters side by side change places."""
    pairs = ([(a, b) for a, b in pairwise(word) if a[1] == b[0] and text[a] != text[b]] for word in text.inner)
    for places in draws.share_of([places for places in pairs if places], share):
        a, b = draws.choice(places)
        yield Edit(a[0], b[1], text[b] + text[a])


def drop(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter is left out."""
    for letters in draws.share_of(text.inner, share):
        yield Edit(*draws.choice(letters), "")


def repeat(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter is typed twice."""
    for letters in draws.share_of(text.inner, share):
        letter = draws.choice(letters)
        yield Edit(letter[1], letter[1], text[letter])


def ocr(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A letter or two are taken for others of the same look: rn for m, cl for d, 0 for o, 1 for l."""
    words = (list(_mistakable(text, letters)) for letters in text.editable)
    for places in draws.share_of([places for places in words if places], share):
        start, end = draws.choice(places)
        yield Edit(start, end, draws.choice(OCR[text.text[start:end]]))


def _mistakable(text: Text, letters: list[Span]) -> Iterator[Span]:
    """Places of a word that `OCR` lists: single letters without marks, or two of them side by side."""
    for letter in letters:
        if text[letter] in OCR:
            yield letter
    for a, b in pairwise(letters):
        if a[1] == b[0] and text.text[a[0] : b[1]] in OCR:
            yield a[0], b[1]
