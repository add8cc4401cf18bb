"""Training, validation and test rows by the names of files in a folder, or of splits of a data set."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from contraverse.data.files import EXTENSIONS, extension, is_compressed
from contraverse.data.splits import BY_SPLIT, SPLITS, SplitName
from contraverse.errors import UserError

_USUAL: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
SHARD = re.compile(r"[-_.]\d+-of-\d+$")
"""End of the name of one of several files that hold one split together."""


def rank(name: str, split: SplitName, preferred: str) -> tuple[int, int, str] | None:
    """Rank of ``name`` as a name of the split: smaller is better, None where it names another thing.

    First ``preferred`` (the task's name for the split: "validation_matched") and its spellings ("dev_matched"), then
    the usual names, then names that begin with a usual one as a word ("train_part", "testset"), the shortest first.
    """
    folded = name.casefold()
    usual = _USUAL[split]
    wanted = [preferred, *(preferred.replace(split, other) for other in usual), *usual]
    if folded in wanted:
        return wanted.index(folded), 0, folded
    if re.match(f"({'|'.join(usual)})(set|data)?(?![a-z])", folded):
        return len(wanted), len(folded), folded
    return None


def match_names(names: Iterable[str], splits: Mapping[str, str] | None = None) -> dict[SplitName, tuple[str, ...]]:
    """The names that make each split, of splits that are named at all.

    ``splits``: a task's own names for them, several joined by ``+`` ("dev_r1+dev_r2"), all of which are taken where
    they are there; else it is the one that names the split best.
    """
    folded = {name.casefold(): name for name in names}
    chosen: dict[SplitName, tuple[str, ...]] = {}
    for split in SPLITS:
        preferred = (splits or {}).get(split, split)
        parts = preferred.split("+")
        ranked = {name: rank(name, split, preferred) for name in folded.values()}
        fitting = {name: place for name, place in ranked.items() if place is not None}
        if len(parts) > 1 and set(parts) <= set(folded):
            chosen[split] = tuple(folded[part] for part in parts)
        elif fitting:
            chosen[split] = (min(fitting, key=lambda name: fitting[name]),)
    return chosen


def find_files(folder: Path, splits: Mapping[str, str]) -> tuple[dict[SplitName, list[Path]], list[str]]:
    """The files of each split in ``folder``, and notes on files that were left out.

    By file name without its endings, as in `rank`: ``train`` wins over ``train_sentences``; shards
    (``train-00000-of-00002``) belong together; of one name in two formats the first of `EXTENSIONS` is taken,
    uncompressed before compressed. Where no name says anything, a folder of one file is a training set.

    Where the folder holds none, but its folder ``data`` does, or the only folder in it with files, that is read.

    Raises:
        UserError: the folder holds no file that can be read, or several of which none names a split.
    """
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"the folder cannot be read: {error.strerror}", where=str(folder)) from error
    files = [path for path in inside if path.is_file() and extension(path) in EXTENSIONS]
    holders = [path for path in inside if path.is_dir() and _holds_files(path)]
    inner = next((path for path in holders if path.name == "data"), holders[0] if len(holders) == 1 else None)
    if not files and inner is not None:
        # A repository of the Hub has its files in data/, an archive in a folder of its own.
        files_inside, notes = find_files(inner, splits)
        return files_inside, [f"{folder}: its files are those of {inner.name}/", *notes]
    if not files:
        shown = ", ".join(path.name for path in inside[:10]) or "nothing"
        raise UserError(
            "the folder holds no file that can be read",
            where=str(folder),
            hint=f"Known endings: {', '.join(EXTENSIONS)}, also with .gz or .bz2. Found: {shown}.",
        )
    groups: dict[str, dict[tuple[bool, int], list[Path]]] = {}
    for path in files:
        stem = path.name[: -len(extension(path) + (path.suffix if is_compressed(path) else ""))]
        kind = (is_compressed(path), EXTENSIONS.index(extension(path)))
        groups.setdefault(SHARD.sub("", stem), {}).setdefault(kind, []).append(path)
    chosen = match_names(groups, splits)
    if not chosen:
        if len(groups) > 1:
            raise UserError(
                f"no file of the folder is called train: {', '.join(path.name for path in files[:10])}",
                where=str(folder),
                hint="Name the training file itself with --data, or call it train, or name the files by split: "
                + BY_SPLIT,
            )
        chosen = {"train": (next(iter(groups)),)}
    taken = {split: [file for name in names for file in _files(groups[name])] for split, names in chosen.items()}
    used = {path for paths in taken.values() for path in paths}
    left = [path.name for path in files if path not in used]
    return taken, [f"{folder}: left out {', '.join(left)}"] if left else []


def _holds_files(folder: Path) -> bool:
    try:
        return any(path.is_file() and extension(path) in EXTENSIONS for path in folder.iterdir())
    except OSError:
        return False


def _files(kinds: Mapping[tuple[bool, int], list[Path]]) -> list[Path]:
    """The files of one name: those of the format that goes first."""
    return kinds[min(kinds)]
