"""Output of the command line: results on stdout, everything else on stderr."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import wraps
from typing import Annotated, Any, Literal, get_args

from rich.console import CaptureError, Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from contraverse.visible import visible


class _Visible(Console):
    """A console that prints texts, labels and names as they are; their control characters have no effect."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


result = _Visible(soft_wrap=True, highlight=False)
notes = _Visible(stderr=True, soft_wrap=True, highlight=False)


def say(line: str) -> None:
    """Print a line on the progress of the command."""
    _note(line, markup=False)


def complain(message: str) -> None:
    """Print an error: its first line in red, the way out below."""
    first, *rest = message.splitlines() or ["no reason given"]
    _note(f"[bold red]error:[/] {escape(first)}", *map(escape, rest), sep="\n")


def warn(line: str) -> None:
    """Print a warning."""
    _note(f"[bold yellow]warning:[/] {escape(line)}")


def _note(*lines: str, **how: Any) -> None:
    # A reader of stderr that has gone costs nobody a run.
    with suppress(OSError, ValueError):
        notes.print(*lines, **how)


def files_first(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``command`` so that its results are printed when it ends, after the files that it writes them to."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        held = result.capture()
        try:
            with held:
                command(*args, **options)
        finally:
            with suppress(CaptureError):  # stdout cannot be written, which is on its way up
                if text := held.get():
                    print_text(text)

    return run


def with_options(
    panels: Mapping[str, Sequence[str]], choices: Mapping[str, Sequence[str]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the options of a command into panels of its ``--help``, and let them take the names of a table.

    Args:
        panels: names of parameters by panel.
        choices: values by parameter, of parameters that take a string or None.
    """

    def apply(command: Callable[..., None]) -> Callable[..., None]:
        hints = command.__annotations__
        for panel, names in panels.items():
            for name in names:
                kind, option = get_args(hints[name])
                option = copy(option)  # other commands share it
                option.rich_help_panel = panel
                hints[name] = Annotated[kind, option]
        for name, values in choices.items():
            _, option = get_args(hints[name])
            hints[name] = Annotated[Literal[tuple(values)] | None, option]
        return command

    return apply


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Says ``what`` at once: beside a spinner on a terminal, as a line elsewhere."""
    if notes.is_terminal:
        with notes.status(what):
            yield
    else:
        say(what)
        yield


@contextmanager
def counting(what: str, total: int) -> Iterator[Any]:
    """Show a progress bar on a terminal; yields the function that advances it, up to ``total``."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


def quiet() -> None:
    """Load the heavy libraries, and silence all but their errors."""
    import datasets
    import transformers
    from huggingface_hub.utils import enable_progress_bars

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # That one silences downloads too, which may take minutes.
    enable_progress_bars()
    # transformers shows no training progress below this level.
    logging.getLogger("transformers.training_args").setLevel(logging.WARNING)


def figures(title: str, columns: Mapping[str, Mapping[str, float]], digits: int = 2) -> Table:
    """A table with a row for each metric and a column for each name in ``columns``, ``{name: {metric: value}}``."""
    from contraverse.reporting.names import MISSING, heading

    table = Table(title=escape(visible(title)), title_justify="left", title_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(escape(visible(name)), justify="right")
    for metric in dict.fromkeys(metric for metrics in columns.values() for metric in metrics):
        values = (metrics.get(metric) for metrics in columns.values())
        table.add_row(heading(metric), *(MISSING if value is None else f"{value:.{digits}f}" for value in values))
    return table


def print_text(text: str) -> None:
    """``text`` on stdout as it is, for another program; nothing in a process that is silent."""
    if result.quiet:
        return
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()
