"""Things added between, before and behind the words of a text, which itself stays."""

from collections.abc import Iterator, Sequence

from contraverse.noise.draws import Draws
from contraverse.noise.edits import Edit
from contraverse.noise.text import Text

EMOJI = (
    *("📌", "📎", "📦", "🔔", "🕐", "☕", "🌍", "🌱", "🏠", "🚗", "🚲", "📷", "🎵", "🧩", "🪑", "🧵"),
    *("🏳\ufe0f", "🇪🇺", "1\ufe0f\u20e3", "🧑\u200d💻", "🧑🏽\u200d🔧", "👋🏽"),
)
"""Emoji of things rather than feelings, of one character or several: a flag, a keycap, a joined family, a skin tone."""

HARMLESS = tuple(
    """please thanks today tomorrow weather recipe garden music morning evening window table coffee holiday travel
    museum library bicycle river mountain kitchen letter picture winter summer school teacher doctor office paper
    colour season village bridge station""".split()
)
"""Everyday words that speak of no class in particular."""


def emoji(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """An emoji is set behind a word, after a space."""
    for word in draws.share_of(text.free_words, share):
        yield Edit(word[1], word[1], " " + draws.choice(EMOJI))


def append(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """Words of the pool are added at the end."""
    if words := _words(text, share, draws, pool):
        yield Edit(len(text.text), len(text.text), "".join(" " + word for word in words))


def prepend(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """Words of the pool are added at the beginning."""
    if words := _words(text, share, draws, pool):
        yield Edit(0, 0, "".join(word + " " for word in reversed(words)))


def _words(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> list[str]:
    draws.eligible = len(text.words) + len(text.protected) or int(not text.text.isspace() and text.text != "")
    pool = pool or HARMLESS
    return [draws.choice(pool) for _ in range(draws.count(share * draws.eligible))]
