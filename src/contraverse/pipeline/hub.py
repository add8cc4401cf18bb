"""What a run takes from the Hugging Face Hub, and whether it can be had."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from contraverse.data import ImageTask, Task, any_task
from contraverse.data.files import is_local as rows_are_local
from contraverse.data.images.load import is_local as images_are_local
from contraverse.data.mixture import find_parts
from contraverse.errors import UserError
from contraverse.evaluation import STS_ON_HUB, StsSources, find_sts
from contraverse.evaluation.sts_sets import HUB
from contraverse.methods import METHODS
from contraverse.models.backbones import TIMM, is_backbone
from contraverse.recipes import ImageRunConfig, RunConfig, Stage, split_stages

_PATIENCE = 10.0
"""Seconds to wait for the Hub's answer about one name."""


class OnHub(NamedTuple):
    """Names on the Hub: data sets of rows, the model (None: it is here), and STS sets to measure on."""

    rows: list[str]
    model: str | None
    sts: list[str]


def on_hub(stage: Stage) -> OnHub:
    """The names on the Hub that the run of ``stage`` needs; a model that an earlier stage leaves is none."""
    config = stage.config
    model = config.model.name if stage.init_from is None and _model_on_hub(config) else None
    needed = measures_sts(config) and config.evaluation.sts == HUB and not Path(HUB).exists()
    return OnHub(_rows_on_hub(config), model, list(STS_ON_HUB.values()) if needed else [])


def measures_sts(config: RunConfig) -> bool:
    """True where the run trains a sentence encoder that is measured on pairs."""
    if isinstance(config, ImageRunConfig) or config.evaluation.sts is None:
        return False
    return METHODS[config.method.name].requires != "labels"


def sts_of(config: RunConfig) -> StsSources | None:
    """The pairs that the run's encoder is chosen and measured by; None where there are none.

    Raises:
        UserError: they cannot be used.
    """
    if not measures_sts(config):
        return None
    try:
        return find_sts(str(config.evaluation.sts))
    except UserError as error:
        raise UserError(error.what, where=f"evaluation.sts: {error.where}", hint=error.hint) from error


def check_hub(config: RunConfig) -> list[str]:
    """See that all that the run needs from the Hub is in the cache or can be reached; gives what it is.

    Raises:
        UserError: some of it is neither; all of that is named, with what to give in its place.
    """
    parts = [on_hub(stage) for stage in split_stages(config)]
    needed = {"model": dict.fromkeys(part.model for part in parts if part.model)}
    needed["data"] = dict.fromkeys(name for part in parts for name in part.rows)
    needed["STS"] = dict.fromkeys(name for part in parts for name in part.sts)
    missing = {kind: [name for name in names if not _reachable(name, kind)] for kind, names in needed.items()}
    if any(missing.values()):
        flags = " ".join(_LOCAL[kind] for kind, names in missing.items() if names)
        otherwise = "; without --paper it trains minilm, which needs no network" if config.paper else ""
        raise UserError(
            f"cannot be had from the Hugging Face Hub: {', '.join(_listed(missing))}",
            hint=f"Check the names and the network, or give local copies: {flags}{otherwise}.",
        )
    return _listed({kind: list(names) for kind, names in needed.items()})


_LOCAL = {
    "model": "--model FOLDER",
    "data": "--data FOLDER (with files train, validation and test)",
    "STS": "--set evaluation.sts=FOLDER",
}


def _listed(names: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{kind} {', '.join(named)}" for kind, named in names.items() if named]


def _reachable(name: str, kind: str) -> bool:
    """True where a cache has it or the Hub does."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, model = name.partition(":")[0], kind == "model"
    if name.startswith(TIMM):  # timm knows its weights by shorter names than the Hub does
        return True
    if model and isinstance(try_to_load_from_cache(repository, "config.json"), str):
        return True
    flat = repository.replace("/", "--")
    kept = [Path(HF_HUB_CACHE) / f"datasets--{flat}", Path(HF_DATASETS_CACHE) / repository.replace("/", "___")]
    if not model and any(folder.is_dir() for folder in kept):
        return True
    with suppress(Exception):  # offline, no such name, no answer: it cannot be had, whatever the reason
        if model:
            HfApi().model_info(repository, timeout=_PATIENCE)
        else:
            HfApi().dataset_info(repository, timeout=_PATIENCE)
        return True
    return False


def _model_on_hub(config: RunConfig) -> bool:
    name = config.model.name
    if isinstance(config, ImageRunConfig):
        return name.startswith(TIMM) and config.model.pretrained
    return name != "minilm" and not is_backbone(name) and not rows_are_local(name)


def _rows_on_hub(config: RunConfig) -> list[str]:
    source, task = config.data.source, any_task(config.task)
    if isinstance(config, ImageRunConfig):
        if isinstance(source, str):
            return [] if images_are_local(source) else [source]
        return _own(task) if source is None else []
    parts = find_parts(source)
    if parts is None:
        if isinstance(source, str):
            return [] if rows_are_local(source) else [source]
        return _own(task) if source is None else []
    found = []
    for part in (part for listed in parts.values() for part in listed):
        if part.source is None:
            found += _own(any_task(part.task) if part.task else task)
        elif not rows_are_local(str(part.source)):
            found.append(str(part.source))
    return list(dict.fromkeys(found))


def _own(task: Task | ImageTask) -> list[str]:
    """The task's own data set; none where loading says so, or where it comes with a package."""
    return [":".join(filter(None, task.hub))] if task.hub else []
