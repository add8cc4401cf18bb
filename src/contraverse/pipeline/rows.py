"""What a run trains and is measured on."""

from dataclasses import replace

import numpy as np
import torch

from contraverse.data import (
    ImageData,
    ImageSplits,
    Task,
    TextSplits,
    get_image_task,
    get_task,
    load_images,
    load_splits,
)
from contraverse.errors import UserError
from contraverse.methods import UAT, Selfie
from contraverse.recipes import ImageDataConfig, ImageRunConfig, RunConfig
from contraverse.types import UNLABELLED, Method

AnySplits = TextSplits | ImageSplits
_UNDER_ATTACK = ("robust_accuracy", "eval_robust_accuracy")


def load_rows(config: RunConfig) -> AnySplits:
    """All rows of the configured source, as texts or images."""
    if not isinstance(config, ImageRunConfig):
        return load_splits(get_task(config.task), **config.data.model_dump())
    return load_images(get_image_task(config.task), **config.data.where())


def load_and_prepare(config: RunConfig, method: Method, *, test: bool) -> AnySplits:
    """The rows as ``method`` needs them: with labels or without; ``test`` says whether test rows are looked at.

    Raises:
        UserError: the source cannot be used, or lacks what the method needs.
    """
    splits = load_rows(config)
    reads_labels = method.requires == "labels" and clusters_of(config) is None
    _check(config.recipe, method, splits, reads_labels)
    if isinstance(splits, ImageSplits):
        _check_choice(config, method, splits, reads_labels)
    if not reads_labels:
        _forget_labels(config, splits)
    elif isinstance(splits, ImageSplits):
        assert isinstance(config.data, ImageDataConfig)
        _keep_some_labels(config.data, method, splits)
    if not test:
        splits.test = None
    if reads_labels:
        splits.notes.extend(_lacking(splits))
    return splits


def _lacking(splits: AnySplits) -> list[str]:
    """Notes on classes of the training rows that validation or test rows have none of: figures leave them out."""
    train, notes = splits.need("train"), list[str]()
    if train.labels is None or train.label_names is None:
        return notes
    trained = set(np.unique(np.asarray(train.labels)).tolist()) - {UNLABELLED}
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        if rows is None or rows.labels is None:
            continue
        held = set(np.unique(np.asarray(rows.labels)).tolist())
        missing = [train.label_names[label] for label in sorted(trained - held)]
        if not missing:
            continue
        if len(held) == 1:
            what = f"all {len(rows)} {name} rows are of the class {train.label_names[min(held)]}"
            use = "the best epoch is chosen by" if name == "validation" else "the figures are of"
            notes.append(f"{what}: {use} one class alone")
        else:
            listed = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            notes.append(f"no {name} row is of the class{'es' * (len(missing) > 1)} {listed}")
    return notes


def clusters_of(config: RunConfig) -> int | None:
    """How many clusters are learnt in the place of labels; None: labels, or nothing of the kind."""
    return config.data.clusters if isinstance(config.data, ImageDataConfig) else None


def _check(recipe: str, method: Method, splits: AnySplits, reads_labels: bool) -> None:
    train = splits.need("train")
    if reads_labels and train.labels is None:
        hint = "name the column with --label, or train without labels: simcse, uscal"
        if isinstance(splits, ImageSplits):
            hint = "put the images of each class into a folder of its own, or name a table's column with --label; "
            hint += "or train without labels: simclr, acl-ds"
        raise UserError(f"{recipe} needs labels, and the training rows have none", hint=hint)
    if method.requires == "pairs" and (isinstance(train, ImageData) or len(train.columns) < 2):
        hint = "give a file with a column of anchors and one of positives, as the task nli"
        raise UserError(f"{recipe} needs pairs of sentences", hint=hint)
    if isinstance(method, Selfie) and isinstance(train, ImageData):
        method.check_size(*train.pixels.shape[-2:])


