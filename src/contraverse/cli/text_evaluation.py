"""``contraverse evaluate`` on texts: a task, the STS sets, ANLI, and the movement of representations."""

from typing import TYPE_CHECKING, Any, get_args

from contraverse.cli.console import counting, doing, figures, result, say, warn
from contraverse.cli.detector import set_threshold, show_detection
from contraverse.cli.evasion import measure_evasion_of_run
from contraverse.cli.files import Split, read_texts, tell, tell_tokens, text_model
from contraverse.cli.noise import measure_noise_of_sts, measure_noise_of_task
from contraverse.cli.request import Request, existing_file
from contraverse.errors import UserError
from contraverse.recipes import DataConfig

if TYPE_CHECKING:
    from contraverse.data import Task, TextSplits


def measure_task(request: Request) -> dict[str, Any]:
    """Print and return the metrics of a classifier or regression on its task, clean and under attack."""
    from contraverse import pipeline

    task, data = request.task_and_data()
    loaded, settings, split = request.loaded, request.settings, request.split
    with doing("Reading data…"):
        splits = read_splits(request, task, data)
        rows = splits.need(split)
    notes = tell_tokens(loaded.model, rows)
    set_threshold(request, lambda: splits.validation)
    attacked = min(settings.rows or len(rows), len(rows)) if settings.epsilons else 0
    title = f"{task.name}, {len(rows)} rows" + (f", {attacked} of them attacked" if attacked else "")
    say(f"Measuring {title}")
    with counting("Measuring", pipeline.progress_total(loaded.model, len(rows), settings)) as progress:
        evaluation = pipeline.measure_task(loaded.model, rows, task, settings, seed=data.seed, progress=progress)
    result.print(figures(title, columns_of(split, evaluation)))
    if "detection" in evaluation:
        show_detection(evaluation["detection"])
    _show_shift(evaluation)
    for note in evaluation.get("notes", ()):
        say(note)
    for warning in evaluation.get("robustness", {}).get("warnings", ()):
        warn(warning)
    if settings.noise:
        evaluation |= measure_noise_of_task(request, splits, rows, task, data.seed)
    if settings.evasion and request.options["noise"] is None and len(loaded.model.labels or ()) > 1:
        evaluation |= measure_evasion_of_run(request, rows, data.seed)
    evaluation["notes"] = [*notes, *evaluation.get("notes", ())]
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **evaluation}


def columns_of(split: Split, evaluation: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics in a column for each set of rows that they are of: all of ``split``, and those that were drawn."""
    from contraverse.evaluation.keys import clean_metrics, named_metrics

    if "drawn" not in evaluation:
        return {split: named_metrics(evaluation)}
    drawn = evaluation["drawn"]
    return {split: clean_metrics(evaluation), f"{drawn['rows']} of them": drawn["metrics"]}


def measure_sts(request: Request) -> dict[str, Any]:
    """Print and return Spearman's correlation of a sentence encoder on pairs with scores."""
    settings = request.settings
    if settings.sts is None:
        raise UserError(
            "a sentence encoder is measured on pairs with scores, and none are named",
            hint="give them with --sts: a folder of STS sets (<set>/test.parquet), a file of your own pairs, or hub",
        )
    from contraverse import pipeline

    with doing("Measuring on the STS sets…"):
        evaluation = pipeline.measure_sts(text_model(request.loaded, "--sts"), settings.sts)
    sets = evaluation["sts"]["sets"]
    columns: dict[str, dict[str, float]] = {}
    for aggregate in ("all", "mean", "wmean"):
        columns[aggregate] = {name: sts[aggregate] for name, sts in sets.items() if sts[aggregate] is not None}
    if len(sets) > 1:
        columns["all"]["average"] = evaluation["sts"]["average"]
    result.print(figures("Spearman x 100", columns))
    for note in evaluation.get("notes", ()):
        say(note)
    if settings.noise:
        evaluation |= measure_noise_of_sts(request, text_model(request.loaded, "--noise"), settings.sts)
    return evaluation


def measure_anli(request: Request) -> dict[str, Any]:
    """Print and return the accuracies of a model of NLI on the rounds of ANLI."""
    from contraverse.evaluation import evaluate_nli

    with doing("Measuring on ANLI…"):
        report = evaluate_nli(text_model(request.loaded, "--anli"), request.options["anli"])
    columns = {
        split: {**scores.accuracy, "pooled": scores.pooled, "mean": scores.mean}
        for split, scores in report.splits.items()
    }
    result.print(figures("accuracy", columns))
    return {"anli": report.to_dict()}


def measure_shift(request: Request) -> dict[str, Any]:
    """Print and return how far an attack moves the representations of a sentence encoder."""
    from contraverse import pipeline

    loaded, settings, source = request.loaded, request.settings, request.options["data"]
    if existing_file(source) is None:
        raise UserError("--shift needs sentences to attack", hint="give a file of them with --data")
    if not settings.epsilons:
        raise UserError("--shift needs radii, and there are none", hint="give them with --eps")
    with doing("Reading data…"):
        rows = read_texts(source, request.options["text"], 1, loaded, **request.form)
    tell_tokens(loaded.model, rows)
    seed = loaded.run.data.seed if loaded.run else DataConfig().seed
    say(f"Measuring the shift of {min(settings.rows or len(rows), len(rows))} of {len(rows)} sentences")
    with counting("Measuring", pipeline.progress_total(loaded.model, len(rows), settings)) as progress:
        evaluation = pipeline.measure_shift(loaded.model, rows, settings, seed=seed, progress=progress)
    _show_shift(evaluation)
    return {"source": rows.source, "rows": len(rows), **evaluation}


def _show_shift(evaluation: dict[str, Any]) -> None:
    if "shift" not in evaluation:
        return
    shift = evaluation["shift"]
    columns = {
        f"ε={at['epsilon']:g}": {"cosine similarity": at["cosine"], "Euclidean distance": at["euclidean"]}
        for at in shift["at"]
    }
    loss = {"class": "the classification loss", "distance": "the distance itself"}[shift["climbed"]]
    result.print(figures(f"h(x) and h(x_adv), {shift['attack']['name'].upper()} on {loss}", columns, 3))


def read_splits(request: Request, task: "Task", data: DataConfig) -> "TextSplits":
    """The splits of the task, of which the request's has rows with labels."""
    from contraverse.data import load_splits
    from contraverse.data.encoding import task_for

    loaded, split = request.loaded, request.split
    # The model's classes are what its logits mean, whatever a file makes of them.
    task = task_for(task, loaded.model.labels or [])
    file = existing_file(data.source)
    trained = loaded.columns if loaded.run is not None and loaded.run.task == task.name else None
    where = data.where() | {"source": {str(split): file} if file else data.source, "adversaries": None}
    splits = load_splits(task, trained=trained, **where)
    tell(splits, file)
    there = [name for name in get_args(Split) if getattr(splits, name) is not None]
    if split not in there and there:
        raise UserError(f"there are no {split} rows with labels", hint=f"take --split {' or '.join(there)}")
    return splits
