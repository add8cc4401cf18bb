"""Checkpoints that are written whole or not at all, and the choice of the one to resume from."""

import json
import os
import re
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from torch import nn
from transformers import EarlyStoppingCallback
from transformers.trainer import TRAINER_STATE_NAME

from contraverse.errors import UserError
from contraverse.models.adapters import trained_part
from contraverse.training.sharding import ShardingTrainer, whole_state
from contraverse.writing import OUTSIDE, explain, of_the_system, sync

RUNNING = "running.json"
"""The last file of a checkpoint: the trainer's additions, and ``files``, the size and CRC-32 of each of the others."""
ASIDE = "partial"
"""Folder beside the checkpoints for those that are being written or removed."""
_NAME = re.compile(r"checkpoint-(\d+)\Z")
_CHUNK = 1 << 20


class Torn(UserError):
    """A checkpoint that training cannot resume from."""


class CheckpointingTrainer(ShardingTrainer):
    """Write each checkpoint aside, have it reach the disk, and only then give it its name and remove older ones.

    A process that is killed at any moment so leaves only whole checkpoints under the names ``checkpoint-STEP``. Of
    several processes all write to the folder aside, and the first one names it when all have written.
    """

    _aside: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._aside) if self._aside is not None else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(super()._get_output_dir(trial))
        self._aside = folder / ASIDE
        written, target = (parent / f"checkpoint-{self.state.global_step}" for parent in (self._aside, folder))
        try:
            super()._save_checkpoint(model, trial)
            # transformers looks for the best checkpoint beside the one that it writes, which is not the place.
            best = folder / f"checkpoint-{self.state.best_global_step}"
            if self.state.best_global_step and (best == target or best.is_dir()):
                self.state.best_model_checkpoint = str(best)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.state.save_to_json(str(written / TRAINER_STATE_NAME))
                self._save_extra(written)
                _seal(written, self._running())
                remove_checkpoint(target)  # from before, where training goes on from an earlier one
                written.rename(target)
                sync(folder)
                self._rotate(folder, target)
                remove_aside(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            if (described := _unwritten(error, folder)) is not None:
                raise described from of_the_system(error) or OSError(str(error))
            raise
        finally:
            self._aside = None
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the weights; of a model with adapters those alone that are trained."""
        assert isinstance(self.model, nn.Module)
        whole = state_dict or (self.model.state_dict() if self.sharding is None else whole_state(self.model))
        super()._save(output_dir, trained_part(self.model, whole))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        assert isinstance(self.model, nn.Module)
        missing = list(trained_part(self.model, dict.fromkeys(load_result.missing_keys)))
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))

    def _save_extra(self, folder: Path) -> None:
        """Add files to the checkpoint that is being written to ``folder``."""

    def _running(self) -> dict[str, Any]:
        """Return the state that `_load_running` gets when training resumes from this checkpoint; JSON."""
        return {}

    def _load_extra(self, folder: Path, running: dict[str, Any]) -> None:
        """Restore the state that `_save_extra` and `_running` saved."""

    def _rotate(self, folder: Path, newest: Path) -> None:
        limit = self.args.save_total_limit
        if limit is None or limit <= 0:
            return
        names = checkpoints(folder)
        kept = {newest, Path(self.state.best_model_checkpoint or newest)}
        for checkpoint in [path for path in names if path not in kept][: max(0, len(names) - max(limit, len(kept)))]:
            remove_checkpoint(checkpoint)

    def newest_checkpoint(self) -> tuple[Path | None, list[str]]:
        """`newest_whole` of the output folder, decided by the first process for all of them."""
        newest = [newest_whole(Path(str(self.args.output_dir)))] if self.is_world_process_zero() else [None]
        broadcast_object_list(newest)
        assert newest[0] is not None
        return newest[0]

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, from a checkpoint by name, or from the newest whole one (True).

        Raises:
            UserError: the checkpoint is not whole, or True, and there is none.
        """
        if resume_from_checkpoint is True:
            checkpoint, _ = self.newest_checkpoint()
            if checkpoint is None:
                raise UserError("there is no checkpoint to go on from", where=str(self.args.output_dir))
            resume_from_checkpoint = str(checkpoint)
        elif resume_from_checkpoint and (fault := _fault(Path(resume_from_checkpoint))) is not None:
            raise _unreadable(Path(resume_from_checkpoint), fault)
        elif self.args.should_save:
            remove_aside(Path(str(self.args.output_dir)))
        return super().train(resume_from_checkpoint or None, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            self._load_extra(folder, json.loads((folder / RUNNING).read_text(encoding="utf-8")))
        except UserError:
            raise
        except (OSError, RuntimeError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(folder, str(error).splitlines()[0] if str(error) else type(error).__name__) from error

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # From a checkpoint of the last step in mid-epoch, transformers would take one step more.
        if self._is_over():
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _is_over(self) -> bool:
        """True where the last step was done, or patience had ended, when the checkpoint was written."""
        patient = [
            callback for callback in self.callback_handler.callbacks if isinstance(callback, EarlyStoppingCallback)
        ]
        spent = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience for callback in patient
        )
        return spent or self.state.global_step >= self.state.max_steps

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        started = super()._init_training_state(*args, **kwargs)
        # The folder of the run may have another name than when the checkpoint was written.
        best = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.best_global_step}"
        if self.state.best_global_step and best.is_dir():
            self.state.best_model_checkpoint = str(best)
        return started


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, whole or not, by their step."""
    numbered = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _NAME.match(path.name))]
    return [path for _, path in sorted(numbered)]


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint in ``folder`` that is whole, and a note on each newer one, which is removed.

    None where there is no checkpoint at all: a run that was stopped before its first begins anew.

    Raises:
        UserError: there are checkpoints, and none of them is whole.
    """
    remove_aside(folder)
    torn: list[tuple[Path, str]] = []
    for checkpoint in reversed(checkpoints(folder)):
        fault = _fault(checkpoint)
        if fault is None:
            for path, _ in torn:
                remove_checkpoint(path)
            notes = [f"{path.name} is not whole ({why}): going on from {checkpoint.name}" for path, why in torn]
            return checkpoint, notes
        torn.append((checkpoint, fault))
    if torn:
        raise _unreadable(*torn[0])
    return None, []


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint: under another name first, so that half of one is never taken for a whole one."""
    if not checkpoint.is_dir():
        return
    aside = checkpoint.parent / ASIDE / f"removed-{checkpoint.name}"
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):  # something is being written there
        aside.parent.rmdir()


def remove_aside(folder: Path) -> None:
    """Remove incomplete checkpoints that a killed process left."""
    shutil.rmtree(folder / ASIDE, ignore_errors=True)


def remove_all(folder: Path) -> None:
    """Remove the checkpoints in ``folder``, and ``folder`` itself if it holds nothing else."""
    for checkpoint in checkpoints(folder):
        remove_checkpoint(checkpoint)
    remove_aside(folder)
    with suppress(OSError):  # holds something else, or is not there
        folder.rmdir()


def _seal(folder: Path, running: dict[str, Any]) -> None:
    """Have every file reach the disk, and write the marker that names them all."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RUNNING):
        sync(path)
        files[path.relative_to(folder).as_posix()] = [path.stat().st_size, _crc(path)]
    (folder / RUNNING).write_text(json.dumps({**running, "files": files}), encoding="utf-8")
    sync(folder / RUNNING)
    sync(folder)


def _fault(checkpoint: Path, *, alone: bool = False) -> str | None:
    """The first reason why training cannot resume from ``checkpoint``; None where it and the best one are whole."""
    try:
        files = json.loads((checkpoint / RUNNING).read_text(encoding="utf-8"))["files"]
        for name, (size, crc) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} bytes of {size:,}"
            if _crc(path) != crc:
                return f"{name} has been changed"
        if alone:
            return None
        best = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["best_model_checkpoint"]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{RUNNING} cannot be read"
    if best is None or Path(best).name == checkpoint.name:
        return None
    fault = _fault(checkpoint.parent / Path(best).name, alone=True)
    return f"the best one so far, {Path(best).name}, is not: {fault}" if fault else None


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _unreadable(checkpoint: Path, why: str) -> Torn:
    others = [path for path in checkpoints(checkpoint.parent) if path != checkpoint and _fault(path) is None]
    rest = f"it goes on from {others[-1].name}" if others else "training begins anew"
    return Torn(
        f"this checkpoint cannot be read: {why}",
        where=str(checkpoint),
        hint=f"remove {'this folder' if others else 'the folder ' + str(checkpoint.parent)} and resume again: {rest}",
    )


def _unwritten(error: Exception, folder: Path) -> UserError | None:
    """Describe why a checkpoint could not be written; None for a fault of the program."""
    cause = of_the_system(error) or _disk_error(folder)
    if cause is None or (described := explain(cause, folder)) is None:
        return None
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
    whole = [path for path in checkpoints(folder) if _fault(path) is None]
    after = f", then --resume goes on from {whole[-1].name}" if whole else ""
    return UserError(f"the checkpoint {described.what}", where=str(folder), hint=f"{OUTSIDE[cause.errno or 0]}{after}")


def _disk_error(folder: Path) -> OSError | None:
    """Try to write to ``folder``: torch and safetensors do not say why they could not."""
    try:
        probe = folder / ASIDE / "probe"
        probe.parent.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(bytes(_CHUNK))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None
