"""``contraverse evaluate``: what a model is worth, under attack too."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import typer

from contraverse.cli.checks import IMAGES, check_image_flags, positive
from contraverse.cli.console import counting, doing, figures, result, say, warn
from contraverse.cli.files import (
    MODEL,
    Delimiter,
    Encoding,
    Loaded,
    Pool,
    Split,
    Trust,
    check_target,
    load_model,
    own,
    read_texts,
    tell,
    tell_tokens,
    text_model,
    write_whole,
)
from contraverse.cli.foreign import Arch, Normalise
from contraverse.cli.images import (
    AutoOptions,
    ExtraImageEvals,
    by_rows,
    measure_encoder,
    measure_images,
    measured_route,
)
from contraverse.errors import UserError
from contraverse.recipes import DataConfig, EvaluationConfig, ImageDataConfig, ImageEvaluationConfig

if TYPE_CHECKING:
    from contraverse.data import ImageTask, Task, TextData


Data = TypeVar("Data", DataConfig, ImageDataConfig)


def evaluate(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help=MODEL)] = None,
    task: Annotated[str | None, typer.Option(help="contraverse list tasks. (default: the run's)")] = None,
    data: Annotated[str | None, typer.Option(help="A file or folder. (default: the run's)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text column; twice for a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    split: Annotated[Split, typer.Option(help="Rows to measure on.")] = "test",
    eps: Annotated[
        str | None, typer.Option(help="Radii, as .1,.3,1 or 8/255; none for no attack. (default: the run's)")
    ] = None,
    attack: Annotated[
        Literal["pgd", "apgd", "autoattack"] | None, typer.Option(help="autoattack is for images.")
    ] = None,
    norm: Annotated[
        Literal["l2", "linf", "l1"] | None,
        typer.Option(help="l2 of a sequence or an image, or linf; l1 with AutoAttack alone."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps of an attempt.")] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Length of a step, as .05 or 2/255. (default: by radius and steps)")
    ] = None,
    random_start: Annotated[
        bool | None, typer.Option("--random-start/--clean-start", help="Where the first attempt on a row starts.")
    ] = None,
    restarts: Annotated[int | None, typer.Option(min=1, help="Attempts on each row, with each loss.")] = None,
    relative: Annotated[
        bool | None, typer.Option("--relative/--absolute", help="Radii as fractions of each text's own embeddings.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Attack (of images: corrupt) at most so many rows.")] = None,
    shift: Annotated[
        bool | None, typer.Option("--shift/--no-shift", help="Measure how far the attack moves representations.")
    ] = None,
    diagnostics: Annotated[
        bool | None, typer.Option("--diagnostics/--no-diagnostics", help="Try the attack itself on 32 rows.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows at a time. (default: the run's; AutoAttack's: 250)")
    ] = None,
    version: Annotated[
        Literal["standard", "plus", "rand"] | None,
        typer.Option(help="Of AutoAttack; rand is for models that draw at random. (default: standard)"),
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Of AutoAttack: these alone, as apgd-ce,apgd-t,fab-t,square.")
    ] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Of AutoAttack's Square. (default: 5000)")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Of AutoAttack: note what is done in this .json; the same command goes on from it."),
    ] = None,
    on_bad_row: Annotated[Literal["error", "skip"] | None, typer.Option(help="What an unusable row does.")] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Of images: accuracy under 19 corruptions in 5 severities.")
    ] = False,
    corrupted: Annotated[Path | None, typer.Option(help="Of images: a folder of CIFAR-10-C's .npy files.")] = None,
    unforeseen: Annotated[
        bool, typer.Option("--unforeseen", help="Of images: UAR under JPEG, elastic, L1, L2 and Linf attacks.")
    ] = False,
    unforeseen_attacks: Annotated[
        str | None,
        typer.Option(help="These instead, as fog,snow,gabor; or all. --steps is theirs, too (default: 200)."),
    ] = None,
    bn_branch: Annotated[
        Literal["clean", "adversarial"] | None,
        typer.Option(
            help="Of a dual model of images: its batch norms. (default: adversarial, where they were trained)"
        ),
    ] = None,
    pooling: Pool = None,
    sts: Annotated[
        str | None,
        typer.Option(help="For sentence embeddings: a folder of STS sets, a file of pairs with scores, or hub."),
    ] = None,
    anli: Annotated[
        str | None, typer.Option(help="For a model of NLI: a folder of ANLI's three rounds, or hub.")
    ] = None,
    model_arch: Arch = None,
    normalise: Normalise = None,
    module: Annotated[
        str | None,
        typer.Option(
            help="Your own network, FILE.py:FUNCTION: runs that code. FUNCTION gives a torch.nn.Module from pixels in "
            "[0, 1] to logits; MODEL is the file of its weights, if there is one."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures to this .json as well.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Measure a classifier clean and under attack on word embeddings or pixels, or a sentence encoder on STS sets."""
    if model is None and module is None:
        context.fail("Missing argument 'MODEL', or --module.")
    if output is not None:
        check_target(output, (".json",), force)
    settings_given = {
        "epsilons": [] if eps == "none" else None if eps is None else positive(eps, "--eps"),
        "attack": None if attack == "autoattack" else attack,
        "norm": None if norm == "l1" else norm,
        "steps": steps,
        "step_size": None if step_size is None else positive(step_size, "--step-size", at_most=1)[0],
        "random_start": random_start,
        "restarts": restarts,
        "relative": relative,
        "rows": rows,
        "batch_size": batch_size,
        "shift": shift,
        "diagnostics": diagnostics,
        "sts": sts,
    }
    given = {name: value for name, value in settings_given.items() if value is not None}
    flags = {
        **{"--eps": eps, "--attack": attack, "--norm": norm, "--steps": steps, "--restarts": restarts, "--rows": rows},
        **{"--step-size": step_size, "--random-start": random_start},
        **{"--relative": relative, "--shift": shift, "--diagnostics": diagnostics, "--corruptions": corruptions},
        **{"--corrupted": corrupted, "--unforeseen": unforeseen, "--unforeseen-attacks": unforeseen_attacks},
        **{"--sts": sts, "--anli": anli, "--text": text, "--bn-branch": bn_branch},
        **{"--delimiter": delimiter, "--encoding": encoding},
        **{"--version": version, "--attacks": attacks, "--queries": queries, "--state": state},
    }
    flags = {name: value for name, value in flags.items() if value not in (None, False, [])}
    loaded = load_model(
        model, pooling=pooling, arch=model_arch, normalise=normalise, module=module, trust_remote_code=trust_remote_code
    )
    of_images = is_image_model(loaded)
    default = ImageEvaluationConfig() if of_images else EvaluationConfig()
    settings = (loaded.run.evaluation if loaded.run else default).model_copy(update=given)
    if not of_images and (attack == "autoattack" or norm == "l1" or any(name in flags for name in IMAGES)):
        raise UserError(
            "AutoAttack, corruptions, unforeseen attacks and --bn-branch are for images, and this model is one of texts"
        )
    form = {"delimiter": delimiter, "encoding": encoding}
    where: dict[str, Any] = {"source": data, "label": label, "on_bad_row": on_bad_row}
    if of_images:
        assert isinstance(settings, ImageEvaluationConfig)
        check_image_flags(flags, settings, encoder=loaded.model.labels is None)
        images = _image_source(loaded, task, where)
        if loaded.model.labels is None:
            found = measure_encoder(loaded, settings, *images, split, bn_branch)
        else:
            named = unforeseen_attacks.split(",") if unforeseen_attacks is not None else None
            options = {"version": version, "attacks": attacks and attacks.split(","), "queries": queries}
            auto = AutoOptions(norm or settings.norm, state, options | {"batch_size": batch_size})
            beyond = ExtraImageEvals(
                auto if attack == "autoattack" else None,
                corruptions,
                corrupted,
                unforeseen or named is not None,
                named,
                steps,
            )
            found = measure_images(loaded, settings, *images, split, measured_route(loaded, bn_branch), beyond)
    elif anli is not None:
        found = _measure_anli(loaded, anli)
    elif loaded.model.labels is None and settings.shift and sts is None:
        found = _measure_shift(loaded, settings, data, text, **form)
    elif loaded.model.labels is None or sts is not None:
        found = _measure_sts(loaded, settings)
    else:
        found = _measure_task(loaded, settings, *_source(loaded, task, {**where, "text": text, **form}), split)
    if output is not None:
        write_whole(
            output, lambda file: json.dump({"model": " ".join(filter(None, (module, model))), **found}, file, indent=2)
        )
        say(f"written to {output}")


