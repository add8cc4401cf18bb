"""The commands, and the handling of their errors."""

import inspect
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from contraverse import __version__
from contraverse.cli.adversaries import adversaries
from contraverse.cli.compare import compare
from contraverse.cli.console import files_first, say
from contraverse.cli.evaluate import evaluate
from contraverse.cli.export import export
from contraverse.cli.harden import harden
from contraverse.cli.listing import list_
from contraverse.cli.plan import plan
from contraverse.cli.postprocess import postprocess
from contraverse.cli.search import search
from contraverse.cli.several import alone, complain, first_to_say, let_one_speak, together
from contraverse.cli.study import study
from contraverse.cli.texts import encode, predict
from contraverse.cli.train import quickstart, train
from contraverse.errors import UserError, suggestion
from contraverse.writing import explain

DEBUG = "CONTRAVERSE_DEBUG"
HIDDEN = "***"
_TOKEN = re.compile(r"""\btoken["']?\s*[=:]\s*["']?([^\s"',}]+)""")
_REFUSED = re.compile(r"'(.*)' is not one of ('.*')")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Commands(TyperGroup):
    """Runs a command; the user's mistakes exit with 2 and one message, ours with 1 and a log."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that ``ctx`` names; of several processes one speaks."""
        let_one_speak()
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except (UserError, ValidationError) as error:
            complain(str(error))
            raise typer.Exit(2) from error
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError as error:
            # The reader of stdout has seen enough, as that of any filter.
            _drop_stdout()
            raise typer.Exit(128 + 13) from error
        except Exception as error:
            # Typer's own errors print themselves, with the usage.
            if hasattr(error, "exit_code"):
                _suggest_choice(error)
                if first_to_say(str(error)):
                    raise
                raise typer.Exit(error.exit_code) from error
            mistake = explain(error)
            _drop_stdout()
            if mistake is not None:
                complain(str(mistake))
                raise typer.Exit(2) from error
            _unexpected(error)
            raise typer.Exit(1) from error


def _suggest_choice(error: Any) -> None:
    """Put the nearest of the possible values into the message of an option that takes some values alone."""
    refused = _REFUSED.search(getattr(error, "message", ""))
    if refused:
        choices = re.findall("'(.*?)'", refused[2])
        error.message = f'there is no "{refused[1]}"; {suggestion(refused[1], choices)}'


def _drop_stdout() -> None:
    """Discard output that could not be written to stdout, which Python would try again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _unexpected(error: Exception) -> None:
    trace = without_tokens("".join(traceback.format_exception(error)), sys.argv)
    if os.environ.get(DEBUG):
        say(trace)
        return
    command = without_tokens(shlex.join(sys.argv), sys.argv)
    log = _log(f"contraverse {__version__}\n{command}\n\n{trace}")
    where = f"The traceback is in {log}\n(--debug shows it)." if log else f"The traceback:\n{trace}"
    message = without_tokens(f"{type(error).__name__}: {error}", sys.argv)
    complain(f"{message}\nThis was not foreseen. {where}")


def without_tokens(text: str, arguments: Sequence[str]) -> str:
    """``text`` with ``***`` in the place of every access token.

    One is in the environment, has the form of the Hub's, or is in ``arguments``, those of the command line, where
    ``--set`` gives one as ``model.token=...`` or in ``model={token: ...}``.
    """
    secrets = {token for argument in arguments for token in _TOKEN.findall(argument)}
    secrets |= {os.environ[name] for name in _TOKENS if os.environ.get(name)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return re.sub(r"\bhf_\w{8,}", HIDDEN, text)


def _log(text: str) -> str | None:
    """Write ``text`` to a new file that its owner alone reads; None where that cannot be."""
    try:
        descriptor, path = tempfile.mkstemp(".log", f"contraverse-{time.strftime('%Y%m%d-%H%M%S')}-")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return path


def _version(wanted: bool) -> None:
    if wanted:
        print(f"contraverse {__version__}")
        raise typer.Exit


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


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


def _flowing(command: Callable[..., None]) -> str:
    """Help of ``command`` whose paragraphs break where the terminal ends, and not where the source's lines do."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)


COMMANDS = (
    *(quickstart, train, plan, search, study, evaluate, compare, adversaries, encode, predict, postprocess, harden),
    export,
)
_SHARED = (evaluate, adversaries, encode, predict)
"""Commands whose work the processes of torchrun share. Training connects them itself; the first does the others."""
for command in COMMANDS:
    spread = command if command is train else together(command) if command in _SHARED else alone(command)
    app.command(help=_flowing(command))(files_first(spread))
app.command("list", help=_flowing(list_))(alone(list_))
