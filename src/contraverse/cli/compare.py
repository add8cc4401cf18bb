"""``contraverse compare``: classifiers on the same rows, with paired tests and slices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from contraverse.cli.console import counting, doing, result, say
from contraverse.cli.files import Delimiter, Encoding, Loaded, Split, Trust, check_target, load_model, own
from contraverse.cli.images import load_rows, measured_route
from contraverse.cli.request import Request, is_image_model, with_settings
from contraverse.cli.text_evaluation import read_splits
from contraverse.errors import UserError
from contraverse.visible import visible

if TYPE_CHECKING:
    from contraverse.data import ImageData, TextData
    from contraverse.data.columns import Columns


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Two or more folders of runs or models; the first is the baseline.")
    ],
    task: Annotated[str | None, typer.Option(help="contraverse list tasks. (default: the run's)")] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows of all of them. (default: each run's, which must agree)")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text column; twice for a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    split: Annotated[Split, typer.Option(help="Rows to measure on.")] = "test",
    by: Annotated[
        list[str] | None, typer.Option(help="Slices: length, class, or a column of the file; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a page, X.html.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output and --report.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 64,
    trust_remote_code: Trust = False,
) -> None:
    """Compare classifiers row by row: McNemar's test, paired bootstrap intervals, and slices.

    Accuracy is compared, and where all of them hold a threshold for one class, recall and false positives at it.
    """
    _check(runs, output, report, force)
    names, answers, first, parts = _names(runs), dict[str, Any](), None, dict[str, Any]()
    classes: set[str] = set()
    options = {"task": task, "data": data, "text": text or None, "label": label, "split": split, "on_bad_row": None}
    options |= {"delimiter": delimiter, "encoding": encoding}
    for run, name in zip(runs, names, strict=True):
        loaded = load_model(run, trust_remote_code=trust_remote_code)
        if loaded.model.labels is None or len(loaded.model.labels) < 2:
            raise UserError("classifiers are compared, and this model has no classes", where=run)
        own_classes = {label.casefold() for label in loaded.model.labels}
        if classes and own_classes != classes:
            listed = ", ".join(loaded.model.labels[:6])
            raise UserError(f"tells {listed} apart, and {names[0]} other classes", where=run)
        classes = own_classes
        from contraverse.data.files import Form
        from contraverse.pipeline.comparison import answer, check_same_rows, slices

        request = Request(loaded, with_settings(loaded, {}), options)
        with doing("Reading data…"):
            rows, columns, described = _rows(request)
        if first is None:
            first, about = rows, described
            parts = slices(rows, by or (), columns, Form(delimiter, encoding))
        else:
            check_same_rows(first, rows, (names[0], name))
        branch = measured_route(loaded, None)
        say(f"Asking {name}: {len(rows):,} rows")
        with counting("Predicting", len(rows)) as progress:
            answers[name] = answer(loaded.model, rows, batch_size, branch, progress)
    assert first is not None
    from contraverse.evaluation import comparison as paired
    from contraverse.pipeline.comparison import measures

    comparisons = paired.compare(measures(answers), parts)
    compared = {**about, "runs": names, "split": split, "rows": len(first), "source": first.source, "by": list(parts)}
    compared["comparisons"] = [each.to_dict() for each in comparisons]
    _show(compared)
    _write(compared, output, report)


def _check(runs: Sequence[str], output: Path | None, report: Path | None, force: bool) -> None:
    """Refuse a comparison that is none, and files that cannot be written, before the work."""
    if len(runs) < 2:
        raise UserError("one model has nothing to be compared with", hint="name two or more: contraverse compare A B")
    for file, suffix in ((output, ".json"), (report, ".html")):
        if file is not None:
            check_target(file, (suffix,), force)


def _names(runs: Sequence[str]) -> list[str]:
    """Names of the runs in tables: their folders' names, whole paths where two share one.

    Raises:
        UserError: one run is named twice.
    """
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise UserError("a run is compared with itself", where=" ".join(runs), hint="name each run once")
    short = [Path(run).name for run in runs]
    return short if len(set(short)) == len(short) else list(runs)


def _rows(request: Request) -> "tuple[TextData | ImageData, Columns | None, dict[str, Any]]":
    """Rows of a run, the columns that they were read from, and their task."""
    loaded: Loaded = request.loaded
    if is_image_model(loaded):
        image_task, image_data = request.image_task_and_data()
        whole = not own(loaded, image_data.source)
        return load_rows(loaded, image_task, image_data, request.split, whole=whole), None, {"task": image_task.name}
    task, data = request.task_and_data()
    splits = read_splits(request, task, data)
    return splits.need(request.split), splits.read_from, {"task": task.name}


def _show(compared: Mapping[str, Any]) -> None:
    """Print a table of all rows, and one for each column of slices."""
    from contraverse.reporting.comparison import NOTE, comparison_rows, table_header

    for by in (None, *compared["by"]):
        title = f"{compared['task']}, {compared['rows']:,} {compared['split']} rows" + (f", by {by}" if by else "")
        table = Table(title=escape(visible(title)), title_justify="left", title_style="bold")
        for i, name in enumerate(table_header(compared, by)):
            table.add_column(escape(visible(name)), justify="left" if i == 0 else "right")
        for row in comparison_rows(compared, by):
            table.add_row(*(escape(visible(cell)) for cell in row))
        result.print(table, soft_wrap=False)
    say(NOTE)


def _write(compared: Mapping[str, Any], output: Path | None, report: Path | None) -> None:
    from contraverse.reporting.comparison import comparison_page
    from contraverse.writing import write_json, write_text

    if output is not None:
        write_json(output, compared)
        say(f"{output}: figures")
    if report is not None:
        write_text(report, comparison_page(compared))
        say(f"{report}: page")
