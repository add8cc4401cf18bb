"""``contraverse evaluate --predict FILE.py:FUNCTION``: a classifier that is a Python function of the user's own."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraverse.cli.console import counting, doing, quiet, say
from contraverse.cli.evasion import TEXT_ATTACKS, attack_texts, check_text_attack_flags
from contraverse.cli.files import tell
from contraverse.cli.foreign import load_function
from contraverse.cli.noise import announce_noise, show_noise
from contraverse.cli.request import existing_file, given_flags, settings_of
from contraverse.errors import UserError
from contraverse.recipes import DataConfig, EvaluationConfig

if TYPE_CHECKING:
    from contraverse.data import Task, TextData, TextSplits
    from contraverse.evasion import FunctionTarget

Predict = Annotated[
    str | None,
    typer.Option(
        help="FILE.py:FUNCTION of your own, which is run, instead of MODEL: from a list of texts (or pairs) to scores "
        "(N, C), or with --labels to classes."
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(help="With --predict: classes in the order of the scores, as ham,spam. (default: the data's, sorted)"),
]
PANEL = ("predict", "classes")
"""Options of a function, by parameter."""
_OF_A_MODEL = (
    *("--module", "--model-arch", "--normalise", "--pooling", "--positive", "--swap-from", "--trust-remote-code"),
)


def measure_function(options: Mapping[str, Any]) -> dict[str, Any]:
    """Print and return the results of an attack, or of noise, on the texts that a function classifies.

    Raises:
        UserError: a flag has nothing to act on, there is no such function, or it fails.
    """
    _check_flags(options)
    settings = EvaluationConfig().model_copy(update=_values(options))
    from contraverse.data import get_task

    task = get_task(options["task"] or "text")
    with doing("Reading data…"):
        splits = _splits(options, task)
        rows = splits.need(options["split"])
    target = _target(options, task, rows)
    count, seed = options["rows"], DataConfig().seed
    chosen = rows if count is None else rows.sample(count, seed)
    evaluation: dict[str, Any] = {}
    if options["attack"] is not None:
        evaluation |= attack_texts(target, chosen, options, settings, noise=options["noise"] is not None)
    if options["noise"] is not None:
        evaluation |= _measure_noise(target, chosen, splits, task, settings, seed)
    return {"task": task.name, "source": rows.source, "split": options["split"], "rows": len(chosen), **evaluation}


def _check_flags(options: Mapping[str, Any]) -> None:
    used = set(given_flags(options))
    if options["attack"] not in (*TEXT_ATTACKS, None) or (options["attack"] is None and options["noise"] is None):
        hint = f"give --attack {', '.join(TEXT_ATTACKS)}, or --noise"
        raise UserError("a function is measured under attacks on texts as texts, and under noise", hint=hint)
    if idle := ", ".join(flag for flag in _OF_A_MODEL if flag in used):
        raise UserError(f"a function takes no {idle}", where="--predict")
    if options["scores"] and options["labels"]:
        raise UserError("the search is by --scores or by --labels, not both")
    if options["data"] is None:
        raise UserError("needs labelled rows", where="--predict", hint="give a file of them with --data")
    check_text_attack_flags(options["attack"], used)


def _values(options: Mapping[str, Any]) -> dict[str, Any]:
    values = settings_of({**options, "eps": None})
    return {name: value for name, value in values.items() if name not in ("attack", "norm")}


def _splits(options: Mapping[str, Any], task: "Task") -> "TextSplits":
    from contraverse.data import load_splits

    names = ("label", "text", "delimiter", "encoding", "on_bad_row")
    data = DataConfig().model_copy(update={name: options[name] for name in names if options[name] is not None})
    file = existing_file(options["data"])
    source = {options["split"]: file} if file else options["data"]
    splits = load_splits(task, **(data.where() | {"source": source, "adversaries": None}))
    tell(splits, file)
    return splits


def _target(options: Mapping[str, Any], task: "Task", rows: "TextData") -> "FunctionTarget":
    """Load the function, and ask it for one row, so that one that does not fit is refused before the work."""
    from contraverse.evasion import FunctionTarget

    spec, written = options["predict"], options["classes"]
    if rows.label_names is None:
        raise UserError(f"{task.name} has no classes", where="--task", hint="a function is measured as a classifier")
    labels = [name.strip() for name in written.split(",")] if written else list(rows.label_names)
    if missing := sorted({rows.label_names[int(i)] for i in rows.labels or ()} - set(labels)):
        raise UserError(f"the rows have a class {missing[0]!r} that is not named", where="--classes")
    if not written and not options["labels"]:
        say(f"Scores are taken in the order of the classes {', '.join(labels)}; --classes gives another")
    with doing(f"Running {spec}…"):
        quiet()
        target = FunctionTarget(_guarded(load_function(spec, "--predict"), spec), labels, _access(options))
        target.scores(rows.texts[:1])
    return target


def _access(options: Mapping[str, Any]) -> Any:
    return "labels" if options["labels"] else "scores"


def _guarded(function: Callable[[list[Any]], Any], spec: str) -> Callable[[list[Any]], Any]:
    """``function`` with its errors as the user's."""

    def predict(texts: list[Any]) -> Any:
        try:
            return function(texts)
        except Exception as error:  # whatever the user's code raises
            raise UserError(f"raised {type(error).__name__}: {error}", where=spec) from error

    if inspect.iscoroutinefunction(function) or inspect.isclass(function):
        raise UserError("is no plain function from a list of texts to scores", where=spec)
    return predict


def _measure_noise(
    target: "FunctionTarget",
    rows: "TextData",
    splits: "TextSplits",
    task: "Task",
    settings: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    from contraverse.pipeline.noise import measure_noise, noise_progress_total

    announce_noise(settings)
    with counting("Noise", noise_progress_total(len(rows), settings, seed)) as progress:
        measured = measure_noise(target, rows, task, settings, seed=seed, train=splits.train, progress=progress)
    show_noise(measured["noise"])
    return measured
