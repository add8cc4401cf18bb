"""Several processes as one: what is shared out over them, and what one of them decides for all.

What goes between processes here lies in the host's memory and travels through gloo, whatever the training's own
backend: no device waits for it. The functions are collective: every process has to call them, in the same order.
"""

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
def sharing() -> Iterator[None]:
    """Evaluations inside are shared out over the processes, each of which gets the whole result.

    Every process has to run the same evaluations on the same rows with the same weights. Outside of it each process
    evaluates all of what it is given by itself.
    """
    token = _sharing.set(True)
    try:
        yield
    finally:
        _sharing.reset(token)


def _shared() -> bool:
    return _sharing.get() and processes() > 1


def my_share(batches: Sequence[T]) -> Sequence[T]:
    """Batches that this process computes: every n-th of n processes, all of them outside of `sharing`.

    Batches are shared out and not rows: a row then has the neighbours, the padding and, to the last bit, the result
    that it has in one process.
    """
    return batches[rank() :: processes()] if _shared() else batches


def all_parts(parts: list[T]) -> list[T]:
    """Results of all processes on their shares of the batches, in the order of the processes.

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
        mine: what this process says.
    """

    def __init__(self, mine: bool) -> None:
        self._said = torch.tensor([int(mine)])
        self._work = (
            dist.all_reduce(self._said, dist.ReduceOp.MAX, _group(), async_op=True) if processes() > 1 else None
        )

    def answer(self) -> bool:
        """The same on every process."""
        if self._work is not None:
            self._work.wait()
        return bool(self._said.item())


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
