"""The commands, and what becomes of an error in any of them."""

import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from contraverse import __version__
from contraverse.cli.adversaries import adversaries
from contraverse.cli.console import complain, say
from contraverse.cli.evaluate import evaluate
from contraverse.cli.export import export
from contraverse.cli.listing import list_
from contraverse.cli.postprocess import postprocess
from contraverse.cli.search import search
from contraverse.cli.texts import encode, predict
from contraverse.cli.train import quickstart, train
from contraverse.errors import UserError

DEBUG = "CONTRAVERSE_DEBUG"


class Commands(TyperGroup):
    """Runs a command; the user's mistakes exit with 2 and one message, ours with 1 and a log."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that ``ctx`` names."""
        try:
            return super().invoke(ctx)
        except (UserError, ValidationError) as error:
            complain(str(error))
            raise typer.Exit(2) from error
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # Typer's own errors print themselves, with the usage.
            if hasattr(error, "exit_code"):
                raise
            _unexpected(error)
            raise typer.Exit(1) from error


def _unexpected(error: Exception) -> None:
    trace = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG):
        say(trace)
        return
    log = Path(tempfile.gettempdir()) / f"contraverse-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.write_text(f"contraverse {__version__}\n{' '.join(sys.argv)}\n\n{trace}", encoding="utf-8")
    complain(f"{type(error).__name__}: {error}\nThis was not foreseen. The traceback is in {log}\n(--debug shows it).")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"contraverse {__version__}")
        raise typer.Exit


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def contraverse(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help=f"Show tracebacks (or set {DEBUG}=1).")] = False,
) -> None:
    """Train text and image encoders on adversarial views of their inputs, and measure how robust they are."""
    if debug:
        os.environ[DEBUG] = "1"
    elif not os.environ.get(DEBUG):
        warnings.simplefilter("ignore")


for command in (quickstart, train, search, evaluate, adversaries, encode, predict, postprocess, export):
    app.command()(command)
app.command("list")(list_)