def _measure_sts(loaded: Loaded, settings: EvaluationConfig) -> dict[str, Any]:
    if settings.sts is None:
        raise UserError(
            "a sentence encoder is measured on pairs with scores, and none are named",
            hint="give them with --sts: a folder of STS sets (<set>/test.parquet), a file of your own pairs, or hub",
        )
    from contraverse.pipeline import measure_sts

    with doing("Measuring on the STS sets…"):
        found = measure_sts(text_model(loaded, "--sts"), settings.sts)
    sets = found["sts"]["sets"]
    columns: dict[str, dict[str, float]] = {}
    for how in ("all", "mean", "wmean"):
        columns[how] = {name: scores[how] for name, scores in sets.items() if scores[how] is not None}
    if len(sets) > 1:
        columns["all"]["average"] = found["sts"]["average"]
    result.print(figures("Spearman x 100", columns))
    for note in found.get("notes", ()):
        say(note)
    return found


def _measure_anli(loaded: Loaded, folder: str) -> dict[str, Any]:
    from contraverse.evaluation import evaluate_nli

    with doing("Measuring on ANLI…"):
        report = evaluate_nli(text_model(loaded, "--anli"), folder)
    columns = {
        split: {**scores.accuracy, "pooled": scores.pooled, "mean": scores.mean}
        for split, scores in report.splits.items()
    }
    result.print(figures("accuracy", columns))
    return {"anli": report.to_dict()}


