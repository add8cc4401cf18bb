"""The command line. Importing it loads neither PyTorch nor transformers: ``contraverse --help`` answers at once."""

import io
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

    from contraverse.cli.app import app

    app(prog_name="contraverse")


def _terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)
