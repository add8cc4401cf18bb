"""Other ways to write the same words: case, white space, punctuation, letters spaced out."""

from collections.abc import Iterator, Sequence

from contraverse.noise.draws import Draws
from contraverse.noise.edits import Edit
from contraverse.noise.text import Text

MARKS = (",", ".", "!", "?", ";", ":", "-", "...")


def _same_letters(first: str, second: str) -> bool:
    """True where ``second`` is another writing of ``first`` that differs in case alone."""
    return first != second and first.casefold() == second.casefold()


def lower(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A word with capital letters is written in small ones."""
    words = [word for word in text.words if _same_letters(text[word], text[word].lower())]
    for word in draws.share_of(words, share):
        yield Edit(*word, text[word].lower())


def upper(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A word is written in capital letters."""
    words = [word for word in text.words if _same_letters(text[word], text[word].upper())]
    for word in draws.share_of(words, share):
        yield Edit(*word, text[word].upper())


def random_case(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A small letter becomes a capital one, or a capital letter a small one."""
    letters = [
        letter
        for word in text.words
        for letter in text.clusters(word)
        if _same_letters(text[letter], _flip(text[letter]))
    ]
    for letter in draws.share_of(letters, share):
        yield Edit(*letter, _flip(text[letter]))


def _flip(letter: str) -> str:
    return letter.lower() if letter != letter.lower() else letter.upper()


def drop_space(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """The space between two words is lost."""
    for gap in draws.share_of(text.gaps, share):
        yield Edit(*gap, "")


def add_space(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A space is put into a word."""
    words = [clusters for clusters in map(text.clusters, text.words) if len(clusters) > 1]
    for clusters in draws.share_of(words, share):
        place = clusters[1 + draws.below(len(clusters) - 1)][0]
        yield Edit(place, place, " ")


def drop_punctuation(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A punctuation mark is lost."""
    for mark in draws.share_of(text.punctuation if text.words else (), share):
        yield Edit(*mark, "")


def add_punctuation(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """A punctuation mark is set behind a word."""
    for word in draws.share_of(text.free_words, share):
        yield Edit(word[1], word[1], draws.choice(MARKS))


def space_out(text: Text, share: float, draws: Draws, pool: Sequence[str]) -> Iterator[Edit]:
    """The letters of a word are set apart by spaces."""
    words = [clusters for clusters in map(text.clusters, text.words) if len(clusters) > 1]
    for clusters in draws.share_of(words, share):
        yield Edit(clusters[0][0], clusters[-1][1], " ".join(text[cluster] for cluster in clusters))
