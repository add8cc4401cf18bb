"""What the commands do with models of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from contraverse.cli.console import counting, doing, figures, result, say, warn
from contraverse.cli.files import Loaded, Split, check_target, own, tell
from contraverse.errors import UserError
from contraverse.recipes import ImageDataConfig, ImageEvaluationConfig
from contraverse.units import shown

if TYPE_CHECKING:
    import numpy as np

    from contraverse.data import ImageData, ImageTask
    from contraverse.data.splits import OnBadRow
    from contraverse.evaluation.images.autoattack import AutoNorm
    from contraverse.types import BNBranch


@dataclass(frozen=True)
class AutoOptions:
    """How AutoAttack is run.

    ``state``: a file that is gone on from, of several radii one for each. ``given``: further arguments of
    `contraverse.evaluation.images.auto_attack`; one that is None is its default.
    """

    norm: "AutoNorm"
    state: Path | None
    given: dict[str, Any]

    def at(self, epsilon: float, *, among: int) -> dict[str, Any]:
        """The arguments at one of ``among`` radii."""
        state = self.state
        if state is not None and among > 1:
            state = state.with_name(f"{state.stem}-{epsilon:g}{state.suffix}")
        given = {"norm": self.norm, "state": state, **self.given}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class ExtraImageEvals:
    """What is measured beyond PGD, on the same images.

    ``auto``: AutoAttack in the place of PGD; None leaves it out. ``unforeseen_attacks``: their names, None for those
    that have a reference. ``steps``: of these, None for as many as the reference is of.
    """

    auto: AutoOptions | None
    corruptions: bool
    corrupted_files: Path | None
    unforeseen: bool
    unforeseen_attacks: Sequence[str] | None
    steps: int | None


def measured_route(loaded: Loaded, bn_branch: "BNBranch | None") -> "BNBranch":
    """``bn_branch``, or where it is None the set of batch norms that the run's method says.

    Raises:
        UserError: a branch was asked for of a model of texts.
    """
    from contraverse.models import ImageModel

    if not isinstance(loaded.model, ImageModel):
        if bn_branch is not None:
            raise UserError("--bn-branch is for models of images, and this is one of texts", hint="leave it out")
    elif loaded.model.dual:
        from contraverse.pipeline import bn_branch_of

        chosen = bn_branch or bn_branch_of(loaded.run)
        say(f"A dual model, through its {chosen} batch norms")
        return chosen
    elif bn_branch is not None:
        say("The model has one set of batch norms, so that --bn-branch changes nothing")
    return "adversarial"


def measure_images(
    loaded: Loaded,
    settings: ImageEvaluationConfig,
    task: "ImageTask",
    data: ImageDataConfig,
    split: Split,
    bn_branch: "BNBranch",
    beyond: ExtraImageEvals,
) -> dict[str, Any]:
    """Print and return what a classifier of images is worth: clean, under attack, and on corrupted images."""
    from contraverse.evaluation import TaskEvaluator
    from contraverse.pipeline import measure_task, progress_total
    from contraverse.pipeline.measure import subset_note

    with doing("Reading data…"):
        rows = _rows(loaded, task, data, split, whole=not own(loaded, data.source))
    chosen = rows.sample(settings.rows, data.seed) if settings.rows else rows
    sizes, left_out = _refused(chosen, beyond)
    plain = settings.model_copy(update={"epsilons": []}) if beyond.auto else settings
    attacked = f", {len(chosen)} of them attacked" if settings.epsilons else ""
    say(f"Measuring {len(rows)} {split} images{attacked}")
    with counting("Measuring", progress_total(loaded.model, len(rows), plain)) as progress:
        found = measure_task(loaded.model, rows, task, plain, seed=data.seed, bn_branch=bn_branch, progress=progress)
    clean = {name: value for name, value in found["metrics"].items() if "@" not in name}
    on_chosen = {name: value for name, value in found["metrics"].items() if name not in clean}
    attacked_here, notes = bool(on_chosen), [*found.get("notes", ()), *left_out]
    if beyond.auto:
        found |= _auto_attack(loaded, settings.epsilons, chosen, bn_branch, beyond.auto, on_chosen)
    if beyond.corruptions:
        found |= _corruptions(loaded, chosen, None, bn_branch, on_chosen)
    if beyond.unforeseen:
        found |= _unforeseen(loaded, chosen, sizes, beyond.steps, bn_branch, on_chosen)
    if len(chosen) < len(rows) and on_chosen:
        theirs = TaskEvaluator(chosen, task.metrics, settings.batch_size, bn_branch=bn_branch)(loaded.model)
        found["drawn"] = {"rows": len(chosen), "metrics": theirs | on_chosen}
        if not attacked_here:
            notes.append(subset_note(len(chosen), len(rows), data.seed, theirs["accuracy"]))
    elsewhere: dict[str, float] = {}
    if beyond.corrupted_files is not None:
        found |= _corruptions(loaded, beyond.corrupted_files, settings.rows, bn_branch, elsewhere)
    found["metrics"] = clean | on_chosen | elsewhere
    columns = by_rows(split, {**found, "metrics": clean | on_chosen})
    if beyond.corrupted_files is not None:
        columns[f"{found['corruptions']['n']} of {beyond.corrupted_files.name}"] = elsewhere
    result.print(
        figures(f"{task.name}, {len(rows)} images", {name: _marked(found, of) for name, of in columns.items()})
    )
    notes += [note for name in ("corruptions", "unforeseen") for note in found.get(name, {}).get("notes", ())]
    if replaced := {attack for report in found.get("autoattack", {}).values() for attack in report["replaced"]}:
        names, classes = ", ".join(sorted(replaced)), len(loaded.model.labels or ())
        notes.append(f"{names}: with {classes} classes there is no DLR loss for it, and it climbed the margin")
    found["notes"] = notes
    for note in found["notes"]:
        say(note)
    for warning in [*found.get("robustness", {}).get("warnings", ()), *found.get("warnings", ())]:
        warn(warning)
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **found}


def by_rows(split: Split, found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures in a column for each set of rows that they are of: all of ``split``, and those that were drawn."""
    if "drawn" not in found:
        return {split: found["metrics"]}
    drawn = found["drawn"]
    whole = {name: value for name, value in found["metrics"].items() if "@" not in name}
    return {split: whole, f"{drawn['rows']} of them": drawn["metrics"]}


