"""Stages that cells of a study have in common, such as a pre-training: trained once, and copied into each cell."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from contraverse.pipeline.folder import EVALUATION, write_config
from contraverse.recipes import RunConfig, Stage, split_stages


def begin_with_stages(config: RunConfig, folder: Path, kept: Path) -> None:
    """Copy the stages of ``config`` that are finished in ``kept`` into ``folder``, where a run then goes on.

    Args:
        config: of a cell; without stages nothing is done.
        folder: of the cell's run.
        kept: folders of finished stages, by digest.
    """
    if not config.stages:
        return
    for stage, digest in _with_digest(config):
        if (kept / digest / EVALUATION).is_file() and not (folder / stage.folder).exists():
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "config.yaml").is_file():
                write_config(config, folder)
            _copy(kept / digest, folder / stage.folder)


def keep_stages(config: RunConfig, folder: Path, kept: Path) -> None:
    """Copy the finished stages of a cell's run in ``folder`` into ``kept``, without the last, which is its own."""
    for stage, digest in _with_digest(config):
        if (folder / stage.folder / EVALUATION).is_file() and not (kept / digest).exists():
            kept.mkdir(parents=True, exist_ok=True)
            _copy(folder / stage.folder, kept / digest)


def _with_digest(config: RunConfig) -> Iterator[tuple[Stage, str]]:
    """Stages before the last, each with a digest of what decides its model: its configuration and earlier stages."""
    digests: dict[str | None, str] = {None: ""}
    for stage in split_stages(config)[:-1]:
        parts = (digests[stage.init_from], digests[stage.teacher], stage.config.to_yaml())
        digests[stage.folder] = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        yield stage, digests[stage.folder]


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that ``target`` is whole or absent, whoever else does the same."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns(".lock", "checkpoints"))
    try:
        partial.rename(target)
    except OSError:  # another worker was first
        shutil.rmtree(partial, ignore_errors=True)
