"""Semantic textual similarity by the protocol of SimCSE (Gao et al., 2021): seven sets, no training on them.

A set's figure is Spearman's rho x 100 between the gold scores and the cosine of the two embeddings. STS12-16
are made of sub-sets, and three aggregates are in use, which differ by several points: ``all`` (the sub-sets
concatenated, one rho: SimCSE, SCAL and USCAL report this), ``mean`` (of the sub-sets' rhos) and ``wmean``
(weighted by their number of pairs).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data import TextData
from contraverse.data.formats import read_table
from contraverse.errors import UserError
from contraverse.evaluation.metrics import spearman
from contraverse.models import TextModel

STS_SETS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sick")
"""STS12-16, the test split of STS-B, and the test split of SICK-R, in the order of the papers' tables."""

WITH_SUBSETS = STS_SETS[:5]

Encode = Callable[[list[str]], np.ndarray]
"""Sentences to embeddings (N, Z), in order; must not cut them short."""


@dataclass(frozen=True)
class StsSet:
    """Sentence pairs with gold similarities.

    Attributes:
        pairs: the sentences.
        scores: gold similarity of each pair, on any scale; NaN where there is none (the pair is then left out).
        subsets: name of the sub-set that each pair belongs to; empty where the set has none.
    """

    pairs: Sequence[tuple[str, str]]
    scores: Sequence[float]
    subsets: Sequence[str] = ()


@dataclass(frozen=True)
class StsScores:
    """Spearman x 100 of one set: see the module for the three aggregates. Without sub-sets they are equal."""

    all: float
    mean: float
    wmean: float


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
        """``all`` of each set under its name, and ``average``."""
        return {name: scores.all for name, scores in self.sets.items()} | {"average": self.average}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"average": self.average, "sets": {name: asdict(scores) for name, scores in self.sets.items()}}


def evaluate_sts(
    encode: Encode, source: str | Path | Mapping[str, StsSet], sets: Sequence[str] = STS_SETS
) -> StsReport:
    """Score ``encode`` on the STS sets; each distinct sentence is encoded once over all of them.

    Args:
        encode: for a `TextModel`, its ``encode``; the protocol does not cut sentences at test, and that does not.
        source: the sets by name, or a folder for `load_sts`.
        sets: which to score.

    Raises:
        UserError: a set is missing (the message names all that are) or malformed.
    """
    if isinstance(source, str | Path):
        source = load_sts(source, sets)
    _refuse_missing([name for name in sets if name not in source], "the given sets")
    chosen = {name: _scored(source[name], name) for name in sets}
    vectors = _encode_once(encode, (pair for found in chosen.values() for pair in found.pairs))
    return StsReport({name: _score(found, vectors) for name, found in chosen.items()})


class StsbDev:
    """Evaluator for training: ``stsb_spearman``, Spearman x 100 of cosine on the validation split of STS-B.

    Args:
        source: the pairs, with their scores as labels where they are a `TextData`, or a folder that holds
            ``stsb/validation.parquet`` (`load_sts`).

    Raises:
        UserError: the folder has no such file, or the rows are not pairs with scores.
    """

    def __init__(self, source: str | Path | StsSet | TextData) -> None:
        if isinstance(source, str | Path):
            source = load_sts(source, ["stsb"], split="validation")["stsb"]
        elif isinstance(source, TextData):
            source = StsSet([(row[0], row[-1]) for row in source.texts], source.labels or ())
        self.dev = _scored(source, "stsb")

    def __call__(self, model: TextModel) -> dict[str, float]:
        vectors = _encode_once(model.encode, self.dev.pairs)
        return {"stsb_spearman": _score(self.dev, vectors).all}


