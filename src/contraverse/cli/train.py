"""``contraverse train`` and ``contraverse quickstart``."""

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from contraverse.cli.console import counting, doing, figures, print_text, quiet, result, say
from contraverse.cli.files import Delimiter, Encoding, Trust
from contraverse.errors import UserError
from contraverse.recipes import (
    RunConfig,
    Stage,
    configure,
    differences,
    experiment_of,
    notation,
    ours,
    parse,
    split_stages,
)

if TYPE_CHECKING:
    from contraverse.data import ImageData, TextData
    from contraverse.pipeline import RunResult


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Recipe or method: contraverse list recipes, list methods. Not needed with --config."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help='Start from "minilm" (bundled), a folder, a name on the Hub; on images, a backbone: resnet18.'
        ),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Start from the model of this finished run.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of the data: contraverse list tasks.")] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Run the paper's experiment on --task: its model, rows, optimizer, schedule and radii."
        ),
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="File or folder of the rows. (default: the task's data set on the Hub)")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run. (default: runs/RECIPE-TASK)")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set anything, for example method.epsilon=.5; may be repeated."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; a run's own config.yaml repeats the run.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --output.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and print settings and data; write nothing.")
    ] = False,
    on_bad_row: Annotated[
        Literal["error", "skip"] | None, typer.Option(help="Unusable rows: stop with an error, or skip and count them.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text column; twice for a pair.")] = None,
    image: Annotated[str | None, typer.Option(help="Column of the images in a Parquet file or Hub data set.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    size: Annotated[int | None, typer.Option(help="Images: height and width to scale them to.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help='Images: keep labels for 10% or for 500 training images, balanced over the classes; or "all".'
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed; data.seed controls splits and sampling.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Train an encoder of texts or images by a recipe or method, measure it, and write everything into one folder.

    The recipe's settings come first; --config, the options and --set each override what comes before them.
    """
    if resume and recipe is None and config is None:
        config = _own_config(output)
    flags = {
        "model.name": model if init is None else _trained(init, model),
        "task": task,
        "paper": paper or None,
        "data.source": data,
        "data.on_bad_row": on_bad_row,
        "data.delimiter": delimiter,
        "data.encoding": encoding,
        "data.text": text[0] if text and len(text) == 1 else text,
        "data.image": image,
        "data.label": label,
        "data.size": size,
        "data.labels": labels,
        "train.seed": seed,
        "model.trust_remote_code": trust_remote_code or None,
    }
    settings = {name: value for name, value in flags.items() if value is not None} | parse(set_ or [])
    with doing("Loading PyTorch…"):
        chosen = configure(recipe, file=config, settings=settings)
        quiet()
    output = output or Path("runs") / f"{chosen.recipe}-{chosen.task}"
    if dry_run:
        from contraverse.pipeline.folder import check_place

        check_place(output, resume)
        print_text(chosen.to_yaml())
        _print_plan(chosen, output)
        _print_departures(chosen)
        return

    from contraverse.pipeline import Interrupted, run

    try:
        done = run(chosen, output, resume=resume, say=say, counting=counting)
    except Interrupted as stopped:
        if _is_first():
            say(f"Stopped; the checkpoint is {stopped.checkpoint}. To go on:")
            say(f"  {_launcher()}contraverse train --output {shlex.quote(str(output))} --resume")
        raise typer.Exit(stopped.exit_code) from stopped
    if _is_first():
        _show(done)


def quickstart(
    output: Annotated[Path | None, typer.Option(help="Folder of the runs and their report.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Train on images of digits instead of texts.")] = False,
) -> None:
    """Train classifiers on bundled data, attack them, and compare them: a few minutes, no network."""
    with doing("Loading PyTorch…"):
        quiet()
        from contraverse import pipeline
    if images:
        done = pipeline.quickstart_images(output or Path("runs/quickstart-images"), say=say, counting=counting)
    else:
        done = pipeline.quickstart(output or Path("runs/quickstart"), say=say, counting=counting)
    columns = {name: run.metrics for name, run in done.runs.items()}
    result.print(figures("test rows", columns))
    result.print(f"report  {done.report}", markup=False)


def _is_first() -> bool:
    """True in the only process, and in the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _launcher() -> str:
    """The words before the command where several processes run it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if processes == 1:
        return ""
    machines = f"--nnodes {processes // here} " if processes > here else ""
    return f"torchrun {machines}--nproc-per-node {here} --no-python "


def _trained(run: Path, model: str | None) -> str:
    if model is not None:
        raise UserError("--init and --model both name a model to start from", hint="give one of them")
    with doing("Loading PyTorch…"):
        from contraverse.pipeline import model_dir
    return str(model_dir(run))


def _own_config(output: Path | None) -> Path:
    if output is None:
        raise UserError("--resume continues the run in --output, which is missing")
    if not (output / "config.yaml").is_file():
        raise UserError("nothing to resume here", where=str(output), hint="leave --resume out to start a run")
    return output / "config.yaml"


def _print_plan(config: RunConfig, output: Path) -> None:
    """Print the data that the run would read and the folder that it would write; the Hub is not asked."""
    stages = split_stages(config)
    for stage in stages[:-1]:
        start = f"{stage.init_from}/model" if stage.init_from else stage.config.model.name
        say(f"[{stage.folder}] from {start}")
        say("\n".join(f"  {line}" for line in stage.config.to_yaml().splitlines()))
        _rows(stage)
    if len(stages) > 1:
        start = f"{stages[-1].init_from}/model" if stages[-1].init_from else config.model.name
        say(f"[{stages[-1].folder}] from {start}, with the settings above")
    _rows(stages[-1])
    say(f"output      {output}")


def _print_departures(config: RunConfig) -> None:
    """Print the paper's experiment, the settings in which the run differs from it, and those that no paper gives."""
    experiment = experiment_of(config)
    if experiment is None:
        say(f"paper       none has an experiment of {config.recipe} on {config.task}: the settings are the recipe's")
        return
    others = differences(config)
    say(f"paper       {experiment.source}; {experiment.run}")
    for name, value, papers in others:
        say(f"differs     {name}: {notation.inline(value)} (with --paper: {notation.inline(papers)})")
    changed = {difference.setting for difference in others}
    for (setting, why), value in ours(config):
        if setting not in changed:
            written = "" if value is None else f": {notation.inline(value)}"
            say(f"ours        {setting}{written} ({why})")


def _rows(stage: Stage) -> None:
    with doing("Reading data…"):
        from contraverse.pipeline.dry_run import dry_run

        dry = dry_run(stage)
    for name in dry.unread:
        say(f"{name} is not read: on the Hub")
    if dry.splits is None:
        return
    for name in ("train", "validation", "test"):
        rows: TextData | ImageData | None = getattr(dry.splits, name)
        say(f"{name:<12}{_describe(rows) if rows else '-'}")
    for note in [*dry.splits.notes, *dry.notes]:
        say(note)


def _describe(rows: "TextData | ImageData") -> str:
    from contraverse.types import UNLABELLED

    if rows.label_names is None or rows.labels is None:
        return f"{len(rows)} rows"
    counts = Counter(int(label) for label in rows.labels)
    named = [f"{name} {counts[i]}" for i, name in enumerate(rows.label_names)]
    named += [f"no label {counts[UNLABELLED]}"] if counts[UNLABELLED] else []
    return f"{len(rows)} rows: " + ", ".join(named)


def _show(done: "RunResult") -> None:
    if done.metrics:
        result.print(figures(str(done.folder), {done.split: done.metrics}))
    width = max(map(len, done.paths), default=0)
    for name, path in done.paths.items():
        result.print(f"{name:<{width}}  {path}", markup=False)
