"""What the commands do with models of images."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from contraverse.cli.console import counting, doing, figures, result, say, warn
from contraverse.cli.files import Loaded, Split, tell
from contraverse.errors import UserError
from contraverse.recipes import ImageDataConfig, ImageEvaluationConfig
from contraverse.units import shown

if TYPE_CHECKING:
    import numpy as np

    from contraverse.data import ImageData, ImageTask

TABLES = (".npz", ".parquet")


def measure_images(
    loaded: Loaded,
    settings: ImageEvaluationConfig,
    task: "ImageTask",
    data: ImageDataConfig,
    split: Split,
    *,
    auto_attacked: bool,
    corruptions: bool,
    corrupted_files: Path | None,
    unforeseen: bool,
) -> dict[str, Any]:
    """Print and return what a classifier of images is worth: clean, under attack, and on corrupted images."""
    from contraverse.pipeline import measure_task, settled_in_all

    with doing("Reading data…"):
        rows = _rows(loaded, task, data, split)
    if auto_attacked:
        plain = settings.model_copy(update={"epsilons": []})
        found = measure_task(loaded.model, rows, task, plain, seed=data.seed)
        chosen = rows.sample(settings.rows, data.seed) if settings.rows else rows
        found |= _auto_attack(loaded, settings, chosen, found["metrics"])
    else:
        attacked = min(settings.rows or len(rows), len(rows)) if settings.epsilons else 0
        say(f"Measuring {len(rows)} {split} images" + (f", {attacked} of them attacked" if attacked else ""))
        with counting("Measuring", settled_in_all(loaded.model, len(rows), settings)) as progress:
            found = measure_task(loaded.model, rows, task, settings, seed=data.seed, progress=progress)
    if corruptions or corrupted_files is not None:
        found |= _corruptions(loaded, rows, corrupted_files, found["metrics"])
    if unforeseen:
        chosen = rows.sample(settings.rows, data.seed) if settings.rows else rows
        found |= _unforeseen(loaded, chosen, settings.steps, found["metrics"])
    result.print(figures(f"{task.name}, {len(rows)} images", {split: found["metrics"]}))
    for warning in [*found.get("robustness", {}).get("warnings", ()), *found.get("warnings", ())]:
        warn(warning)
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **found}


def _auto_attack(
    loaded: Loaded, settings: ImageEvaluationConfig, rows: "ImageData", clean: dict[str, float]
) -> dict[str, Any]:
    from contraverse.evaluation.images import auto_attack

    metrics, reports, warnings = dict(clean), {}, []
    for epsilon in settings.epsilons:
        say(f"AutoAttack on {len(rows)} images within {shown(epsilon)} ({settings.norm})")
        with counting("AutoAttack", len(rows) * 4) as progress:
            report = auto_attack(loaded.model, rows, epsilon, norm=settings.norm, progress=progress)
        metrics[f"accuracy@autoattack-{epsilon:g}"] = report.accuracy
        reports[f"{epsilon:g}"] = report.to_dict()
        warnings += report.warnings
    return {"metrics": metrics, "autoattack": reports, "warnings": warnings}


def _corruptions(loaded: Loaded, rows: "ImageData", files: Path | None, metrics: dict[str, float]) -> dict[str, Any]:
    from contraverse.evaluation.images import ALL_CORRUPTIONS, corruption_accuracy

    say(f"Corruptions: {len(ALL_CORRUPTIONS)} kinds in 5 severities")
    source = files if files is not None else rows
    total = (len(rows) if files is None else 10_000) * len(ALL_CORRUPTIONS) * 5
    with counting("Corruptions", total) as progress:
        report = corruption_accuracy(loaded.model, source, corruptions=ALL_CORRUPTIONS, progress=progress)
    return {"metrics": metrics | report.metrics, "corruptions": report.to_dict()}


def _unforeseen(loaded: Loaded, rows: "ImageData", steps: int, metrics: dict[str, float]) -> dict[str, Any]:
    from contraverse.evaluation.images import CIFAR10_ATA, unforeseen_accuracy

    say(f"Unforeseen attacks: {', '.join(CIFAR10_ATA)}, {steps} steps, on {len(rows)} images, which UAR is over")
    with counting("Unforeseen", len(rows) * (1 + sum(map(len, CIFAR10_ATA.values())))) as progress:
        report = unforeseen_accuracy(loaded.model, rows, steps=steps, progress=progress)
    uar = {name: value for name, value in report.metrics.items() if name != "accuracy"}
    return {"metrics": metrics | uar, "unforeseen": report.to_dict()}


def measure_encoder(
    loaded: Loaded, settings: ImageEvaluationConfig, task: "ImageTask", data: ImageDataConfig, split: Split
) -> dict[str, Any]:
    """Print and return how far classes can be told by a linear classifier on an encoder's features."""
    from contraverse.models import ImageModel
    from contraverse.pipeline import measure_probe

    with doing("Reading data…"):
        train, rows = _rows(loaded, task, data, "train"), _rows(loaded, task, data, split)
    assert isinstance(loaded.model, ImageModel)
    say(f"Probing: a linear classifier on the features of {len(train):,} images, tested on {len(rows):,}")
    found = measure_probe(loaded.model, train, rows, settings.batch_size)
    result.print(figures(f"{task.name}, {len(rows)} images", {split: found["metrics"]}))
    return {"task": task.name, "source": rows.source, "split": split, "rows": len(rows), **found}


