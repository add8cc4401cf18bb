"""Reading, encoding and predicting images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from contraverse.cli.console import doing, say, warn
from contraverse.cli.files import Loaded, Split, tell
from contraverse.errors import UserError
from contraverse.recipes import ImageDataConfig

if TYPE_CHECKING:
    import numpy as np

    from contraverse.data import ImageData, ImageTask
    from contraverse.data.splits import OnBadRow
    from contraverse.types import Batch, BNBranch


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


def load_rows(loaded: Loaded, task: "ImageTask", data: ImageDataConfig, split: Split, *, whole: bool) -> "ImageData":
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
        raise UserError(f"the model has {len(labels)} classes, and {task.name} has {len(task.labels)}")
    return task


def _name_classes(loaded: Loaded, rows: "ImageData") -> None:
    """Call the model's numbered classes as those of ``rows`` are, in this order, and say so.

    Raises:
        UserError: there is another number of them.
    """
    names, count = list(rows.label_names or ()), len(loaded.model.labels or ())
    if len(names) != count:
        raise UserError(
            f"the model has {count} classes, and the images are of {len(names)}: {', '.join(names[:5])}",
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


Job = tuple[int, int, list[str], Callable[[int, int], "np.ndarray"]]
"""Number of images, rows of a part (a multiple of the batch), names, and results of the images first to last."""
_PART = 512


def image_encoder(
    loaded: Loaded, source: str, size: int | None, on_bad_row: "OnBadRow", batch_size: int, bn_branch: "BNBranch"
) -> Job:
    """Features h (N, H), float32, of every image."""
    import numpy as np
    import torch

    from contraverse.evaluation.predict import map_batches
    from contraverse.models import ImageModel

    images, names = _read(loaded, source, size, on_bad_row)
    model = loaded.model
    assert isinstance(model, ImageModel)

    def features(rows: "np.ndarray", batch: "Batch") -> "np.ndarray":
        return np.asarray(model(batch, want=("h",), bn_branch=bn_branch).h.float().cpu())

    @torch.no_grad()
    def encode(first: int, last: int) -> "np.ndarray":
        parts = map_batches(model, images, np.arange(first, last), batch_size, features)
        return np.concatenate([vectors for _, vectors in parts])

    return len(images), _whole_batches(batch_size), names, encode


def image_predictor(
    loaded: Loaded, source: str, size: int | None, on_bad_row: "OnBadRow", batch_size: int, bn_branch: "BNBranch"
) -> Job:
    """Logits (N, C) of every image."""
    from contraverse.evaluation import predict

    images, names = _read(loaded, source, size, on_bad_row)

    def logits(first: int, last: int) -> "np.ndarray":
        return predict(loaded.model, images.select(range(first, last)), batch_size, bn_branch=bn_branch)

    return len(images), _whole_batches(batch_size), names, logits


def _whole_batches(batch_size: int) -> int:
    return max(1, _PART // batch_size) * batch_size
