"""Checkpoints are whole or not there, and a run goes on from the newest whole one."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from contraverse.errors import UserError
from contraverse.methods import CrossEntropy
from contraverse.training import Trainer
from contraverse.training.checkpoints import checkpoints, newest_whole, remove_all

Build = Callable[..., Trainer]
SETTINGS: dict[str, Any] = {
    "max_steps": 8, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no", "save_total_limit": None,
    "logging_steps": 1,
}  # fmt: skip


class Watch(TrainerCallback):
    """Looks at the folder of the checkpoints whenever a file of one has been written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, list[bool]()

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        self.seen += [(path / "running.json").is_file() for path in checkpoints(self.folder)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.is_dir())


@pytest.fixture
def trained(build: Build, tmp_path: Path) -> Path:
    """Checkpoints 2, 4, 6 and 8 of a run of 8 steps."""
    watch = Watch(tmp_path / "run")
    build(CrossEntropy(), callbacks=[watch], **SETTINGS).train()
    assert names(tmp_path / "run") == ["checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"]
    assert watch.seen
    assert all(watch.seen)
    return tmp_path / "run"


def tear(checkpoint: Path, how: str) -> None:
    weights = checkpoint / "model.safetensors"
    if how == "cut":
        os.truncate(weights, weights.stat().st_size // 2)
    elif how == "flipped":
        content = bytearray(weights.read_bytes())
        content[-3] ^= 255
        weights.write_bytes(content)
    elif how == "empty marker":
        (checkpoint / "running.json").write_bytes(b"")
    elif how == "marker of an older version":
        (checkpoint / "running.json").write_text("{}")
    else:
        (checkpoint / how).unlink()


TORN = ["cut", "flipped", "empty marker", "marker of an older version", "running.json", "optimizer.pt", "scheduler.pt",
        "trainer_state.json", "rng_state.pth", "model.safetensors"]  # fmt: skip


def test_torn_ones_are_named_and_passed_over(trained: Path) -> None:
    """F1. Each fault alone, then two of the newest at once."""
    kept = trained.with_name("kept")
    shutil.copytree(trained, kept)
    for how in TORN:
        shutil.rmtree(trained)
        shutil.copytree(kept, trained)
        tear(trained / "checkpoint-8", how)
        checkpoint, notes = newest_whole(trained)
        assert checkpoint == trained / "checkpoint-6", how
        assert len(notes) == 1
        assert notes[0].startswith("checkpoint-8 is not whole (")
        assert names(trained) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    tear(trained / "checkpoint-6", "cut")
    tear(trained / "checkpoint-4", "optimizer.pt")
    assert newest_whole(trained)[0] == trained / "checkpoint-2"


def test_where_none_is_whole_the_way_out_is_said(trained: Path, build: Build) -> None:
    for checkpoint in checkpoints(trained):
        tear(checkpoint, "cut")
    with pytest.raises(
        UserError, match=r"checkpoint-8: this checkpoint cannot be read: model\.safetensors has"
    ) as caught:
        newest_whole(trained)
    assert f"remove the folder {trained} and resume again: training begins anew" in str(caught.value)
    assert len(checkpoints(trained)) == 4
    with pytest.raises(UserError, match="cannot be read"):
        build(CrossEntropy(), **SETTINGS).train(resume_from_checkpoint=True)
    with pytest.raises(UserError, match="cannot be read"):
        build(CrossEntropy(), **SETTINGS).train(resume_from_checkpoint=str(trained / "checkpoint-4"))


def test_the_best_one_has_to_be_whole_too(build: Build, tmp_path: Path) -> None:
    class Falling:
        def __call__(self, model: Any) -> dict[str, float]:
            self.value = getattr(self, "value", 9.0) - 1
            return {"accuracy": self.value}

    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}
    every = {"eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 3}
    build(CrossEntropy(), evaluators={"dev": Falling()}, **{**SETTINGS, **best, **every}).train()
    folder = tmp_path / "run"
    assert names(folder) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]  # 2 is the best
    state = json.loads((folder / "checkpoint-8" / "trainer_state.json").read_text())
    assert Path(state["best_model_checkpoint"]) == folder / "checkpoint-2"
    assert newest_whole(folder)[0] == folder / "checkpoint-8"
    # Under another name of the folder, the best one is found beside.
    folder.rename(tmp_path / "moved")
    moved = build(CrossEntropy(), "moved", evaluators={"dev": Falling()}, **{**SETTINGS, **best, **every})
    moved.train(resume_from_checkpoint=True)
    assert Path(str(moved.state.best_model_checkpoint)) == tmp_path / "moved" / "checkpoint-2"
    tear(tmp_path / "moved" / "checkpoint-2", "cut")
    with pytest.raises(UserError, match=r"checkpoint-2, is not: model\.safetensors has"):
        newest_whole(tmp_path / "moved")


