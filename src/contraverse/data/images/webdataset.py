"""WebDataset tars: files of one sample have a name in common, ``000123.jpg`` and ``000123.cls``."""

import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contraverse.data.images.source import ImageSource, Member, is_image, spelled
from contraverse.data.sources import match_names
from contraverse.data.splits import SplitName, listed
from contraverse.errors import UserError

_NUMBER = re.compile(r"[-_.]?[0-9]+$")
_LONGEST = 1 << 16
"""Bytes of a label, at most."""


def tars_in(path: Path) -> list[Path]:
    """Tars that ``path`` is or holds, by name."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() == ".tar" and file.is_file())
    return [path] if path.suffix.lower() == ".tar" else []


def read_tars(files: Sequence[Path], unnamed: SplitName) -> tuple[dict[SplitName, list[ImageSource]], list[str]]:
    """Images of WebDataset tars, listed without being decoded, by split, and notes.

    The name of a tar without its number says the split (``train-000000.tar``, ``imagenet-val-0001.tar``); where none
    does, all are of ``unnamed``. A label is the text of a ``.cls`` or ``.txt`` file, or ``label`` (``cls``, ``class``)
    in a ``.json`` file; ``.cls`` goes first. Compressed tars are refused: an image in them cannot be read alone.

    Raises:
        UserError: a tar cannot be read, or holds no image.
    """
    stems = {file: _NUMBER.sub("", file.stem) for file in files}
    words = {file: [stem, *reversed(re.split(r"[-_.]", stem))] for file, stem in stems.items()}
    splits: dict[SplitName, list[Path]] = {}
    left = []
    for file in files:
        named = next((split for word in words[file] for split in match_names([word])), None)
        if named is None:
            left.append(file)
        else:
            splits.setdefault(named, []).append(file)
    if not splits:
        splits, left = {unnamed: list(files)}, []
    notes = [f"left out {listed([file.name for file in left])}"] if left else []
    return {split: [_read_tar(file) for file in names] for split, names in splits.items()}, notes


def _read_tar(path: Path) -> ImageSource:
    images: list[Member] = []
    samples: list[str] = []
    labels: dict[str, tuple[int, Any]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                sample = f"{folder}/{stem}"
                if is_image(file):
                    images.append(Member(path, member.offset_data, member.size, member.name))
                    samples.append(sample)
                elif (rank := _RANKS.get(ending.lower())) is not None and member.size <= _LONGEST:
                    opened = tar.extractfile(member)
                    label = _label(opened.read() if opened else b"", ending.lower())
                    if label is not None and rank < labels.get(sample, (9, None))[0]:
                        labels[sample] = (rank, label)
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"cannot be read as a tar: {error}", where=str(path), hint="Compressed tars are unpacked first: gunzip."
        ) from error
    if not images:
        raise UserError("holds no images", where=str(path), hint="Wanted: X.jpg (or .png ...) and X.cls for each.")
    known = [labels.get(sample, (9, None))[1] for sample in samples]
    return ImageSource(spelled(path), images, known if labels else None)


_RANKS = {"cls": 0, "json": 1, "txt": 2}
"""Endings of files of labels; of several the smaller number goes first."""


def _label(data: bytes, ending: str) -> Any:
    text = data.decode("utf-8", "replace").strip()
    if ending != "json":
        return int(text) if text.isdecimal() else text or None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[name] for name in ("label", "cls", "class") if name in value), None)
    return value if isinstance(value, int | float | str) else None
