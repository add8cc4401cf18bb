"""Running a function on several gloo ranks, each a process of its own."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _start(number: int, work: Callable[..., None], folder: Path, ranks: int, arguments: tuple[Any, ...]) -> None:
    warnings.simplefilter("error", FutureWarning)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=ranks)
    work(number, folder, *arguments)
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python's own way out ends gloo's threads in an order that now and then aborts a process whose work is done.
    os._exit(0)


def run_ranks(work: Callable[..., None], folder: Path, *arguments: Any, ranks: int = 2) -> None:
    """Call ``work(rank, folder, *arguments)`` in ``ranks`` fresh processes, and raise what any of them raises."""
    mp.spawn(_start, args=(work, folder, ranks, arguments), nprocs=ranks)
