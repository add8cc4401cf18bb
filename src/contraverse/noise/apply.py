"""Noise on one text or on many; what is drawn depends on seed, kind and row alone."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from contraverse.errors import UserError
from contraverse.noise.draws import Draws
from contraverse.noise.edits import Edit, apply_edits
from contraverse.noise.kinds import get_kind
from contraverse.noise.text import Text

Seed = int | tuple[int | str, ...]
"""A number, or several numbers and words that are one seed together, as (seed, epoch)."""


class NoisyText(NamedTuple):
    """A text with noise.

    Attributes:
        text: with the edits.
        edits: in the order of their places, which are those of the text without noise.
        eligible: number of places that the kind could have edited; 0 where it cannot touch the text.
    """

    text: str
    edits: tuple[Edit, ...]
    eligible: int


def noise(
    text: str,
    kind: str,
    strength: int,
    seed: Seed = 0,
    row: int = 0,
    *,
    pool: Sequence[str] = (),
    protect: bool = True,
    keep: Sequence[str] = (),
) -> str:
    """Add noise of a ``kind`` to ``text``; see `noisy` for the arguments and errors."""
    return noisy([text], kind, strength, seed, rows=[row], pools=[pool], protect=protect, keep=keep)[0].text


def noisy(
    texts: Sequence[str],
    kind: str,
    strength: int,
    seed: Seed = 0,
    *,
    rows: Iterable[int] | None = None,
    pools: Sequence[Sequence[str]] | None = None,
    protect: bool = True,
    keep: Sequence[str] = (),
) -> list[NoisyText]:
    """Add noise to each of ``texts``.

    A text's draws are hashed from ``seed``, ``kind`` and its row's number: they are the same in any batch and order.
    ``strength`` is no part of them, so that the edits of a text at a strength are among those at a higher one. For
    draws anew, as in each epoch or for the second text of a pair, give another seed, as ``(seed, epoch, 1)``.

    Args:
        texts: any strings.
        kind: a name in `KINDS`.
        strength: 1 to 5, see `Kind.shares`.
        seed: of the draws.
        rows: number of each text's row, in [0, 2^63); None for 0, 1, ...
        pools: words that ``append`` and ``prepend`` draw from, for each text; None, or an empty pool, for `HARMLESS`.
        protect: leave URLs, e-mail addresses, @names, numbers, placeholders, code and emoticons as they are.
        keep: words and phrases that stay as they are, in any case, besides.

    Raises:
        UserError: there is no such kind or strength, a text is not a string, or a phrase to keep is empty.
    """
    chosen = get_kind(kind)
    share = chosen.share(strength)
    base = blake2b(repr((_plain(seed), kind)).encode(), digest_size=32)
    results, kept = [], tuple(keep)
    numbers: Iterable[int] = range(len(texts)) if rows is None else rows
    for i, (text, row) in enumerate(zip(texts, numbers, strict=True)):
        if not isinstance(text, str):
            raise UserError(f"noise is for texts, and text {i} is {text!r:.40}")
        key = base.copy()
        key.update(int(row).to_bytes(8, "little"))
        draws = Draws(key.digest())
        edits = tuple(sorted(chosen.editor(Text(text, protect, kept), share, draws, pools[i] if pools else ())))
        results.append(NoisyText(apply_edits(text, edits), edits, draws.eligible))
    return results


def _plain(seed: Seed) -> tuple[int | str, ...]:
    """``seed`` as built-in numbers and words, of which NumPy's are written otherwise."""
    parts = seed if isinstance(seed, tuple) else (seed,)
    return tuple(part if isinstance(part, str) else int(part) for part in parts)
