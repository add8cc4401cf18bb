"""Results of a search for adversaries."""

from dataclasses import asdict, dataclass, field
from typing import Any

from contraverse.errors import UserError


@dataclass(frozen=True)
class Closeness:
    """Limits on the distance of a rewritten sentence from its original; all five have to hold.

    ``max_edits``: words and signs that are inserted, deleted or replaced (Levenshtein), >= 1. ``max_share``: the same
    as a share of the original's, above 0 and up to 1. ``min_similarity``: cosine of the two sentence embeddings.
    ``max_drop``: by how much the label's log-odds may fall in the eyes of a linear classifier on the embeddings of the
    data, >= 0; infinite asks none. ``min_word_similarity``: least cosine, in the encoder's hidden states, of a word and
    the one in its place, for sentences of as many words as the original's, which all others fail; -1 asks none.
    """

    max_edits: int = 3
    max_share: float = 0.3
    min_similarity: float = 0.8
    max_drop: float = 0.7
    min_word_similarity: float = 0.8

    def __post_init__(self) -> None:
        if self.max_edits < 1:
            raise UserError(f"max_edits is at least 1, not {self.max_edits}")
        if not 0 < self.max_share <= 1:
            raise UserError(f"max_share lies above 0 and up to 1, not {self.max_share}")
        if not -1 <= self.min_similarity <= 1:
            raise UserError(f"min_similarity lies between -1 and 1, not {self.min_similarity}")
        if not self.max_drop >= 0:
            raise UserError(f"max_drop is at least 0, not {self.max_drop}")
        if not -1 <= self.min_word_similarity <= 1:
            raise UserError(f"min_word_similarity lies between -1 and 1, not {self.min_word_similarity}")

    def holds(self, edits: int, share: float, similarity: float, drop: float, word_similarity: float = 1.0) -> bool:
        """True for a sentence of these figures that is close."""
        few = edits <= self.max_edits and share <= self.max_share
        alike = similarity >= self.min_similarity and word_similarity >= self.min_word_similarity
        return few and alike and drop <= self.max_drop


@dataclass(frozen=True)
class Adversary:
    """A sentence that changes the model's prediction.

    Attributes:
        row: number of its original in the data.
        original, rewritten: the two texts.
        label: class of the original, by name.
        prediction_original, prediction_rewritten: the model's classes, by name, from the two texts alone.
        similarity: cosine of the two sentence embeddings.
        edits: words and signs that differ (Levenshtein).
        share: the same over the number of them in the original.
        epsilon: radius of the attack that it was read from.
        close: whether it is within the `Closeness` that was asked for.
        drop: by how much a linear classifier on the embeddings thinks the label less likely, in log-odds; None where
            it is not asked.
        word_similarity: least cosine of a changed word and the one in its place; None where it is not asked, or where
            the sentence is not close for another reason.
        prediction_other_original, prediction_other: another model's classes of the two texts.
    """

    row: int
    original: str
    rewritten: str
    label: str
    prediction_original: str
    prediction_rewritten: str
    similarity: float
    edits: int
    share: float
    epsilon: float
    close: bool
    drop: float | None = None
    word_similarity: float | None = None
    prediction_other_original: str | None = None
    prediction_other: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without ``row`` and ``close``, and without another model where none was asked."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("row", "close")}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class AdversaryReport:
    """Results of a search. Each row counts once, for the most that any radius gave.

    Attributes:
        rows: rows of the data.
        attacked: those that are classified rightly.
        unchanged: those attacked in which the head reads no word to put for another, at any radius tried.
        read: percent of the attacked rows' tokens that the head reads rightly, by epsilon, at 0 without an attack;
            None where no row was left.
        found: for each row whose prediction some sentence changes, that sentence: a close one of the smallest
            radius, or else the most similar.
    """

    rows: int
    attacked: int
    unchanged: int
    read: dict[float, float | None]
    found: list[Adversary] = field(repr=False)

    @property
    def kept(self) -> list[Adversary]:
        """Adversaries that are close."""
        return [adversary for adversary in self.found if adversary.close]

    @property
    def success_rate(self) -> float:
        """Percent of the attacked rows that have a kept sentence."""
        return 100 * len(self.kept) / self.attacked if self.attacked else 0.0

    @property
    def against(self) -> tuple[int, int] | None:
        """Count the kept ones that another model predicts rightly, and those of them that fool it when rewritten."""
        asked = [adversary for adversary in self.kept if adversary.prediction_other is not None]
        right = [a for a in asked if a.prediction_other_original == a.label]
        return (len(right), sum(a.prediction_other != a.label for a in right)) if asked else None

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the sentences, for JSON."""
        right, fooled = self.against or (None, None)
        return {
            "rows": self.rows,
            "attacked": self.attacked,
            "unchanged": self.unchanged,
            "changed": self.attacked - self.unchanged,
            "changed_prediction": len(self.found),
            "kept": len(self.kept),
            "success_rate": self.success_rate,
            "read": {f"{epsilon:g}": share for epsilon, share in self.read.items()},
            "other_right": right,
            "other_fooled": fooled,
        }
