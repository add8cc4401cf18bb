"""Mistakes of the user, and the names nearest to one that does not exist."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_ALIKE = 0.5
"""Least likeness, in [0, 1], of a name that is suggested."""
_LISTED = 24
"""Names that a hint lists in full; of more, the nearest five."""


class UserError(ValueError):
    """A mistake that the user can mend: names the problem, the place and the remedy.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: the problem, for example ``no recipe is called "scla"``.
        where: setting, file or row, which stands before the problem.
        hint: the remedy, on a line of its own: lower case, no full stop.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        lines = [f"{where}: {what}" if where else what]
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))


def unknown(what: str, name: str, known: Iterable[str], *, where: str | None = None) -> UserError:
    """Build the error for a name that does not exist; its hint is `suggestion`.

    Args:
        what: kind of thing that has the name: ``"recipe"``, ``"recipe or method"``.
        name: as the user wrote it.
        known: names that exist.
        where: setting or file that holds the name.
    """
    return UserError(f'no {what} is called "{name}"', where=where, hint=suggestion(name, known))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Write a hint: the known name that ``name`` looks like, if there is one, and the names to choose from."""
    names = list(known)
    if not names:
        return "there are none to choose from"
    ranked = nearest(name, names)
    close = f'did you mean "{ranked[0]}"? ' if _likeness(name, ranked[0]) >= _ALIKE else ""
    few = len(names) <= _LISTED
    return f"{close}known: {', '.join(names)}" if few else f"{close}nearest: {', '.join(ranked[:5])}"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Sort ``known`` by likeness to ``name``, the most like first; case does not matter."""
    return sorted(known, key=lambda other: (-_likeness(name, other), other))


def _likeness(name: str, other: str) -> float:
    """Ratio of matching characters, in [0, 1]."""
    return SequenceMatcher(None, name.casefold(), other.casefold()).ratio()
