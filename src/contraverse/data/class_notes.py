"""Notes on classes that a reader of the figures should know."""

import unicodedata
from collections.abc import Collection, Sequence

from contraverse.errors import UserError


def alike(names: Sequence[str]) -> list[str]:
    """A note on classes that are one class in several spellings, as Excel makes TRUE of True."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups.setdefault(key, []).append(name)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return []
    only_case = all(len({name.casefold() for name in group}) == 1 for group in several)
    how = "differ in case alone" if only_case else "look alike"
    listed = "; ".join(" and ".join(map(repr, group)) for group in several[:5]) + ("; ..." if len(several) > 5 else "")
    return [f"classes that {how}: {listed}"]


def unmeasured(names: Sequence[str], train: Collection[int], validation: Collection[int], rows: str) -> list[str]:
    """A note on classes that are trained on, and that no validation row has; ``rows`` says of what they are."""
    absent = [name for i, name in enumerate(names) if i in train and i not in validation]
    if not absent:
        return []
    listed = ", ".join(map(repr, absent[:10])) + (", ..." if len(absent) > 10 else "")
    return [f"no validation {rows} has the label {listed}: what is chosen by validation is chosen without"]


def check_cut(
    before: Collection[float], after: Collection[float], aside: int, count: int, rows: str, where: str
) -> None:
    """Refuse to set one of ``count`` rows aside where a single class would be left to train on.

    Raises:
        UserError: it would.
    """
    if aside == 1 and len(before) > 1 and len(after) < 2:
        raise UserError(
            f"{count} {rows} are too few to set one aside for validation",
            where=where,
            hint="Add some, or name training and validation data of their own: "
            "--set data.source='{train: FILE, validation: FILE}'",
        )
