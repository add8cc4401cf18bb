"""Where pairs with gold similarities come from: the STS sets in a folder or on the Hub, one of them, or one's own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from contraverse.data import get_task, load_splits
from contraverse.data.files import read_table
from contraverse.data.sources import load_hub
from contraverse.data.splits import SplitName
from contraverse.data.tables import Table
from contraverse.errors import UserError

STS_SETS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sick")
"""STS12-16, the test split of STS-B, and the test split of SICK-R, in the order of the papers' tables."""

WITH_SUBSETS = STS_SETS[:5]

STS_PAIRS = dict(zip(STS_SETS, (3108, 1500, 3750, 3000, 1186, 1379, 4927), strict=True))
"""Pairs with a gold score in the papers' copy of each set, SentEval's."""

STS_ON_HUB = {name: f"mteb/{name}-sts" for name in WITH_SUBSETS} | {
    "stsb": "mteb/stsbenchmark-sts",
    "sick": "mteb/sickr-sts",
}
"""Copies on the Hugging Face Hub. They have no sub-sets, and that of SICK-R holds its training pairs as well."""

HUB = "hub"
"""In the place of a folder: the sets from the Hub."""

OWN = "pairs"
"""The name of a user's own pairs among the sets."""


@dataclass(frozen=True)
class StsSet:
    """Sentence pairs with gold similarities.

    Attributes:
        pairs: the sentences.
        scores: gold similarity of each pair, on any scale; NaN where there is none (the pair is then left out).
        subsets: name of the sub-set that each pair belongs to; empty where the set has none, or they are not known.
    """

    pairs: Sequence[tuple[str, str]]
    scores: Sequence[float]
    subsets: Sequence[str] = ()


@dataclass(frozen=True)
class StsSources:
    """Data sets that an encoder is measured on.

    Attributes:
        test: the sets by name; a user's own pairs are called ``pairs``.
        dev: the pairs that choose a checkpoint; None where there are none.
        notes: remarks for a reader of the figures.
    """

    test: Mapping[str, StsSet]
    dev: StsSet | None = None
    notes: list[str] = field(default_factory=list)


def find_sts(source: str | Path) -> StsSources:
    """Read the pairs in ``source``.

    It is one of these:

    - a folder with a folder for any of the sets (`load_sts`); ``stsb/validation`` chooses a checkpoint;
    - one set's folder, or a folder of one's own with files called test and validation (or one of them);
    - a file of one's own pairs: two columns of texts and one of scores, on any scale;
    - ``hub``: the seven sets from the Hugging Face Hub.

    Raises:
        UserError: none of these is there, or a file cannot be used.
    """
    path = Path(source).expanduser()
    if str(source) == HUB and not path.exists():
        return _noted(_hub_sets("test", STS_SETS), _hub_sets("validation", ["stsb"])["stsb"])
    if path.is_file():
        return _noted({OWN: _own(path, "test")}, None)
    if not path.is_dir():
        named = ", ".join(STS_SETS)
        hint = f"give a folder of STS sets ({named}), a file of pairs with scores, or {HUB}, for those on the Hub"
        raise UserError("there is no such file or folder", where=str(source), hint=hint)
    sets = [name for name in STS_SETS if _find(path / name, "test")]
    dev = _find(path / "stsb", "validation")
    if sets or dev:
        return _noted(load_sts(path, sets), load_sts(path, ["stsb"], "validation")["stsb"] if dev else None)
    test, validation = (_find(path, split) for split in ("test", "validation"))
    if test is None and validation is None:
        _refuse_missing(STS_SETS, str(path))
    name = path.name.lower() if path.name.lower() in STS_SETS else OWN
    own = {name: _set_or_own(test, name, "test")} if test else {}
    return _noted(own, _set_or_own(validation, name, "validation") if validation else None)


def load_sts(folder: str | Path, sets: Sequence[str] = STS_SETS, split: str = "test") -> dict[str, StsSet]:
    """Read ``<folder>/<set>/<split>.parquet``, or .csv, .tsv, .jsonl, for each of ``sets``.

    Columns: sentence1, sentence2, score (empty where there is none), and for STS12-16 subset, without which the set is
    scored as a whole alone. STS-B and SICK-R are scored as a whole by the protocol: a column subset there is ignored.

    Raises:
        UserError: files are missing (the message names all the sets), or a column or a sentence is.
    """
    folder = Path(folder)
    files = {name: file for name in sets if (file := _find(folder / name, split))}
    _refuse_missing([name for name in sets if name not in files], str(folder), split)
    return {name: _read(read_table(file), name) for name, file in files.items()}


def _noted(test: Mapping[str, StsSet], dev: StsSet | None) -> StsSources:
    notes = []
    if test and OWN not in test and (absent := [name for name in STS_SETS if name not in test]):
        notes.append(f"STS: no {', '.join(absent)}; the average is of {len(test)} of {len(STS_SETS)} sets")
    for name, sts_set in test.items():
        scored = sum(map(math.isfinite, sts_set.scores))
        if scored != STS_PAIRS.get(name, scored):
            notes.append(f"STS: {name} has {scored:,} scored pairs, where the papers' set has {STS_PAIRS[name]:,}")
    if whole := [name for name in WITH_SUBSETS if name in test and not test[name].subsets]:
        notes.append(f"STS: {', '.join(whole)} without sub-sets: scored by all alone, as the papers do")
    return StsSources(test, dev, notes)


def _hub_sets(split: SplitName, names: Sequence[str]) -> dict[str, StsSet]:
    sets = {}
    for name in names:
        tables = load_hub(STS_ON_HUB[name], get_task("stsb"))
        if split not in tables:
            raise UserError(f"there is no {split} split", where=STS_ON_HUB[name])
        (table,) = tables[split]
        sets[name] = _read(table, name)
    return sets


def _find(folder: Path, split: str) -> Path | None:
    paths = sorted(path for path in folder.glob(f"{split}.*") if path.is_file())
    return paths[0] if paths else None


def _set_or_own(file: Path, name: str, split: SplitName) -> StsSet:
    return _own(file, split) if name == OWN else _read(read_table(file), name)


def _own(file: Path, split: SplitName) -> StsSet:
    """A user's pairs, whatever their columns are called."""
    task = replace(get_task("stsb"), name=OWN, hub=None)
    rows = load_splits(task, {split: file}).need(split)
    return StsSet([(first, second) for first, second in rows.texts], list(rows.labels or ()))


def _read(table: Table, name: str) -> StsSet:
    wanted = ["sentence1", "sentence2", "score"]
    if absent := [column for column in wanted if column not in table.names]:
        raise UserError(f"no column {', '.join(absent)}", where=table.where, hint=f"it has {', '.join(table.names)}")
    wanted += ["subset"] * (name in WITH_SUBSETS and "subset" in table.names)
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
        raise UserError(faults[0], where=table.where, hint=f"rows that cannot be used: {len(faults)}")
    return StsSet(pairs, scores, subsets)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _number(value: object) -> float | None:
    """The number in a cell: NaN for an empty cell, None for anything else."""
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
