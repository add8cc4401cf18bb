"""``contraverse evaluate`` on images: PGD and APGD, AutoAttack, corruptions, unforeseen attacks, linear probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contraverse.attacks.table import ATTACKS
from contraverse.cli.console import counting, doing, figures, result, say, warn
from contraverse.cli.detector import set_threshold, show_detection
from contraverse.cli.files import Loaded, check_target, own
from contraverse.cli.images import load_rows, measured_route
from contraverse.cli.request import Request
from contraverse.cli.text_evaluation import columns_of
from contraverse.units import shown

if TYPE_CHECKING:
    from contraverse.data import ImageData
    from contraverse.evaluation.images.autoattack import AutoNorm
    from contraverse.types import BNBranch


@dataclass(frozen=True)
class AutoOptions:
    """Options of AutoAttack.

    ``state``: a file that is gone on from, of several radii one for each. ``settings``: further arguments of
    `contraverse.evaluation.images.auto_attack`; one that is None is its default.
    """

    norm: "AutoNorm"
    state: Path | None
    settings: dict[str, Any]

    def at(self, epsilon: float, *, among: int) -> dict[str, Any]:
        """The arguments at one of ``among`` radii."""
        state = self.state
        if state is not None and among > 1:
            state = state.with_name(f"{state.stem}-{epsilon:g}{state.suffix}")
        settings = {"norm": self.norm, "state": state, **self.settings}
        return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True)
class ExtraImageEvals:
    """Evaluations beyond PGD, on the same images.

    ``auto``: AutoAttack in the place of PGD; None leaves it out. ``unforeseen_attacks``: their names, None for those
    that have a reference. ``steps``: of these, None for as many as the reference is of.
    """

    auto: AutoOptions | None
    corruptions: bool
    corrupted_files: Path | None
    unforeseen: bool
    unforeseen_attacks: Sequence[str] | None
    steps: int | None


def measure_classifier(request: Request) -> dict[str, Any]:
    """Print and return the metrics of a classifier of images: clean, under attack, and on corrupted images."""
    from contraverse.evaluation import TaskEvaluator
    from contraverse.evaluation.keys import attacked_accuracy, named_metrics
    from contraverse.pipeline import measure_task, progress_total
    from contraverse.pipeline.measure import subset_note

    task, data = request.image_task_and_data()
    loaded, settings, split = request.loaded, request.settings, request.split
    bn_branch, beyond = measured_route(loaded, request.options["bn_branch"]), _beyond(request)
    with doing("Reading data…"):
        rows = load_rows(loaded, task, data, split, whole=not own(loaded, data.source))
    whose = own(loaded, data.source)  # other images are test images as a whole
    set_threshold(
        request, lambda: load_rows(loaded, task, data, "validation", whole=False) if whose else None, bn_branch
    )
    chosen = rows.sample(settings.rows, data.seed) if settings.rows else rows
    sizes, left_out = _refused(chosen, beyond)
    plain = settings.model_copy(update={"epsilons": []}) if beyond.auto else settings
    attacked = f", {len(chosen)} of them attacked" if settings.epsilons else ""
    say(f"Measuring {len(rows)} {split} images{attacked}")
    with counting("Measuring", progress_total(loaded.model, len(rows), plain)) as progress:
        evaluation = measure_task(
            loaded.model, rows, task, plain, seed=data.seed, bn_branch=bn_branch, progress=progress
        )
    attacked_here, notes = "robustness" in evaluation, [*evaluation.get("notes", ()), *left_out]
    extra: dict[str, float] = {}  # on the images that were drawn
    if beyond.auto:
        evaluation |= _auto_attack(loaded, settings.epsilons, chosen, bn_branch, beyond.auto, extra)
    if beyond.corruptions:
        evaluation |= _corruptions(loaded, chosen, None, bn_branch, extra)
    if beyond.unforeseen:
        evaluation |= _unforeseen(loaded, chosen, sizes, beyond.steps, bn_branch, extra)
    if len(chosen) < len(rows) and (extra or attacked_here):
        theirs = TaskEvaluator(chosen, task.metrics, settings.batch_size, bn_branch=bn_branch)(loaded.model)
        under_attack = {str(key): value for key, value in attacked_accuracy(evaluation).items()}
        evaluation["drawn"] = {"rows": len(chosen), "metrics": theirs | under_attack | extra}
        if not attacked_here:
            notes.append(subset_note(len(chosen), len(rows), data.seed, theirs["accuracy"]))
    elsewhere: dict[str, float] = {}
    if beyond.corrupted_files is not None:
        evaluation |= _corruptions(loaded, beyond.corrupted_files, settings.rows, bn_branch, elsewhere)
    columns = columns_of(split, evaluation)
    if "drawn" not in evaluation:
        columns[split] |= extra
    if beyond.corrupted_files is not None:
        columns[f"{evaluation['corruptions']['n']} of {beyond.corrupted_files.name}"] = elsewhere
    title = f"{task.name}, {len(rows)} images"
    result.print(figures(title, {name: _marked(evaluation, metrics) for name, metrics in columns.items()}))
    if "detection" in evaluation:
        show_detection(evaluation["detection"])
    evaluation["metrics"] = {**named_metrics(evaluation), **extra, **elsewhere}
    notes += [note for name in ("corruptions", "unforeseen") for note in evaluation.get(name, {}).get("notes", ())]
    if replaced := {attack for report in evaluation.get("autoattack", {}).values() for attack in report["replaced"]}:
        names, classes = ", ".join(sorted(replaced)), len(loaded.model.labels or ())
        notes.append(f"{names}: with {classes} classes there is no DLR loss for it, and it maximized the margin")
    evaluation["notes"] = notes
    for note in notes:
        say(note)
    for warning in [*evaluation.get("robustness", {}).get("warnings", ()), *evaluation.get("warnings", ())]:
        warn(warning)
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **evaluation}


def _beyond(request: Request) -> ExtraImageEvals:
    options = request.options
    auto = None
    if ATTACKS[request.attack].measured_by == "auto_attack":
        chosen = {name: options[name] for name in ("version", "queries", "batch_size")}
        chosen["attacks"] = options["attacks"] and options["attacks"].split(",")
        auto = AutoOptions(options["norm"] or request.settings.norm, options["state"], chosen)
    named = options["unforeseen_attacks"]
    return ExtraImageEvals(
        auto,
        options["corruptions"],
        options["corrupted"],
        options["unforeseen"] or named is not None,
        None if named is None else named.split(","),
        options["steps"],
    )


def _marked(results: dict[str, Any], metrics: dict[str, float]) -> dict[str, float]:
    """The metrics by names that say where one is not what its name says by itself."""
    from contraverse.evaluation.images import ALL_CORRUPTIONS, CIFAR_C, REFERENCE_STEPS
    from contraverse.reporting.names import heading

    marks: dict[str, str] = {}
    for epsilon, report in results.get("autoattack", {}).items():
        marks[f"accuracy@autoattack-{epsilon}"] = f" ({report['mark']})" if report["mark"] else ""
    if (steps := results.get("unforeseen", {}).get("steps", REFERENCE_STEPS)) != REFERENCE_STEPS:
        marks |= {name: f" ({steps} of {REFERENCE_STEPS} steps)" for name in metrics if name.startswith("uar@")}
    if results.get("corruptions", {}).get("source") == CIFAR_C:
        made = [f"accuracy@{name}" for name in (*ALL_CORRUPTIONS, "15_corruptions", "19_corruptions")]
        marks |= dict.fromkeys(made, " (made with CIFAR-10-C's parameters)")
    return {f"{heading(name)}{marks.get(name, '')}": value for name, value in metrics.items()}


def _refused(rows: "ImageData", beyond: ExtraImageEvals) -> tuple[dict[str, list[float]], list[str]]:
    """Find out before anything is measured what cannot be; the sizes of unforeseen attacks, and those left out."""
    from contraverse.evaluation.images import check_corruptible, planned

    if beyond.auto and beyond.auto.state is not None:
        check_target(beyond.auto.state, (".json",), force=True)
    if beyond.corruptions:
        check_corruptible(rows)
    if beyond.corrupted_files is not None:
        check_corruptible(beyond.corrupted_files)
    return planned(beyond.unforeseen_attacks, rows) if beyond.unforeseen else ({}, [])


def _auto_attack(
    loaded: Loaded,
    epsilons: Sequence[float],
    rows: "ImageData",
    bn_branch: "BNBranch",
    options: AutoOptions,
    metrics: dict[str, float],
) -> dict[str, Any]:
    """AutoAttack at each radius; its accuracies go into ``metrics``."""
    from contraverse.evaluation.images import VERSIONS, auto_attack

    attacks = options.settings["attacks"] or VERSIONS[options.settings["version"] or "standard"]
    reports, warnings = {}, list[str]()
    for epsilon in epsilons:
        say(f"AutoAttack on {len(rows)} images within {shown(epsilon)} ({options.norm})")
        arguments = options.at(epsilon, among=len(epsilons))
        with counting("AutoAttack", len(rows) * len(attacks)) as progress:
            report = auto_attack(loaded.model, rows, epsilon, bn_branch=bn_branch, progress=progress, **arguments)
        metrics[f"accuracy@autoattack-{epsilon:g}"] = report.accuracy
        reports[f"{epsilon:g}"] = report.to_dict()
        warnings += report.warnings
    return {"autoattack": reports, "warnings": warnings}


def _corruptions(
    loaded: Loaded,
    source: "ImageData | Path",
    limit: int | None,
    bn_branch: "BNBranch",
    metrics: dict[str, float],
) -> dict[str, Any]:
    """All corruptions of ``limit`` images, or from their files; the accuracies go into ``metrics``."""
    from contraverse.evaluation.images import ALL_CORRUPTIONS, corruption_accuracy

    what = f"of {source}" if isinstance(source, Path) else f"of {len(source)} images"
    say(f"Corruptions {what}: {len(ALL_CORRUPTIONS)} kinds in 5 severities")
    each = limit or (10_000 if isinstance(source, Path) else len(source))
    with counting("Corruptions", each * len(ALL_CORRUPTIONS) * 5) as progress:
        report = corruption_accuracy(
            loaded.model, source, corruptions=ALL_CORRUPTIONS, rows=limit, bn_branch=bn_branch, progress=progress
        )
    metrics |= report.metrics
    return {"corruptions": report.to_dict()}


def _unforeseen(
    loaded: Loaded,
    rows: "ImageData",
    sizes: dict[str, list[float]],
    steps: int | None,
    bn_branch: "BNBranch",
    metrics: dict[str, float],
) -> dict[str, Any]:
    """Unforeseen attacks at their ``sizes``; UAR, or accuracy at each size, goes into ``metrics``."""
    from contraverse.evaluation.images import REFERENCE_STEPS, unforeseen_accuracy

    steps = steps or REFERENCE_STEPS
    say(f"Unforeseen attacks: {', '.join(sizes)}, {steps} steps, on {len(rows)} images")
    with counting("Unforeseen", len(rows) * (1 + sum(map(len, sizes.values())))) as progress:
        report = unforeseen_accuracy(loaded.model, rows, sizes, steps=steps, bn_branch=bn_branch, progress=progress)
    metrics |= {name: value for name, value in report.metrics.items() if name != "accuracy"}
    return {"unforeseen": report.to_dict()}


def measure_encoder(request: Request) -> dict[str, Any]:
    """Print and return the accuracy of a linear classifier on an encoder's features.

    Those of a dual encoder are probed by both sets of batch norms, unless a flag names one.
    """
    from contraverse.models import ImageModel
    from contraverse.pipeline import measure_probe
    from contraverse.pipeline.measure import ROUTES

    task, data = request.image_task_and_data()
    loaded, split, bn_branch = request.loaded, request.split, request.options["bn_branch"]
    with doing("Reading data…"):
        train, rows = (load_rows(loaded, task, data, name, whole=False) for name in ("train", split))
    assert isinstance(loaded.model, ImageModel)
    routes = (measured_route(loaded, bn_branch),) if bn_branch is not None else ROUTES
    say(f"Probing: a linear classifier on the features of {len(train):,} images, tested on {len(rows):,}")
    probe = measure_probe(loaded.model, train, rows, request.settings.batch_size, routes)
    result.print(figures(f"{task.name}, {len(rows)} images", {split: probe["metrics"]}))
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **probe}
