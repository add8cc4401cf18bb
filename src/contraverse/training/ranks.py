"""Runs on several processes: random draws of each, shares of a batch, and unsupported settings."""

import os
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
from torch import Tensor
from transformers import TrainingArguments

from contraverse.errors import UserError
from contraverse.functional import from_all, processes

Sums = Mapping[str, tuple[Tensor | float, int]]
"""Sum and count of each part of the losses."""


def started_processes() -> int:
    """Number of processes of the run before they are connected: torchrun's ``WORLD_SIZE``."""
    return max(processes(), int(os.environ.get("WORLD_SIZE", "1")))


def rank_seed(seed: int, rank: int) -> int:
    """Seed of process ``rank`` of several, for views, random starts, dropout, masks and negatives.

    With one seed for all, row i of every process would have the same draws, and they are each other's negatives.
    """
    return int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


def batch_of_process(rows: int, accumulated: int = 1) -> int:
    """The batch of one process in a step of ``rows`` rows, over all processes and ``accumulated`` batches of each.

    Raises:
        UserError: the rows cannot be divided.
    """
    each = started_processes() * accumulated
    if rows % each:
        over = f"{started_processes()} processes" + (f" and {accumulated} accumulated batches" * (accumulated > 1))
        raise UserError(
            f"a batch of {rows} rows cannot be divided by {over}",
            where="train.global_batch_size",
            hint=f"set it to a multiple of {each}, or start another number of processes",
        )
    return rows // each


def refuse_split_weights(args: TrainingArguments | None = None) -> None:
    """Stop where DeepSpeed or accelerate's configuration was to split the weights; ``train.fsdp`` does here.

    Raises:
        UserError: so it is.
    """
    asked = {"FSDP": getattr(args, "fsdp", None), "DeepSpeed": getattr(args, "deepspeed", None)}
    for name, argument in asked.items():
        if argument or os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() in ("1", "true", "yes"):
            raise UserError(
                f"{name} cannot be used here: its split weights could not be saved and measured",
                hint="split them by train.fsdp=true, under torchrun, without a configuration of accelerate",
            )


def check_processes(checkpoint: Path, before: int) -> None:
    """See that a run is resumed by as many processes as wrote its ``checkpoint``, which are ``before``.

    Raises:
        UserError: it was another number. The batches and every process's draws would be others.
    """
    if before != processes():
        command = f": torchrun --nproc-per-node {before} --no-python contraverse train ..." if before > 1 else ""
        raise UserError(
            f"was written by {_counted(before)}, and now there {'is' if processes() == 1 else 'are'} {processes()}: "
            "its batches and draws would be others",
            where=str(checkpoint),
            hint=f"resume with {_counted(before)}{command}",
        )


def _counted(number: int) -> str:
    return f"{number} process" + "es" * (number > 1)


def over_processes(sums: Sums, counts: Set[str] = frozenset()) -> dict[str, float]:
    """Each part as one process with all rows has it; collective, and waits for the device.

    Args:
        sums: of this process, and over how many batches.
        counts: names of parts that count rows: their mean over batches is added up over processes. The others are
            means over rows, of which the mean is taken.
    """
    every = from_all({name: (float(total), count) for name, (total, count) in sums.items()})
    names = dict.fromkeys(name for each in every for name in each)
    whole = {}
    for name in names:
        totals, batches = zip(*(each[name] for each in every if name in each), strict=True)
        whole[name] = sum(totals) / sum(batches) * (len(batches) if name in counts else 1)
    return whole