def test_what_was_being_written_or_removed_is_no_checkpoint(trained: Path, build: Build) -> None:
    (trained / "partial" / "checkpoint-9").mkdir(parents=True)
    assert newest_whole(trained) == (trained / "checkpoint-8", [])
    assert not (trained / "partial").exists()
    (trained / "checkpoint-mine").mkdir()
    (trained / "notes.txt").write_text("mine")
    remove_all(trained)
    assert sorted(path.name for path in trained.iterdir()) == ["checkpoint-mine", "metrics.jsonl", "notes.txt"]


@pytest.mark.parametrize("where", ["torch.save", "safetensors.torch.save_file", "write_text"])
def test_a_full_disk_is_said_and_leaves_the_one_before(
    where: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third file that torch, safetensors or Python writes does not fit any more."""
    full, count = False, 0

    def failing(write: Callable[..., Any], position: int) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count, full
            path = str(args[position])
            if "checkpoint-4" in path:
                full = True
                if where == "torch.save":
                    raise RuntimeError("unexpected pos 169600 vs 169488")
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*args, **kwargs)

        return wrapped

    real_open = Path.open

    def opening(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if full and self.name == "probe":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real_open(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opening)
    if where == "torch.save":
        monkeypatch.setattr(torch, "save", failing(torch.save, 1))
    elif where == "write_text":
        monkeypatch.setattr(Path, "write_text", failing(Path.write_text, 0))
    else:
        monkeypatch.setattr(Trainer, "_save_extra", failing(Trainer._save_extra, 1))
    with pytest.raises(UserError, match="the checkpoint cannot be written: No space left on device") as caught:
        build(CrossEntropy(), **SETTINGS).train()
    assert "then --resume goes on from checkpoint-2" in str(caught.value)
    assert names(tmp_path / "run") == ["checkpoint-2"]
    monkeypatch.undo()
    whole = build(CrossEntropy(), "whole", **SETTINGS)
    whole.train()
    resumed = build(CrossEntropy(), **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(value, whole.model.state_dict()[name]) for name, value in resumed.model.state_dict().items())


@pytest.mark.parametrize("how", ["steps", "patience"])
def test_a_training_that_was_over_takes_no_further_step(how: str, build: Build, tmp_path: Path) -> None:
    """Killed after its last checkpoint, in mid-epoch: transformers would take one step more, or an epoch."""

    class Falling:
        def __init__(self) -> None:
            self.value = 9.0

        def __call__(self, model: Any) -> dict[str, float]:
            self.value -= 1
            return {"accuracy": self.value}

    settings = {**SETTINGS, "max_steps": 5}
    if how == "patience":
        best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}
        every = {"eval_strategy": "steps", "eval_steps": 2, "early_stopping_patience": 1, "max_steps": 11}
        settings |= {**best, **every, "evaluators": {"dev": Falling()}}
    whole = build(CrossEntropy(), **settings)
    whole.train()
    last = {"steps": 5, "patience": 4}[how]
    assert whole.state.global_step == last
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    again = build(CrossEntropy(), **settings)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == last
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == log
    assert all(torch.equal(value, whole.model.state_dict()[name]) for name, value in again.model.state_dict().items())