def _source(loaded: Loaded, task: str | None, flags: dict[str, Any]) -> tuple["Task", DataConfig]:
    """The task, and where its rows are: the run's, where the flags name no other."""
    from contraverse.data import get_task

    run = loaded.run
    if task is None and run is None:
        raise UserError("which task is it?", hint="name it with --task; contraverse list tasks shows them")
    chosen = get_task(task or (run.task if run else ""))
    return chosen, _placed(loaded, chosen.name, DataConfig(), flags)


def _placed(loaded: Loaded, task: str, default: Data, flags: dict[str, Any]) -> Data:
    """Where the rows are: as the run has it, where that is of this task and source, with the flags over it."""
    run = loaded.run
    same = run is not None and run.task == task and (flags["source"] is None or own(loaded, flags["source"]))
    base = run.data if run is not None and same else default
    assert isinstance(base, type(default))
    return base.model_copy(update={name: value for name, value in flags.items() if value is not None})


def is_image_model(loaded: Loaded) -> bool:
    """Whether it reads images."""
    from contraverse.models import ImageModel

    return isinstance(loaded.model, ImageModel)


def _image_source(loaded: Loaded, task: str | None, flags: dict[str, Any]) -> tuple["ImageTask", ImageDataConfig]:
    """The task, and where its images are: the run's, where the flags name no other."""
    from contraverse.data import get_image_task

    run = loaded.run
    chosen = get_image_task(task or (run.task if run else "images"))
    return chosen, _placed(loaded, chosen.name, ImageDataConfig(), flags)


def _measure_task(
    loaded: Loaded, settings: EvaluationConfig, task: "Task", data: DataConfig, split: Split
) -> dict[str, Any]:
    from contraverse.pipeline import measure_task, progress_total

    with doing("Reading data…"):
        rows = _rows(loaded, task, data, split)
    notes = tell_tokens(loaded.model, rows)
    attacked = min(settings.rows or len(rows), len(rows)) if settings.epsilons else 0
    what = f"{task.name}, {len(rows)} rows" + (f", {attacked} of them attacked" if attacked else "")
    say(f"Measuring {what}")
    with counting("Measuring", progress_total(loaded.model, len(rows), settings)) as progress:
        found = measure_task(loaded.model, rows, task, settings, seed=data.seed, progress=progress)
    result.print(figures(what, by_rows(split, found)))
    _show_shift(found)
    for note in found.get("notes", ()):
        say(note)
    for warning in found.get("robustness", {}).get("warnings", ()):
        warn(warning)
    found |= {"notes": [*notes, *found.get("notes", ())]}
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **found}


def _measure_shift(
    loaded: Loaded, settings: EvaluationConfig, data: str | None, text: list[str] | None, **form: Any
) -> dict[str, Any]:
    from contraverse.pipeline import measure_shift, progress_total

    if data is None or not Path(data).is_file():
        raise UserError("--shift needs sentences to attack", hint="give a file of them with --data")
    if not settings.epsilons:
        raise UserError("--shift needs radii, and there are none", hint="give them with --eps")
    with doing("Reading data…"):
        rows = read_texts(data, text, 1, loaded, **form)
    tell_tokens(loaded.model, rows)
    seed = loaded.run.data.seed if loaded.run else DataConfig().seed
    say(f"Measuring the shift of {min(settings.rows or len(rows), len(rows))} of {len(rows)} sentences")
    with counting("Measuring", progress_total(loaded.model, len(rows), settings)) as progress:
        found = measure_shift(loaded.model, rows, settings, seed=seed, progress=progress)
    _show_shift(found)
    return {"source": rows.source, "rows": len(rows), **found}


def _show_shift(found: dict[str, Any]) -> None:
    if "shift" not in found:
        return
    at = found["shift"]["at"]
    columns = {
        f"ε={row['epsilon']:g}": {"cosine similarity": row["cosine"], "Euclidean distance": row["euclidean"]}
        for row in at
    }
    climbed = {"class": "the classification loss", "distance": "the distance itself"}[found["shift"]["climbed"]]
    result.print(figures(f"h(x) and h(x_adv), {found['shift']['attack']['name'].upper()} on {climbed}", columns, 3))


def _rows(loaded: Loaded, task: "Task", data: DataConfig, split: Split) -> "TextData":
    from contraverse.data import load_splits
    from contraverse.data.encoding import task_for

    # The model's classes are what its logits mean, whatever a file makes of them.
    task = task_for(task, loaded.model.labels or [])
    file = Path(data.source) if isinstance(data.source, str) and Path(data.source).is_file() else None
    trained = loaded.columns if loaded.run is not None and loaded.run.task == task.name else None
    splits = load_splits(
        task,
        {str(split): file} if file else data.source,
        trained=trained,
        **data.model_dump(exclude={"source", "adversaries"}),
    )
    tell(splits, file)
    there = [name for name in get_args(Split) if getattr(splits, name) is not None]
    if split not in there and there:
        raise UserError(f"there are no {split} rows with labels", hint=f"take --split {' or '.join(there)}")
    return splits.need(split)
