"""Origin of a run's figures: rows and weights, so that it goes on with the same or not at all; packages and machine."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from contraverse.data import ImageData, TextData
from contraverse.errors import UserError
from contraverse.pipeline.steps import AnySplits, Steps

PACKAGES = ("contraverse", "transformers", "datasets", "accelerate", "sentence-transformers", "numpy")
SPLITS = ("train", "validation", "test")
_NOISY = 256
"""Training rows whose noise is part of the fingerprint."""
_OF_A_MODEL = (".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model")


class Changed(UserError):
    """Rows, classes, start or processes differ from those that a run was started with."""


def fingerprint(steps: Steps[Any, Any], splits: AnySplits) -> dict[str, Any]:
    """Describe rows (number, texts or pixels in order, labels), classes in order, the start and the processes.

    Models of the Hub and drawn ones are known by their names, which are settings; folders and files by their weights.
    """
    config = steps.config
    rows = {name: _rows(steps, data) for name in SPLITS if (data := getattr(splits, name)) is not None}
    names = splits.need("train").label_names
    teacher = getattr(config.data, "pseudo_labels", None)
    return {
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "classes": list(names) if names is not None else None,
        "rows": rows,
        "start": _weights(Path(config.model.name)),
        "teacher": _weights(Path(teacher)) if teacher is not None else None,
        "noise": _noise(steps, splits),
    }


def check_fingerprint(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on with a run whose rows, classes, start or processes are others now.

    Raises:
        Changed: the first difference.
    """
    what = hint = None
    if before["processes"] != now["processes"]:
        count = before["processes"]
        what = f"this run was started with {_processes(count)}, and this is {_processes(now['processes'])}"
        hint = f"resume under torchrun --nproc-per-node {count}" if count > 1 else "resume without torchrun"
    elif before["classes"] != now["classes"]:
        what = f"the classes were {_listed(before['classes'])} and are {_listed(now['classes'])}"
    else:
        for split in SPLITS:
            old, new = before["rows"].get(split), now["rows"].get(split)
            if (difference := _difference(split, old, new)) is not None:
                what = difference
                break
        for name, role in (("start", "the model that it started from"), ("teacher", "the model that labels its rows")):
            if what is None and before[name] != now[name]:
                what = f"{role} has other weights than then"
        if what is None and before.get("noise") != now["noise"]:
            what = "the noise on training rows is other than then"
    if what is not None:
        hint = hint or "put back what was there, or start a new run in another --output"
        raise Changed(f"cannot go on with this run: {what}", where=str(where), hint=hint)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _listed(names: Iterable[str] | None) -> str:
    return ", ".join(names) if names is not None else "none"


def _difference(split: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str | None:
    if old == new:
        return None
    if old is None or new is None:
        return f"there were {'no' if old is None else ''} {split} rows, and there are {'no' if new is None else 'some'}"
    if old["count"] != new["count"]:
        return f"there were {old['count']:,} {split} rows, and there are {new['count']:,}"
    changed = " and ".join(name for name in ("inputs", "labels") if old[name] != new[name])
    return f"the {split} rows have other {changed}, or stand in another order, than then"


def _rows(steps: Steps[Any, Any], data: TextData | ImageData) -> dict[str, Any]:
    inputs, labels = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for part in steps.row_bytes(data):
        inputs.update(part)
    if data.labels is not None:
        known = data.labels.numpy() if isinstance(data.labels, torch.Tensor) else np.asarray(data.labels)
        labels.update(known.astype(np.float64).tobytes())
    return {"count": len(data), "inputs": inputs.hexdigest(), "labels": labels.hexdigest()}


def _noise(steps: Steps[Any, Any], splits: AnySplits) -> str | None:
    """Hash of the noise that the first training rows get in the first epoch, so that its code counts; None without."""
    if steps.noise is None:
        return None
    noise, train = steps.noise, cast(TextData, splits.need("train"))  # images are refused beside noise
    rows = [noise.apply(texts, row, 0, steps.method.text_views) for row, texts in enumerate(train.texts[:_NOISY])]
    written = repr((noise, rows)).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(written, digest_size=16).hexdigest()


def _weights(path: Path) -> dict[str, list[Any]] | None:
    """Size and hash of each file of a model's folder, or of the one file; None for a name."""
    if path.is_file():
        return {path.name: _file(path)}
    if not path.is_dir():
        return None
    files = [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix in _OF_A_MODEL]
    return {file.name: _file(file) for file in files}


def _file(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()]


def environment() -> dict[str, Any]:
    """Packages and machine that figures may depend on; no name of a user, a host or a folder.

    ``python``, packages' versions, ``platform``, ``cpus`` (logical), ``threads`` (of torch), ``gpu`` (names, where
    there are any) and, where the package runs from a git checkout, its ``commit`` (``-dirty``: with changes).
    """
    versions: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {package: version(package) for package in PACKAGES}
    versions |= {
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        versions["gpu"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if commit := _commit(Path(__file__)):
        versions["commit"] = commit
    return versions


def _commit(file: Path) -> str | None:
    # Only where git tracks this very file: an installed package may lie inside a checkout of something else.
    try:
        tracked = _git(file, "ls-files", "--error-unmatch", file.name)
        described = _git(file, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
    return described if tracked else None


def _git(file: Path, *arguments: str) -> str:
    command = ["git", "-C", str(file.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
