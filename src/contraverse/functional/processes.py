"""Several processes as one: shares of an evaluation, and decisions of the first process for all.

Everything that travels between processes here lies in the host's memory and goes through gloo, whatever the backend of
training: no device waits for it. The functions are collective: every process has to call them, in the same order.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from contraverse.functional.gather import rank

T = TypeVar("T")

_sharing: ContextVar[bool] = ContextVar("sharing", default=False)
_groups: dict[Any, Any] = {}


def processes() -> int:
    """Number of processes that work together; 1 where no group was set up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def joined() -> Iterator[None]:
    """Connect the processes that torchrun has started, and share evaluations out over them inside.

    Each process with a GPU takes the one of its number on the machine. One process alone, and processes that are
    connected already, stay as they are.
    """
    connect = processes() == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if connect:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("gloo")
    try:
        with sharing():
            yield
    finally:
        if connect:
            _groups.clear()
            dist.destroy_process_group()


@contextmanager
def sharing() -> Iterator[None]:
    """Share the evaluations inside out over the processes, each of which gets the whole result.

    Every process has to run the same evaluations on the same rows with the same weights. Outside of it each process
    evaluates all of what it is given by itself.
    """
    token = _sharing.set(True)
    try:
        yield
    finally:
        _sharing.reset(token)


@contextmanager
def by_itself() -> Iterator[None]:
    """Take the evaluations inside out of `sharing`: this process computes all of what it is given."""
    token = _sharing.set(False)
    try:
        yield
    finally:
        _sharing.reset(token)


def _shared() -> bool:
    return _sharing.get() and processes() > 1


def sharers() -> int:
    """Number of processes that an evaluation is shared out over; 1 outside of `sharing`."""
    return processes() if _shared() else 1


def writes_files() -> bool:
    """True where this process writes files of an evaluation: the first one inside of `sharing`, each outside of it."""
    return not _shared() or rank() == 0


def my_share(batches: Sequence[T]) -> Sequence[T]:
    """Batches of this process: every n-th of n processes, all of them outside of `sharing`.

    Batches are shared out and not rows: a row then has the neighbours, the padding and, to the last bit, the result
    that it has in one process.
    """
    return batches[rank() :: processes()] if _shared() else batches


def all_parts(parts: list[T]) -> list[T]:
    """Results of all processes on their shares of the batches, process by process.

    Outside of `sharing`, or in one process, ``parts`` as they are. They have to be picklable, and in the host's memory.
    """
    return [part for parts in from_all(parts) for part in parts] if _shared() else parts


def on_first(work: Callable[[], T]) -> T:
    """``work()`` of the first process, for all of them, inside of `sharing`; elsewhere each one's own.

    For what does not come in batches: the others wait. The result has to be picklable.
    """
    if not _shared():
        return work()
    return from_first(work() if rank() == 0 else None)


def from_first(value: Any) -> Any:
    """``value`` of the first process, for all of them."""
    if processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def from_all(value: T) -> list[T]:
    """``value`` of every process, in their order."""
    if processes() == 1:
        return [value]
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, value, group=_group())
    return gathered


class AnyOf:
    """Logical or over processes: sent at one time, read later, so that no process waits for a message.

    Args:
        mine: value of this process.
    """

    def __init__(self, mine: bool) -> None:
        self._value = torch.tensor([int(mine)])
        self._work = (
            dist.all_reduce(self._value, dist.ReduceOp.MAX, _group(), async_op=True) if processes() > 1 else None
        )

    def answer(self) -> bool:
        """The same on every process."""
        if self._work is not None:
            self._work.wait()
        return bool(self._value.item())


def wait_for_all() -> None:
    """Go on when every process is here."""
    if processes() > 1:
        dist.barrier(_group())


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Every process gets the buffers of the first, such as batch norm's statistics; in place."""
    if processes() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def _group() -> Any:
    """A group of its own, so that its messages cannot get in between those of training."""
    everyone = dist.group.WORLD
    if everyone not in _groups:
        _groups.clear()  # an earlier group of processes, which is no more
        # Long: while one process fits a regression or writes a report, the others wait.
        _groups[everyone] = dist.new_group(backend="gloo", timeout=timedelta(days=1))
    return _groups[everyone]
