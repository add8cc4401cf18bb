"""Data and models that a run takes from the Hugging Face Hub, and whether they can be reached."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from contraverse.errors import UserError
from contraverse.models.backbones import TIMM
from contraverse.pipeline.steps import steps_of
from contraverse.recipes import RunConfig, Stage, split_stages

_PATIENCE = 10.0
"""Seconds to wait for the Hub's answer about one name."""


class OnHub(NamedTuple):
    """Names on the Hub: data sets of rows, the model (None: it is here), and STS sets to measure on."""

    rows: list[str]
    model: str | None
    sts: list[str]


def on_hub(stage: Stage) -> OnHub:
    """The names on the Hub that the run of ``stage`` needs; a model that an earlier stage leaves is none."""
    steps = steps_of(stage.config)
    model = stage.config.model.name if stage.init_from is None and steps.model_on_hub() else None
    return OnHub(steps.rows_on_hub(), model, steps.sts_on_hub)


def check_hub(config: RunConfig) -> list[str]:
    """Check that everything that the run needs from the Hub is in the cache or can be reached, and list it.

    Raises:
        UserError: some of it is neither; the message names all of that, and the options that take local copies.
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
            hint=f"check the names and the network, or give local copies: {flags}{otherwise}",
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
    """True where the cache or the Hub has it."""
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
