"""``contraverse search``: settings chosen on validation rows."""

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from contraverse.cli.console import doing, notes, quiet, result, say
from contraverse.cli.files import Trust
from contraverse.errors import UserError
from contraverse.recipes import SearchConfig, configure, load_search, parse, read_space, refuse_trust, space_of

if TYPE_CHECKING:
    from contraverse.pipeline import SearchResult

_SHOWN = 5


def search(
    recipe: Annotated[str | None, typer.Argument(help="A paper's setting: contraverse list recipes.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Runs in all. (default: 20)")] = None,
    model: Annotated[str | None, typer.Option(help='"minilm" (bundled), a folder, or a name on the Hub.')] = None,
    task: Annotated[str | None, typer.Option(help="contraverse list tasks.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's experiment on --task, and what the paper varies in it.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="A file or folder; without it, the task's set on the Hub.")] = None,
    output: Annotated[Path | None, typer.Option(help="The search's folder. (default: runs/search-RECIPE-TASK)")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of every trial; may be repeated."),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="Settings to vary instead of the method's own space: method.epsilon=.1:1:log, method.steps=2:4, "
            "method.attack=[fgm,fgsm], or a YAML file of such lines; may be repeated.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as YAML.")] = None,
    robust: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Weight of the accuracy under attack; without it the clean metric decides."),
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Begin no trial after so many seconds.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the drawn settings; train.seed is the seed of every trial.")
    ] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --output.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Try settings of a recipe, compare them on validation rows, and write the best as a configuration.

    The test rows are never used: train the winner with contraverse train --config OUTPUT/best.yaml.
    """
    with doing("Loading PyTorch…"):
        if resume:
            options = (recipe, model, task, paper or None, data, set_, space, config, robust)
            plan, output = _own_plan(output, any(option is not None for option in options))
            refuse_trust(plan.config, asked=trust_remote_code)
            plan = plan.model_copy(update={"trials": trials or plan.trials})
        else:
            flags = {
                "model.name": model,
                "task": task,
                "paper": paper or None,
                "data.source": data,
                "model.trust_remote_code": trust_remote_code or None,
            }
            settings = {name: value for name, value in flags.items() if value is not None} | parse(set_ or [])
            chosen = configure(recipe, file=config, settings=settings)
            varied = read_space(space) if space else space_of(chosen.method.name, paper=chosen.paper)
            plan = SearchConfig(config=chosen, space=varied, trials=trials or 20, seed=seed, robust=robust)
            output = output or Path("runs") / f"search-{chosen.recipe}-{chosen.task}"
        quiet()
        from contraverse import pipeline
    say("Searching " + ", ".join(f"{name} in {written}" for name, written in plan.space.items()))
    again = f"contraverse search --output {shlex.quote(str(output))} --resume"
    try:
        done = pipeline.search(
            plan,
            output,
            resume=resume,
            timeout=timeout,
            say=say,
            doing=doing if notes.is_terminal else nullcontext,
        )
    except pipeline.Interrupted as stopped:
        say(f"Stopped; the checkpoint is {stopped.checkpoint}. To go on:")
        say(f"  {again}")
        raise typer.Exit(stopped.exit_code) from stopped
    except KeyboardInterrupt as stopped:
        say(f"Stopped. To go on:\n  {again}")
        raise typer.Exit(130) from stopped
    if len(done.trials) < plan.trials:
        say(f"Out of time after {len(done.trials)} of {plan.trials} trials. To go on:\n  {again}")
    _show(done, plan)


def _own_plan(output: Path | None, changed: bool) -> tuple[SearchConfig, Path]:
    if output is None:
        raise UserError("--resume goes on with the search in --output, which is not given")
    if changed:
        raise UserError("--resume takes the settings from --output", hint="only --trials and --timeout may differ")
    if not (output / "search.yaml").is_file():
        raise UserError("nothing to resume here", where=str(output), hint="leave --resume out to start a search")
    return load_search(output / "search.yaml"), output


def _show(done: "SearchResult", plan: SearchConfig) -> None:
    failed = [trial for trial in done.trials if trial.value is None]
    if done.best is None:
        if not done.trials:
            return
        raise UserError(
            f"all {len(failed)} trials failed", where=str(done.folder), hint=f"the first: {failed[0].error}"
        )
    ranked = sorted((t for t in done.trials if t.value is not None), key=lambda t: -(t.value or 0.0))
    title = f"The best of {len(done.trials)} trials" + (f", {len(failed)} of which failed" if failed else "")
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("trial", justify="right")
    table.add_column(
        done.metric if plan.robust is None else f"{done.metric}, with robust {plan.robust:g}", justify="right"
    )
    for name in plan.space:
        table.add_column(escape(name), justify="right", overflow="fold")
    table.add_column("seconds", justify="right")
    for trial in ranked[:_SHOWN]:
        varied = ("null" if value is None else str(value) for value in trial.settings.values())
        table.add_row(str(trial.trial + 1), f"{trial.value:.2f}", *map(escape, varied), f"{trial.seconds:.0f}")
    result.print(table)
    result.print(f"best  {done.config}", markup=False)
    result.print(f"contraverse train --config {shlex.quote(str(done.config))}", markup=False)
