"""One command in several processes, as torchrun starts them: the first prints and writes, an error is printed once."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from typing import Any

from contraverse.cli import console


def process_number() -> int:
    """Number of this process among those that torchrun has started; 0 in one process."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def let_one_speak() -> None:
    """Silence the notes and results of every process but the first."""
    console.result.quiet = console.notes.quiet = process_number() > 0


def first_to_say(message: str) -> bool:
    """True in the first process that comes with this message, whichever it is; true in all where that is unknown.

    The processes agree in the store of torchrun, which is there before they are connected and after one has failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_PORT" not in os.environ:
        return True
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = f"contraverse/{restart}/{hashlib.sha256(message.encode('utf-8', 'replace')).hexdigest()}"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        with suppress(Exception):  # a message that is printed twice is better than none
            from torch._C._distributed_c10d import TCPStore

            store = TCPStore(
                os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
                timeout=timedelta(seconds=10),
            )  # fmt: skip
            return bool(store.add(key, 1) == 1)
    return True


def complain(message: str) -> None:
    """Print an error, in the first process that has it."""
    if first_to_say(message):
        console.notes.quiet = False
        console.complain(message)


def together(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` in connected processes, which share its evaluations out; the first prints and writes the results."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            command(*args, **options)
            return
        from contraverse.functional import joined

        with joined():
            command(*args, **options)

    return run


def alone(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` in the first process; the others have nothing to do."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        if process_number() == 0:
            command(*args, **options)

    return run
