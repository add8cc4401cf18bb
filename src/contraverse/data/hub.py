"""Data sets of the Hugging Face Hub, and tables in memory by the names of their splits."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from contraverse.data.folder import match_names
from contraverse.data.in_memory import table_of
from contraverse.data.splits import SplitName
from contraverse.data.tables import Table
from contraverse.data.tasks import Task
from contraverse.errors import UserError

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
