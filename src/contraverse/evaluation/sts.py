"""Semantic textual similarity by the protocol of SimCSE (Gao et al., 2021): seven sets, no training on them.

A set's figure is Spearman's rho x 100 between the gold scores and the cosine of the two embeddings. STS12-16
are made of sub-sets, and three aggregates are in use, which differ by several points: ``all`` (the sub-sets
concatenated, one rho: SimCSE, SCAL and USCAL report this), ``mean`` (of the sub-sets' rhos) and ``wmean``
(weighted by their number of pairs). `contraverse.evaluation.sts_sets` reads the sets.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation.metrics import spearman
from contraverse.evaluation.sts_sets import WITH_SUBSETS, StsSet, find_sts, load_sts
from contraverse.models import TextModel

Encode = Callable[[list[str]], np.ndarray]
"""Sentences to embeddings (N, Z), in order; must not cut them short."""


@dataclass(frozen=True)
class StsScores:
    """Spearman x 100 of one set: see the module for the three aggregates.

    Of a set that has no sub-sets they are equal; None where it has some and they are not known.
    """

    all: float
    mean: float | None
    wmean: float | None


@dataclass(frozen=True)
class StsReport:
    """Scores of each set."""

    sets: dict[str, StsScores]

    @property
    def average(self) -> float:
        """Mean over the sets of ``all``, each rounded to two decimals first, as SimCSE's script prints it."""
        return float(np.mean([round(scores.all, 2) for scores in self.sets.values()]))

    @property
    def metrics(self) -> dict[str, float]:
        """``all`` of each set under its name, and ``average`` where there are several."""
        figures = {name: scores.all for name, scores in self.sets.items()}
        return figures | {"average": self.average} if len(figures) > 1 else figures

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"average": self.average, "sets": {name: asdict(scores) for name, scores in self.sets.items()}}


def evaluate_sts(
    encode: Encode, source: str | Path | Mapping[str, StsSet], sets: Sequence[str] | None = None
) -> StsReport:
    """Score ``encode`` on STS sets or own pairs; each distinct sentence is encoded once over all of them.

    Args:
        encode: for a `TextModel`, its ``encode``; the protocol does not cut sentences at test, and that does not.
        source: the sets by name, or a folder or file for `find_sts`.
        sets: which to score; None for those that are there.

    Raises:
        UserError: there is none, one of ``sets`` is missing (the message names all that are), or one is malformed.
    """
    if isinstance(source, str | Path):
        source = load_sts(source, sets) if sets is not None and Path(source).is_dir() else find_sts(source).test
    sets = list(source) if sets is None else sets
    missing = [name for name in sets if name not in source]
    if missing or not sets:
        raise UserError(f"no STS set {', '.join(missing) or 'to score'}", where="the given sets")
    chosen = {name: pairs_with_scores(source[name], name) for name in sets}
    vectors = _encode_once(encode, (pair for sts_set in chosen.values() for pair in sts_set.pairs))
    return StsReport({name: _score(sts_set, vectors, name in WITH_SUBSETS) for name, sts_set in chosen.items()})


class StsbDev:
    """Evaluator for training: ``stsb_spearman``, Spearman x 100 of cosine on the validation split of STS-B.

    Args:
        source: the pairs, with their scores as labels where they are a `TextData`, or what `find_sts` reads, which has
            a validation split of STS-B or of own pairs.

    Raises:
        UserError: there is no such split, or the rows are not pairs with scores.
    """

    def __init__(self, source: str | Path | StsSet | TextData) -> None:
        if isinstance(source, str | Path):
            dev = find_sts(source).dev
            if dev is None:
                hint = "the pairs that choose a checkpoint are a file stsb/validation.parquet"
                raise UserError("no validation split of stsb", where=str(source), hint=hint)
            source = dev
        elif isinstance(source, TextData):
            source = StsSet([(row[0], row[-1]) for row in source.texts], source.labels or ())
        self.dev = pairs_with_scores(source, "stsb")

    def __call__(self, model: TextModel) -> dict[str, float]:
        vectors = _encode_once(model.encode, self.dev.pairs)
        return {"stsb_spearman": _score(self.dev, vectors).all}


def pairs_with_scores(sts_set: StsSet, name: str) -> StsSet:
    """The pairs that have a gold score, as SentEval drops the others."""
    if len(sts_set.pairs) != len(sts_set.scores) or (sts_set.subsets and len(sts_set.subsets) != len(sts_set.pairs)):
        raise UserError("pairs, scores and sub-sets differ in number", where=name)
    kept = [i for i, score in enumerate(sts_set.scores) if math.isfinite(score)]
    if not kept:
        raise UserError("no pair has a gold score", where=name)
    return StsSet(
        [sts_set.pairs[i] for i in kept],
        [sts_set.scores[i] for i in kept],
        [sts_set.subsets[i] for i in kept] if sts_set.subsets else (),
    )


def _encode_once(encode: Encode, pairs: Iterable[tuple[str, str]]) -> dict[str, np.ndarray]:
    distinct = list(dict.fromkeys(sentence for pair in pairs for sentence in pair))
    vectors = np.asarray(encode(distinct), dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(distinct, vectors / np.where(lengths > 0, lengths, 1.0), strict=True))


def _score(sts_set: StsSet, vectors: Mapping[str, np.ndarray], has_subsets: bool = False) -> StsScores:
    left, right = (np.stack([vectors[pair[side]] for pair in sts_set.pairs]) for side in (0, 1))  # (N, Z)
    # Rounding makes pairs of identical sentences tie at 1 and not differ in the last bit.
    cosine, gold = (left * right).sum(1).round(12), np.asarray(sts_set.scores)
    whole = spearman(cosine, gold)
    if not sts_set.subsets:
        return StsScores(whole, *((None, None) if has_subsets else (whole, whole)))
    names, which, sizes = np.unique(np.asarray(sts_set.subsets), return_inverse=True, return_counts=True)
    parts = [spearman(cosine[which == i], gold[which == i]) for i in range(len(names))]
    return StsScores(whole, float(np.mean(parts)), float(np.average(parts, weights=sizes)))
