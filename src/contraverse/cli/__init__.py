"""The command line. Importing it loads neither PyTorch nor transformers: ``contraverse --help`` answers at once."""

import io
import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Entry point of the ``contraverse`` command."""
    # A terminal that has no epsilon gets a question mark, and the figures.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # As Ctrl-C does, and so that files that are being written are removed; training has its own way.
    signal.signal(signal.SIGTERM, _terminated)

    _sleep_while_waiting()
    from contraverse.cli.app import app

    app(prog_name="contraverse")


def _sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep between parallel regions, where the user has not set how they wait.

    By default they spin, which takes the processor from every other process. OpenMP reads the variable when torch is
    loaded. Only the command line sets it: an imported library does not change its user's environment.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)