def _marked(found: dict[str, Any], metrics: dict[str, float]) -> dict[str, float]:
    """The metrics by names that say where one is not what its name says by itself."""
    from contraverse.evaluation.images import ALL_CORRUPTIONS, CIFAR_C, REFERENCE_STEPS
    from contraverse.reporting.names import heading

    marks: dict[str, str] = {}
    for epsilon, report in found.get("autoattack", {}).items():
        marks[f"accuracy@autoattack-{epsilon}"] = f" ({report['mark']})" if report["mark"] else ""
    if (steps := found.get("unforeseen", {}).get("steps", REFERENCE_STEPS)) != REFERENCE_STEPS:
        marks |= {name: f" ({steps} of {REFERENCE_STEPS} steps)" for name in metrics if name.startswith("uar@")}
    if found.get("corruptions", {}).get("source") == CIFAR_C:
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

    attacks = options.given["attacks"] or VERSIONS[options.given["version"] or "standard"]
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


def measure_encoder(
    loaded: Loaded,
    settings: ImageEvaluationConfig,
    task: "ImageTask",
    data: ImageDataConfig,
    split: Split,
    bn_branch: "BNBranch | None",
) -> dict[str, Any]:
    """Print and return how far classes can be told by a linear classifier on an encoder's features.

    Those of a dual encoder are probed by both sets of batch norms, unless ``bn_branch`` names one.
    """
    from contraverse.models import ImageModel
    from contraverse.pipeline import measure_probe
    from contraverse.pipeline.measure import ROUTES

    with doing("Reading data…"):
        train, rows = (_rows(loaded, task, data, name, whole=False) for name in ("train", split))
    assert isinstance(loaded.model, ImageModel)
    routes = (measured_route(loaded, bn_branch),) if bn_branch is not None else ROUTES
    say(f"Probing: a linear classifier on the features of {len(train):,} images, tested on {len(rows):,}")
    found = measure_probe(loaded.model, train, rows, settings.batch_size, routes)
    result.print(figures(f"{task.name}, {len(rows)} images", {split: found["metrics"]}))
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **found}


def _rows(loaded: Loaded, task: "ImageTask", data: ImageDataConfig, split: Split, *, whole: bool) -> "ImageData":
    """Labelled images of ``split``; ``whole``: a source without splits is that split, none of it set aside."""
    from contraverse.data import load_images

    if loaded.model.labels:
        task = _with_classes(loaded, task)
    where = data.where() | {"size": data.size or _trained_size(loaded)}
    if whole:
        where |= {"validation_fraction": 0.0, "validation_rows": None}
    named = Path(data.source) if isinstance(data.source, str) and Path(data.source).exists() else None
    if whole and named is not None and named.is_file():
        where["source"] = {str(split): named}
    splits = load_images(task, **where, unnamed=split if whole else "train")
    alone = whole and [name for name in get_args(Split) if getattr(splits, name) is not None] == [split]
    tell(splits, named if alone else None)
    there = [name for name in get_args(Split) if getattr(splits, name) is not None]
    if split not in there and there:
        raise UserError(f"there are no {split} images with labels", hint=f"take --split {' or '.join(there)}")
    rows = splits.need(split).labelled()
    if loaded.numbered and loaded.model.labels:
        _name_classes(loaded, rows)
    _note_size(loaded, rows, splits.notes)
    return rows


