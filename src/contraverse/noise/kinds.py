"""The table of kinds of noise: one function and one line each."""

from collections.abc import Iterable
from dataclasses import dataclass

from contraverse.errors import UserError, unknown
from contraverse.noise import additions, characters, forms, typos
from contraverse.noise.edits import Editor

STRENGTHS = (1, 2, 3, 4, 5)

Shares = tuple[float, float, float, float, float]
FEW: Shares = (0.05, 0.1, 0.2, 0.35, 0.5)
MANY: Shares = (0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class Kind:
    """A kind of noise.

    Attributes:
        name: for users.
        editor: gives the edits of a text.
        places: places that it may edit, in the plural.
        shares: share of these places that is edited at strengths 1 to 5, on average over texts; no text has more
            than its number of places times the share, rounded up.
        latin: it changes the letters A to Z, a to z alone and leaves other scripts as they are.
    """

    name: str
    editor: Editor
    places: str
    shares: Shares
    latin: bool = False

    @property
    def summary(self) -> str:
        """An edit in a sentence."""
        return " ".join((self.editor.__doc__ or "").split("\n\n")[0].split())

    def share(self, strength: int) -> float:
        """Share of the places that is edited at ``strength`` (1 to 5).

        Raises:
            UserError: there is no such strength.
        """
        if strength not in STRENGTHS:
            raise UserError(f"noise has the strengths 1 to 5, not {strength}")
        return self.shares[strength - 1]


_WORDS = "words of three letters or more"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("keyboard", typos.keyboard, _WORDS, FEW, latin=True),
        Kind("swap", typos.swap, _WORDS, FEW),
        Kind("drop", typos.drop, _WORDS, FEW),
        Kind("repeat", typos.repeat, _WORDS, FEW),
        Kind("ocr", typos.ocr, _WORDS, FEW, latin=True),
        Kind("lower", forms.lower, "words with capital letters", MANY),
        Kind("upper", forms.upper, "words with small letters", MANY),
        Kind("random-case", forms.random_case, "letters", FEW),
        Kind("drop-space", forms.drop_space, "spaces between words", FEW),
        Kind("add-space", forms.add_space, "words of two letters or more", FEW),
        Kind("drop-punctuation", forms.drop_punctuation, "punctuation marks", MANY),
        Kind("add-punctuation", forms.add_punctuation, "words", FEW),
        Kind("space-out", forms.space_out, "words of two letters or more", MANY),
        Kind("leet", characters.leet, "letters that have a digit or sign of their shape", MANY, latin=True),
        Kind("diacritics", characters.diacritics, "letters", MANY, latin=True),
        Kind("full-width", characters.full_width, "words", MANY, latin=True),
        Kind("homoglyph", characters.homoglyph, "letters that others look like", MANY, latin=True),
        Kind("zero-width", characters.zero_width, "gaps between the letters of a word", MANY),
        Kind("bidi", characters.bidi, "words", MANY),
        Kind("emoji", additions.emoji, "words", FEW),
        Kind("append", additions.append, "words", MANY),
        Kind("prepend", additions.prepend, "words", MANY),
    )
}
"""Every kind of noise by its name."""


def get_kind(name: str) -> Kind:
    """The kind of this name.

    Raises:
        UserError: there is none; the nearest names and all of them are in the hint.
    """
    if name not in KINDS:
        raise unknown("kind of noise", name, KINDS)
    return KINDS[name]


def parse_kinds(written: str | Iterable[str]) -> list[str]:
    """Names of kinds from ``"keyboard,leet"`` or a list of names, each once, in the table's order.

    ``all`` is every one.

    Raises:
        UserError: there is no kind of a name, or no name.
    """
    names = [name.strip() for name in (written.split(",") if isinstance(written, str) else written)]
    chosen = {get_kind(name).name for name in names if name != "all"} | (set(KINDS) if "all" in names else set())
    if not chosen:
        raise UserError("no kind of noise is named", hint=f"there are {', '.join(KINDS)}, and all")
    return [name for name in KINDS if name in chosen]
