"""Running a function on several gloo ranks of this machine."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _start(number: int, work: Callable[..., None], folder: Path, ranks: int, arguments: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=ranks)
    try:
        work(number, folder, *arguments)
    finally:
        dist.destroy_process_group()


def run_ranks(work: Callable[..., None], folder: Path, *arguments: Any, ranks: int = 2) -> None:
    """Call ``work(rank, folder, *arguments)`` in ``ranks`` fresh processes, and raise what any of them raises."""
    mp.spawn(_start, args=(work, folder, ranks, arguments), nprocs=ranks)
