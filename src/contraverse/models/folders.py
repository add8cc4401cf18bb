"""Folders of models: written aside, put in place when whole; nothing is removed that this project did not write."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from safetensors.torch import save_file
from torch import Tensor, contiguous_format

from contraverse.errors import UserError
from contraverse.models.loading import AGAIN, read_object
from contraverse.types import HeadSpec

SETTINGS = "contraverse.json"
"""The file that marks a folder as written by `save`."""

_FILES = "files"
# Beside a model: the card that a run writes, and what operating systems leave.
_BESIDE = {"README.md", ".DS_Store", "Thumbs.db", "desktop.ini"}
# Written before folders listed their files.
_BEFORE = {
    SETTINGS, "config.json", "model.safetensors", "heads.safetensors", "postprocess.safetensors", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json",
    "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "chat_template.jinja", "modules.json",
    "config_sentence_transformers.json", "sentence_bert_config.json",
    *(f"{i}_{name}" for i in range(1, 30) for name in ("Pooling", "Dense", "Normalize", "CNN", "WordWeights",
                                                       "WeightedLayerPooling")),
}  # fmt: skip


def replace_folder(folder: Path, settings: Mapping[str, object], write: Callable[[Path], None]) -> Path:
    """Write ``folder``: the files that ``write`` puts into the folder it is called with, and ``settings``.

    It appears whole or not at all. A model that `replace_folder` wrote before is moved aside, and removed when the new
    one is in its place.

    Raises:
        UserError: ``folder`` is a file, holds something else than a model, or files that nobody here wrote.
    """
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", dir=folder.parent))
    try:
        new = aside / "new"
        new.mkdir()
        write(new)
        files = sorted([*_files_of(new), SETTINGS])
        (new / SETTINGS).write_text(json.dumps({**settings, _FILES: files}, indent=2) + "\n", encoding="utf-8")
        # Some writers make files that their owner alone can read.
        share(new.rglob("*.safetensors"), like=new / SETTINGS)
        if folder.exists() or folder.is_symlink():
            folder.rename(aside / "old")
        try:
            new.rename(folder)
        except OSError:
            if (aside / "old").exists():
                (aside / "old").rename(folder)
            raise
    finally:
        if (aside / "old").is_symlink():
            (aside / "old").unlink()
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def check_replaceable(folder: Path) -> None:
    """Refuse, before any work, a folder that saving would destroy.

    Raises:
        UserError: it is a file, holds something else than a model, or files that nobody here wrote.
    """
    where, hint = str(folder), "choose another folder, or remove it by hand"
    if folder.is_file():
        raise UserError("holds something that is no model, which saving would replace", where=where, hint=hint)
    names = _files_of(folder)
    if not names:
        return
    if SETTINGS not in names:
        raise UserError("holds something that is no model, which saving would replace", where=where, hint=hint)
    try:
        listed = read_object(folder / SETTINGS).get(_FILES)
    except UserError:
        listed = None
    known = (
        {*map(str, listed), SETTINGS} if isinstance(listed, list) else {n for n in names if Path(n).parts[0] in _BEFORE}
    )
    if others := sorted(name for name in names - known if Path(name).name not in _BESIDE):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(f"holds {others[0]}{more} beside the model, which saving would replace", where=where, hint=hint)


def _files_of(folder: Path) -> set[str]:
    """Paths below ``folder`` of all that is no folder."""
    paths = folder.rglob("*") if folder.is_dir() else ()
    return {path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()}


Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(folder: Path, kind: type[Settings]) -> Settings:
    """Settings in ``contraverse.json`` of ``folder``, checked by ``kind``.

    Raises:
        UserError: it is damaged; names the setting.
    """
    path = folder / SETTINGS
    values = read_object(path)
    values.pop(_FILES, None)
    for name, head in values["heads"].items() if isinstance(values.get("heads"), dict) else ():
        # pydantic takes no notice of a dataclass's unknown names.
        if isinstance(head, dict) and (unknown := sorted(set(head) - {f.name for f in fields(HeadSpec)})):
            raise UserError(f"is damaged: heads.{name} has no setting {unknown[0]!r}", where=str(path), hint=AGAIN)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        named = ".".join(map(str, first["loc"]))
        raise UserError(f"is damaged: {named}: {first['msg']}", where=str(path), hint=AGAIN) from error


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write ``tensors`` as a safetensors file with the permissions of any new file; shared memory is written twice.

    safetensors itself leaves a file that its owner alone can read.
    """
    path.touch()
    mode = path.stat().st_mode & 0o777
    # Copies: safetensors takes no tensors that share memory, as tied weights do.
    copies = {name: value.detach().clone(memory_format=contiguous_format) for name, value in tensors.items()}
    save_file(copies, path, metadata)
    path.chmod(mode)


def share(paths: Iterable[Path], *, like: Path) -> None:
    """Give ``paths`` the permissions of an ordinary file, as ``like`` is one."""
    mode = os.stat(like).st_mode & 0o777
    for path in paths:
        path.chmod(mode)
