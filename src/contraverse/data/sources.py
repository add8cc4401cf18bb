"""Tables of several splits: a folder of files, a data set of the Hub, and tables that Python holds already."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from contraverse.data.columns import is_missing
from contraverse.data.files import EXTENSIONS, extension, is_compressed
from contraverse.data.splits import BY_SPLIT, SPLITS, SplitName
from contraverse.data.tables import Table, check_names
from contraverse.data.tasks import Task
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


_PATIENCE = 10.0
"""Seconds to wait for the Hub's first answer: without this, `datasets` retries for half a minute."""
_WAY_OUT = "Check the name and the network, or give an existing local file or folder with --data."


class OnHub(Protocol):
    """A task with a Hub data set of its own, or none."""

    @property
    def name(self) -> str: ...
    @property
    def hub(self) -> tuple[str, str | None] | None: ...
    @property
    def splits(self) -> Mapping[str, str]: ...


def load_hub(source: str | None, task: Task) -> dict[SplitName, list[Table]]:
    """The splits of a Hub data set as tables; see `hub_splits`."""
    return {
        split: [table_of(part, where) for where, part in parts] for split, parts in hub_splits(source, task).items()
    }


def hub_splits(source: str | None, task: OnHub) -> dict[SplitName, list[tuple[str, Any]]]:
    """The splits of a Hub data set, each with what it is called in messages; ``source`` None is the task's own.

    With ``HF_HUB_OFFLINE=1`` in the environment the local cache is used and no connection is tried.

    Raises:
        UserError: the task has no data set of its own; or the data set does not exist, cannot be reached
            within seconds, cannot be read, or has no split that is called train or like it.
    """
    if source is None and task.hub is None:
        raise UserError(f"task {task.name!r} has no data set of its own", hint="Give a file or folder with --data.")
    name, _, configuration = (source or "").partition(":")
    if task.hub and name in ("", task.hub[0]):
        name, configuration = task.hub[0], configuration or task.hub[1] or ""
    where = f"{name}:{configuration}" if configuration else name
    splits = _fetch(name, configuration or None, where)
    chosen = match_names(splits, task.splits)
    if not chosen and len(splits) == 1:
        chosen = {"train": (next(iter(splits)),)}
    if not chosen:
        raise UserError(f"no split is called train, validation or test: {', '.join(splits)}", where=where)
    return {
        split: [(f"{where} {split_name}", splits[split_name]) for split_name in names]
        for split, names in chosen.items()
    }


def _fetch(name: str, configuration: str | None, where: str) -> dict[str, Any]:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        with suppress(OfflineModeIsEnabled):
            HfApi().dataset_info(name, timeout=_PATIENCE)
        return dict(datasets.load_dataset(name, configuration))
    except RepositoryNotFoundError as error:
        raise UserError(
            "there is no such data set on the Hub, nor such a local file or folder", where=where, hint=_WAY_OUT
        ) from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}".strip()
        hint = f"Name the configuration: {name}:CONFIGURATION." if "Config name is missing" in why else _WAY_OUT
        raise UserError(f"the Hub's data set cannot be loaded ({why[:500]})", where=where, hint=hint) from error


def tables_by_split(source: Any) -> tuple[dict[SplitName, list[tuple[str, Any]]], list[str]]:
    """The tables of each split of ``source``, each with what it is called in messages, and notes.

    ``source``: one table, which is the training rows, or tables by the names of their splits, told as `match_names`
    says.

    Raises:
        UserError: there are several, and no name says which is which.
    """
    if not isinstance(source, Mapping):
        return {"train": [("the table", source)]}, []
    chosen = match_names(map(str, source))
    if not chosen and len(source) == 1:
        chosen = {"train": (str(next(iter(source))),)}
    if not chosen:
        raise UserError(f"no split is called train, validation or test: {', '.join(map(str, source)) or 'none at all'}")
    tables = {split: [(f"the {name} table", source[name]) for name in names] for split, names in chosen.items()}
    used = {name for names in chosen.values() for name in names}
    left = [str(name) for name in source if name not in used]
    return tables, [f"left out the splits {', '.join(left)}"] if left else []


_PART_KEYS = ("task", "source", "split", "weight")
"""Keys of a part of a mixture (`contraverse.data.mixture`), which is written as a dict too."""


def is_table(source: Any) -> bool:
    """True for a pandas data frame, for one split of `datasets`, and for a list of rows.

    A list of rows is two dicts or more with a key in common, of which none has a key that is only a part's.
    """
    if isinstance(source, list):
        dicts = len(source) > 1 and all(isinstance(row, Mapping) for row in source)
        return dicts and bool(set.intersection(*map(set, source))) and not set(_PART_KEYS).intersection(*source[:1])
    frame = hasattr(source, "iloc") and hasattr(source, "columns")
    return frame or (hasattr(source, "column_names") and hasattr(source, "features") and not isinstance(source, dict))


def read_in_memory(source: Any, where: str) -> Table:
    """The rows of what `is_table` is true for; ``where`` names it in messages, and its rows count from 1.

    Raises:
        UserError: two columns have one name.
    """
    if isinstance(source, list):
        names = tuple(dict.fromkeys(str(name) for row in source for name in row))
        values = [{str(name): None if is_missing(value) else value for name, value in row.items()} for row in source]
        return Table(
            where=where,
            names=names,
            column=lambda name: [row.get(name) for row in values],
            rows=range(1, len(source) + 1),
        )
    if not hasattr(source, "iloc"):
        return table_of(source, where)
    names = tuple(map(str, source.columns))
    check_names(names, where)

    def column(name: str) -> Sequence[Any]:
        values = source.iloc[:, names.index(name)].tolist()
        return [None if is_missing(value) else value for value in values]

    return Table(where=where, names=names, column=column, rows=range(1, len(source) + 1))


def table_of(split: Any, where: str) -> Table:
    """One split of `datasets` as a table."""

    def column(name: str) -> Sequence[Any]:
        return split[name][:]

    classes = {name: feature.names for name, feature in split.features.items() if hasattr(feature, "names")}
    return Table(
        where=where, names=tuple(split.column_names), column=column, rows=range(1, len(split) + 1), classes=classes
    )


def python_words(message: str) -> str:
    """``message`` with arguments of a Python call in place of options of the command line."""
    message = message.replace("--on-bad-row skip", 'on_bad_row="skip"')
    message = re.sub(r"--encoding ([\w-]+\w)", r'encoding="\1"', message)
    message = re.sub(r"--size (\d+)", r"size=\1", message)
    return re.sub(r"--([a-z]+)\b", r"\1=", message)


def in_python(error: UserError) -> UserError:
    """``error`` in the words of a Python call."""
    return UserError(python_words(error.what), where=error.where, hint=error.hint and python_words(error.hint))