def _rows(loaded: Loaded, task: "ImageTask", data: ImageDataConfig, split: Split) -> "ImageData":
    from contraverse.data import load_images

    if loaded.model.labels:
        task = replace(task, labels=tuple(loaded.model.labels))
    file = Path(data.source) if isinstance(data.source, str) and Path(data.source).is_file() else None
    source: Any = {str(split): file} if file else data.source
    splits = load_images(
        task, source, **data.model_dump(exclude={"source", "labels", "pseudo_labels", "clusters", "views"})
    )
    tell(splits, file)
    there = [name for name in get_args(Split) if getattr(splits, name) is not None]
    if split not in there and there:
        raise UserError(f"there are no {split} images with labels", hint=f"take --split {' or '.join(there)}")
    return splits.need(split)


def read_images(source: str, size: int | None) -> tuple["ImageData", list[str]]:
    """All images of a folder, a file or a table, in order, and what each is called.

    Raises:
        UserError: there is none, one cannot be read, or their sizes differ.
    """
    import numpy as np

    from contraverse.data import ImageData, get_image_task, load_images
    from contraverse.data.images.decode import EXTENSIONS, BadImage, decode, strict

    path = Path(source)
    if path.suffix.lower() in TABLES:
        images = load_images(get_image_task("images"), {"test": path}, size=size).need("test")
        return images, [f"image {i}" for i in range(len(images))]
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not files:
        raise UserError("no images are here", where=source, hint="give a folder, an image, or .npz or .parquet")
    arrays = []
    with strict(), counting("Reading", len(files)) as advance:
        for file in files:
            try:
                arrays.append(decode(file, size, Counter()))
            except BadImage as error:
                raise UserError(str(error), where=str(file)) from error
            advance(1)
    if len({array.shape for array in arrays}) > 1:
        raise UserError("the images are of different sizes", where=source, hint="give --size to scale them all")
    return ImageData.from_arrays(np.stack(arrays)), [str(file) for file in files]


def encode_images(loaded: Loaded, source: str, size: int | None, batch_size: int) -> tuple["np.ndarray", list[str]]:
    """Features h (N, H), float32, of every image, and their names."""
    import numpy as np
    import torch

    from contraverse.evaluation.predict import batches
    from contraverse.models import ImageModel

    images, names = read_images(source, size or _size(loaded))
    assert isinstance(loaded.model, ImageModel)
    parts = []
    with counting("Encoding", len(images)) as advance, torch.no_grad():
        for rows, batch in batches(loaded.model, images, np.arange(len(images)), batch_size):
            h = loaded.model(batch, want=("h",)).h
            assert isinstance(h, torch.Tensor)
            parts.append(h.float().cpu().numpy())
            advance(len(rows))
    return np.concatenate(parts), names


def _size(loaded: Loaded) -> int | None:
    """What the run's images were scaled to."""
    data = loaded.run.data if loaded.run else None
    return data.size if isinstance(data, ImageDataConfig) else None


def predict_images(loaded: Loaded, source: str, size: int | None, batch_size: int) -> tuple["np.ndarray", list[str]]:
    """Logits (N, C) of every image, and their names."""
    from contraverse.evaluation import predict

    images, names = read_images(source, size or _size(loaded))
    with counting("Predicting", len(images)) as advance:
        return predict(loaded.model, images, batch_size, progress=advance), names