def _check_choice(config: RunConfig, method: Method, splits: ImageSplits, reads_labels: bool) -> None:
    """What is set of validation images and of a teacher goes with what there is."""
    patience = config.train.early_stopping_patience
    if reads_labels and splits.validation is None and patience is not None:
        raise UserError(
            f"{patience} evaluations without a better one, and there are no validation images to evaluate on",
            where="train.early_stopping_patience",
            hint="set data.validation_fraction above 0, or leave it out: the last weights are then kept",
        )
    attacked = config.evaluation.robust_validation and config.evaluation.epsilons
    chosen = config.train.arguments.get("metric_for_best_model")
    if reads_labels and splits.validation is not None and chosen in _UNDER_ATTACK and not attacked:
        raise UserError(
            f"{chosen} is to choose the best weights, and no validation image is attacked",
            where="train.metric_for_best_model",
            hint="set it to accuracy, or evaluation.robust_validation=true and a radius in evaluation.epsilons",
        )
    if isinstance(method, UAT) and method.target == "online" and getattr(config.data, "pseudo_labels", None):
        raise UserError(
            "the model's own predictions are the target, and no teacher is asked",
            where="data.pseudo_labels",
            hint="leave it out, or set method.target=teacher",
        )


def _forget_labels(config: RunConfig, splits: AnySplits) -> None:
    """The same rows as with labels; with ``validation_fraction: 0`` also those that other runs validate on."""
    if splits.need("train").labels is None:
        return
    if isinstance(splits, ImageSplits):
        splits.hidden = splits.need("train").labels
        splits.train = replace(splits.need("train"), labels=None)
        if splits.validation is None:
            seen = f"all {len(splits.train):,} training images are seen, those that other runs validate on among them"
            splits.notes.append(f"{seen}, without labels: data.validation_fraction={config.data.validation_fraction:g}")
            if splits.test is None:
                hint = "set data.validation_fraction above 0 to test on images that are set aside"
                splits.notes.append(f"no image is left to probe the encoder on: {hint}")
    else:
        splits.train = replace(splits.need("train"), labels=None, label_names=None)
        splits.task = without_labels(splits.task)
    few = getattr(config.data, "labels", None)
    also = f", so that data.labels: {few} changes nothing" if few not in (None, "all") else ""
    splits.notes.append(f"{config.method.name} does not look at the labels of {config.task}{also}")


def without_labels(task: Task) -> Task:
    """``task`` as one of plain sentences."""
    like = get_task("sentences")
    return replace(
        task,
        kind=like.kind,
        label=None,
        labels=None,
        metrics=like.metrics,
        metric=like.metric,
        greater_is_better=like.greater_is_better,
    )


def _keep_some_labels(settings: ImageDataConfig, method: Method, splits: ImageSplits) -> None:
    """Leave out the images that have no label, or whose label is not to be known, unless a teacher tells theirs."""
    train = splits.need("train")
    assert train.labels is not None
    known = train.has_label
    if settings.labels is not None and settings.labels != "all":
        known = torch.zeros(len(train), dtype=torch.bool)
        known[train.labelled_rows(settings.labels, settings.seed)] = True
        if not train.has_label.all():
            given = int(train.has_label.sum())
            kept = f"data.labels: {settings.labels} keeps {int(known.sum()):,} of {given:,} labels"
            splits.notes.append(f"{kept}, and --labels all every one")
    if known.all():
        return
    left = int((~known).sum())
    if settings.pseudo_labels is None and not isinstance(method, UAT):
        splits.train = train.select(known.nonzero()[:, 0].tolist())
        trained = f"trained on the {len(splits.train):,} labelled images of {len(train):,}"
        splits.notes.append(f"{trained}: {method.name} leaves the other {left:,} out")
        return
    splits.hidden = train.labels
    splits.train = replace(train, labels=torch.where(known, train.labels, UNLABELLED))
    kept = f"{len(train) - left:,} of {len(train):,} images keep their label"
    online = isinstance(method, UAT) and method.target == "online"
    teacher = "the model itself" if online else settings.pseudo_labels or "the model as it starts"
    splits.notes.append(f"{kept}; {teacher} tells the others")


def class_names(splits: AnySplits, method: Method) -> list[str] | None:
    """What a classifier tells apart: one name is a regression, None an encoder."""
    if method.requires != "labels":
        return None
    names = splits.need("train").label_names
    return list(names) if names else ["score"]
