"""Noise in ``contraverse evaluate``: its options, its table and its examples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from contraverse.cli.console import counting, result, say, warn
from contraverse.errors import UserError
from contraverse.visible import visible

if TYPE_CHECKING:
    from contraverse.cli.request import Request
    from contraverse.data import Task, TextData, TextSplits
    from contraverse.models import TextModel
    from contraverse.recipes import EvaluationConfig

Noise = Annotated[
    str | None,
    typer.Option(help="Kinds, as keyboard,leet, or all: contraverse list noise. No attack then, but with --eps."),
]
Strengths = Annotated[str | None, typer.Option(help="Strengths of each kind, as 1,3,5. (default: 1 to 5)")]
DrawCount = Annotated[int | None, typer.Option(min=1, help="Draws of each row; the mean is taken. (default: 1)")]
NoiseSide = Annotated[
    Literal["both", "first", "second"] | None, typer.Option(help="Texts of a pair that change. (default: both)")
]
Keep = Annotated[
    str | None,
    typer.Option(help="Words or phrases that noise and attacks on texts leave, as refund,not working; or a .txt file."),
]


def noise_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an evaluation that the options of noise give.

    Raises:
        UserError: there is no such kind or strength, or no phrase to keep.
    """
    from contraverse.noise import parse_kinds
    from contraverse.noise.keep import parse_phrases

    values = dict[str, Any]()
    if options["keep"] is not None:
        values["keep"] = parse_phrases(options["keep"])
    if options["noise"] is not None:
        values["noise"] = parse_kinds(options["noise"])
        if options["eps"] is None:
            values["epsilons"] = []
    if options["noise_strengths"] is not None:
        values["noise_strengths"] = _strengths(options["noise_strengths"])
    return values


def check_noise_flags(request: "Request", *, attacked: bool = False) -> None:
    """Refuse flags of noise that would be ignored; ``attacked``: texts are attacked as texts, too.

    Raises:
        UserError: there is no noise for them, or the evaluation that is asked for has none.
    """
    options, settings = request.options, request.settings
    idle = [name for name in ("noise_strengths", "noise_draws", "noise_side") if options[name] is not None]
    if options["keep"] is not None and not attacked:
        idle.append("keep")
    if idle and not settings.noise:
        raise UserError(
            "there is no noise for it", where=_flag(idle[0]), hint="name kinds with --noise, or --noise all"
        )
    apart = options["anli"] is not None or (request.is_encoder and options["sts"] is None and settings.sts is None)
    if options["noise"] is not None and apart:
        raise UserError(
            "noise is measured on a labelled task or on STS sets",
            where="--noise",
            hint="leave --anli out, or name pairs with --sts",
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _strengths(written: str) -> list[int]:
    numbers = [number.strip() for number in written.split(",")]
    if not all(number in {"1", "2", "3", "4", "5"} for number in numbers):
        raise UserError(
            f"{written!r} is not possible", where="--noise-strengths", hint="strengths are 1 to 5, as 1,3,5"
        )
    return sorted({int(number) for number in numbers})


def measure_noise_of_task(
    request: "Request", splits: "TextSplits", rows: "TextData", task: "Task", seed: int
) -> dict[str, Any]:
    """Print and return the task's metric under noise."""
    from contraverse.pipeline.noise import measure_noise, noise_progress_total

    model, settings = request.loaded.model, request.settings
    announce_noise(settings)
    with counting("Noise", noise_progress_total(len(rows), settings, seed)) as progress:
        measured = measure_noise(model, rows, task, settings, seed=seed, train=splits.train, progress=progress)
    show_noise(measured["noise"])
    return measured


def measure_noise_of_sts(request: "Request", model: "TextModel", source: str) -> dict[str, Any]:
    """Print and return Spearman's correlation on STS sets under noise."""
    from contraverse.evaluation import find_sts
    from contraverse.pipeline.noise import measure_noise_sts, noise_settings

    announce_noise(request.settings)
    sources, seed = find_sts(source), request.loaded.run.data.seed if request.loaded.run else 42
    total = noise_settings(request.settings, seed).progress_total(sum(len(s.pairs) for s in sources.test.values()))
    with counting("Noise", total) as progress:
        measured = measure_noise_sts(model, sources, request.settings, seed=seed, progress=progress)
    show_noise(measured["noise"])
    return measured


def announce_noise(settings: "EvaluationConfig") -> None:
    """Say how much is measured."""
    cells = len(settings.noise) * len(settings.noise_strengths) * settings.noise_draws
    say(f"Measuring under noise: {len(settings.noise)} kinds, {cells} passes over the rows")


def show_noise(noise: Mapping[str, Any]) -> None:
    """Print the table of kinds and strengths, the mean, warnings and examples."""
    from contraverse.reporting.names import label
    from contraverse.reporting.noise_map import interval_text, noise_rows

    strengths = sorted({cell["strength"] for cell in noise["cells"]})
    title = f"{label(noise['metric'])} under noise by strength, {noise['rows']:,} rows; clean {noise['clean']:.1f}"
    table = Table(title=escape(visible(title)), title_justify="left", title_style="bold")
    table.add_column("")
    for name in (*strengths, "mean"):
        table.add_column(str(name), justify="right")
    table.add_column(f"difference at {strengths[-1]} [95 %]", justify="right")
    for row in noise_rows(noise):
        table.add_row(*map(escape, row))
    mean = f"{noise['mean']['value']:.1f}"
    table.add_section()
    table.add_row("mean of all", *("" for _ in strengths), mean, escape(interval_text(noise["difference"])))
    result.print(table, soft_wrap=False)
    if noise["threshold"]:
        _show_threshold(noise, strengths)
    elif noise["positive"] is not None:
        recall = noise["recall"].get(noise["positive"], {"clean": float("nan"), "noise": float("nan")})
        name = visible(noise["positive"])
        result.print(escape(f"recall of {name}: {recall['clean']:.1f} clean, {recall['noise']:.1f} under noise"))
    for line in noise["warnings"]:
        warn(line)
    if noise["examples"]:
        say("Rows that are right and break, with the changed places marked:")
    for example in noise["examples"]:
        text = " | ".join(text if len(text) <= 200 else text[:199] + "…" for text in example["texts"])
        change = f"{example['label']} → {example['predicted']}"
        say(visible(f"  {example['kind']} {example['strength']}: {text}  ({change})"))


def _show_threshold(noise: Mapping[str, Any], strengths: list[int]) -> None:
    """Print recall and false positives of a detector at its threshold."""
    from contraverse.reporting.noise_map import threshold_rows, threshold_text

    title = f"recall of {noise['positive']} at the saved threshold under noise by strength"
    table = Table(title=escape(visible(title)), title_justify="left", title_style="bold")
    table.add_column("")
    for name in (*strengths, "mean", "false positives"):
        table.add_column(str(name), justify="right")
    for row in threshold_rows(noise):
        table.add_row(*map(escape, row))
    result.print(table, soft_wrap=False)
    result.print(escape(visible(threshold_text(noise))))
