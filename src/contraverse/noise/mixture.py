"""Noise for training: kinds and strengths drawn anew for each row in each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from contraverse.errors import UserError
from contraverse.noise.apply import noisy
from contraverse.noise.draws import Draws
from contraverse.noise.kinds import KINDS, get_kind, parse_kinds

STREAM = "training"
"""First part of the seeds of these draws, by which they differ from an evaluation's of the same number."""


@dataclass(frozen=True)
class NoiseMixture:
    """Noise that training rows get: of each row one of ``kinds`` at one of ``strengths``, anew in each epoch.

    A draw is decided by seed, epoch and row alone, whatever the batch, the process, or whether training was resumed.
    `evaluation` draws from another stream: the same kind, strength and seed give other edits there.

    Attributes:
        kinds: names in `contraverse.noise.KINDS`, all equally probable.
        strengths: 1 to 5, all equally probable.
        share: probability that a row gets noise in an epoch, in (0, 1]; None for a half where the noisy text takes the
            place of the clean one, and 1 where it stands beside it.
        seed: of the draws, >= 0.

    Raises:
        UserError: there is no such kind or strength, none is named, or the share is out of its range.
    """

    kinds: Sequence[str] = tuple(KINDS)
    strengths: Sequence[int] = (1, 2, 3)
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(parse_kinds(self.kinds)))
        object.__setattr__(self, "strengths", tuple(sorted(set(self.strengths))))
        for strength in self.strengths:
            get_kind(self.kinds[0]).share(strength)
        if not self.strengths:
            raise UserError("noise has one strength or more")
        if self.share is not None and not 0 < self.share <= 1:
            raise UserError(f"the share of rows with noise is above 0 and at most 1, not {self.share}")

    def share_for(self, views: int) -> float:
        """Probability that a row gets noise; ``views`` is 2 where its clean text is trained on beside it."""
        return self.share if self.share is not None else (1.0 if views == 2 else 0.5)

    def choice(self, row: int, epoch: int, views: int = 1, draw: int = 0) -> tuple[str, int] | None:
        """Kind and strength of a draw of noise on ``row`` in ``epoch``; None where it gets none."""
        key = blake2b(repr((STREAM, int(self.seed), int(epoch), *_further(draw))).encode(), digest_size=32)
        key.update(int(row).to_bytes(8, "little"))
        draws = Draws(key.digest())
        if draws.below(1 << 32) >= self.share_for(views) * (1 << 32):
            return None
        return draws.choice(self.kinds), draws.choice(self.strengths)

    def apply(self, texts: Sequence[str], row: int, epoch: int, views: int = 1, draw: int = 0) -> tuple[str, ...]:
        """The texts of one row, all with noise of one kind and strength, or as they are.

        Args:
            texts: one for each column.
            row: its number, >= 0.
            epoch: from 0.
            views: see `share_for`.
            draw: number of the draw, from 0, where a row has several in an epoch.
        """
        chosen = self.choice(row, epoch, views, draw)
        if chosen is None:
            return tuple(texts)
        kind, strength = chosen
        return tuple(
            noisy([text], kind, strength, (STREAM, self.seed, epoch, column, *_further(draw)), rows=[row])[0].text
            for column, text in enumerate(texts)
        )

    def describe(self, views: int = 1) -> str:
        """A sentence for the notes of a run."""
        kinds = "all kinds" if len(self.kinds) == len(KINDS) else ", ".join(self.kinds)
        part = "beside the clean text of" if views == 2 else "in the place of the text of"
        share = f"{100 * self.share_for(views):g} % of the training rows"
        levels = ", ".join(map(str, self.strengths))
        return f"noise, drawn anew each epoch, {part} {share}: {kinds}, strength {levels}"


def _further(draw: int) -> tuple[int, ...]:
    """Part of a draw's key; none of the first, which a row has alone."""
    return (draw,) if draw else ()