def load_sts(folder: str | Path, sets: Sequence[str] = STS_SETS, split: str = "test") -> dict[str, StsSet]:
    """Read ``<folder>/<set>/<split>.parquet``, or .csv, .tsv, .jsonl, for each of ``sets``.

    Columns: sentence1, sentence2, score (empty where there is none), and subset for STS12-16. STS-B and SICK-R
    are scored as a whole by the protocol: a column subset there is ignored.

    Raises:
        UserError: files are missing (the message names all the sets), or a column or a sentence is.
    """
    folder = Path(folder)
    files = {name: file for name in sets if (file := _find(folder / name, split))}
    _refuse_missing([name for name in sets if name not in files], str(folder), split)
    return {name: _read(file, with_subsets=name in WITH_SUBSETS) for name, file in files.items()}


def _find(folder: Path, split: str) -> Path | None:
    found = sorted(path for path in folder.glob(f"{split}.*") if path.is_file())
    return found[0] if found else None


def _read(file: Path, with_subsets: bool) -> StsSet:
    table = read_table(file)
    wanted = ["sentence1", "sentence2", "score"] + ["subset"] * with_subsets
    if absent := [name for name in wanted if name not in table.names]:
        raise UserError(f"no column {', '.join(absent)}", where=str(file), hint=f"it has {', '.join(table.names)}")
    faults = [f"{table.unit} {fault.row} {fault.problem}" for fault in table.faults]
    pairs: list[tuple[str, str]] = []
    scores: list[float] = []
    subsets: list[str] = []
    for row, first, second, score, *subset in zip(table.rows, *map(table.column, wanted), strict=True):
        gold = _number(score)
        if not (_is_text(first) and _is_text(second)):
            faults.append(f"{table.unit} {row} lacks a sentence")
        elif gold is None:
            faults.append(f"{table.unit} {row} has the score {score!r}")
        else:
            pairs.append((first, second))
            scores.append(gold)
            subsets += map(str, subset)
    if faults:
        raise UserError(faults[0], where=str(file), hint=f"rows that cannot be used: {len(faults)}")
    return StsSet(pairs, scores, subsets)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _number(value: object) -> float | None:
    """NaN for an empty cell, None for what is no number."""
    if value is None or value == "":
        return math.nan
    try:
        return float(str(value))
    except ValueError:
        return None


def _refuse_missing(missing: Sequence[str], where: str, split: str = "test") -> None:
    if missing:
        raise UserError(
            f"no STS set {', '.join(missing)}",
            where=where,
            hint=f"each is a file <set>/{split}.parquet with columns sentence1, sentence2, score (and subset)",
        )


def _scored(found: StsSet, name: str) -> StsSet:
    """The pairs that have a gold score, as SentEval drops the others."""
    if len(found.pairs) != len(found.scores) or (found.subsets and len(found.subsets) != len(found.pairs)):
        raise UserError("pairs, scores and sub-sets differ in number", where=name)
    kept = [i for i, score in enumerate(found.scores) if math.isfinite(score)]
    if not kept:
        raise UserError("no pair has a gold score", where=name)
    return StsSet(
        [found.pairs[i] for i in kept],
        [found.scores[i] for i in kept],
        [found.subsets[i] for i in kept] if found.subsets else (),
    )


def _encode_once(encode: Encode, pairs: Iterable[tuple[str, str]]) -> dict[str, np.ndarray]:
    distinct = list(dict.fromkeys(sentence for pair in pairs for sentence in pair))
    vectors = np.asarray(encode(distinct), dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(distinct, vectors / np.where(lengths > 0, lengths, 1.0), strict=True))


def _score(found: StsSet, vectors: Mapping[str, np.ndarray]) -> StsScores:
    left, right = (np.stack([vectors[pair[side]] for pair in found.pairs]) for side in (0, 1))
    # Rounding makes pairs of identical sentences tie at 1 and not differ in the last bit.
    cosine, gold = (left * right).sum(1).round(12), np.asarray(found.scores)
    whole = spearman(cosine, gold)
    if not found.subsets:
        return StsScores(whole, whole, whole)
    names, which, sizes = np.unique(np.asarray(found.subsets), return_inverse=True, return_counts=True)
    parts = [spearman(cosine[which == i], gold[which == i]) for i in range(len(names))]
    return StsScores(whole, float(np.mean(parts)), float(np.average(parts, weights=sizes)))
