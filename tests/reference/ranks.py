"""Running a function on several gloo ranks, each a process of its own."""

import math
import multiprocessing
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Starting a process costs seconds of imports. A server that has imported them once forks each rank instead.
multiprocessing.set_forkserver_preload(["contraverse.training", "contraverse.evaluation", "sentence_transformers"])


def _start(
    number: int,
    work: Callable[..., None],
    folder: Path,
    ranks: int,
    environment: dict[str, str],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()  # the server's variables are those of the first test that started ranks
    os.environ |= environment
    warnings.simplefilter("error", FutureWarning)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=ranks)
    work(number, folder, *arguments)
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python's own way out ends gloo's threads in an order that now and then aborts a process whose work is done.
    os._exit(0)


def run_ranks(
    work: Callable[..., None], folder: Path, *arguments: Any, ranks: int = 2, timeout: float | None = None
) -> None:
    """Call ``work(rank, folder, *arguments)`` in ``ranks`` fresh processes, and raise what any of them raises.

    Raises:
        TimeoutError: after ``timeout`` seconds, when the processes are ended: one waits for another.
    """
    context = mp.start_processes(
        _start,
        args=(work, folder, ranks, dict(os.environ), arguments),
        nprocs=ranks,
        join=False,
        start_method="forkserver",
    )
    end = time.monotonic() + (timeout or math.inf)
    while not context.join(timeout=1):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"not done after {timeout} s")


def environment(number: int, port: int, ranks: int = 2) -> None:
    """The variables that torchrun sets, for libraries that look at them."""
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
