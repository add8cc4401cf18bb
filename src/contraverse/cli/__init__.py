"""The command line. Importing it loads neither PyTorch nor transformers: ``contraverse --help`` answers at once."""

import io
import os
import shutil
import signal
import sys
from typing import NoReturn

NARROWEST = 60
"""Columns of the narrowest terminal that help and tables are laid out for."""


def main() -> None:
    """Entry point of the ``contraverse`` command."""
    # A terminal that has no epsilon gets a question mark, and the figures.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # As Ctrl-C does, and so that files that are being written are removed; training has its own way.
    signal.signal(signal.SIGTERM, _terminated)

    _sleep_while_waiting()
    _keep_a_width()
    from contraverse.cli.app import app

    app(prog_name="contraverse")


def _sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep between parallel regions, where the user has not set how they wait.

    By default they spin, which takes the processor from every other process. OpenMP reads the variable when torch is
    loaded. Only the command line sets it: an imported library does not change its user's environment.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _keep_a_width() -> None:
    """Lay help and tables out for `NARROWEST` columns at least: with COLUMNS=0, or on a sliver, they would be empty."""
    columns = shutil.get_terminal_size().columns  # COLUMNS where that is a number above 0
    written = os.environ.get("COLUMNS", "")
    if columns < NARROWEST or (written.isdigit() and int(written) < NARROWEST):
        os.environ["COLUMNS"] = str(max(columns, NARROWEST))


def _terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)