def _with_classes(loaded: Loaded, task: "ImageTask") -> "ImageTask":
    """``task`` with the model's classes: by name, or where these have numbers alone, with the task's own.

    Raises:
        UserError: the task has another number of classes.
    """
    labels = tuple(loaded.model.labels or ())
    if not loaded.numbered:
        return replace(task, labels=labels)
    if task.labels and len(task.labels) != len(labels):
        raise UserError(f"the model tells {len(labels)} classes apart, and {task.name} has {len(task.labels)}")
    return task


def _name_classes(loaded: Loaded, rows: "ImageData") -> None:
    """Call the model's numbered classes as those of ``rows`` are, in this order, and say so.

    Raises:
        UserError: there is another number of them.
    """
    names, count = list(rows.label_names or ()), len(loaded.model.labels or ())
    if len(names) != count:
        raise UserError(
            f"the model tells {count} classes apart, and the images are of {len(names)}: {', '.join(names[:5])}",
            where=rows.source,
            hint="its classes have no names: give its task with --task, or images with a folder for each class",
        )
    if names != loaded.model.labels:
        shown_names = ", ".join(names[:10]) + (", ..." if count > 10 else "")
        say(f"The model's classes have numbers alone; 0 to {count - 1} are taken as {shown_names}")
    loaded.model.labels = names


def _trained_size(loaded: Loaded) -> int | None:
    """The height and width of the images that the model was trained on, where these are known and equal."""
    from contraverse.models import ImageModel

    assert isinstance(loaded.model, ImageModel)
    size = loaded.model.image_size
    return size[0] if size is not None and size[0] == size[1] else None


def _note_size(loaded: Loaded, images: "ImageData", notes: Sequence[str]) -> None:
    """Say where images were, or still are, of another size than those that the model was trained on."""
    from contraverse.models import ImageModel

    assert isinstance(loaded.model, ImageModel)
    trained, shape = loaded.model.image_size, tuple(images.pixels.shape[2:])
    if trained is not None and shape != trained:
        warn(f"the model was trained on images of {trained[0]} x {trained[1]}, and these are {shape[0]} x {shape[1]}")
    elif trained is not None and any("resized" in note for note in notes):
        say(f"The model was trained on images of {trained[0]} x {trained[1]}, and these were scaled to that")


def _read(loaded: Loaded, source: str, size: int | None, on_bad_row: "OnBadRow") -> tuple["ImageData", list[str]]:
    """All images of ``source`` at the size that the model was trained on, and what each is called."""
    from contraverse.data.images.load import read_images

    with doing("Reading images…"):
        images, names, notes = read_images(source, size=size or _trained_size(loaded), on_bad_row=on_bad_row)
    for note in notes:
        say(note)
    _note_size(loaded, images, notes)
    return images, names


def encode_images(
    loaded: Loaded, source: str, size: int | None, on_bad_row: "OnBadRow", batch_size: int, bn_branch: "BNBranch"
) -> tuple["np.ndarray", list[str]]:
    """Features h (N, H), float32, of every image, and their names."""
    import numpy as np
    import torch

    from contraverse.evaluation.predict import batches
    from contraverse.models import ImageModel

    images, names = _read(loaded, source, size, on_bad_row)
    assert isinstance(loaded.model, ImageModel)
    parts = []
    with counting("Encoding", len(images)) as advance, torch.no_grad():
        for rows, batch in batches(loaded.model, images, np.arange(len(images)), batch_size):
            h = loaded.model(batch, want=("h",), bn_branch=bn_branch).h
            assert isinstance(h, torch.Tensor)
            parts.append(h.float().cpu().numpy())
            advance(len(rows))
    return np.concatenate(parts), names


def predict_images(
    loaded: Loaded, source: str, size: int | None, on_bad_row: "OnBadRow", batch_size: int, bn_branch: "BNBranch"
) -> tuple["np.ndarray", list[str]]:
    """Logits (N, C) of every image, and their names."""
    from contraverse.evaluation import predict

    images, names = _read(loaded, source, size, on_bad_row)
    with counting("Predicting", len(images)) as advance:
        return predict(loaded.model, images, batch_size, bn_branch=bn_branch, progress=advance), names
