"""Methods whose loss gains a term late: what is kept as the best had it, patience counts from there, and CARL's starts
on time."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.ranks import run_ranks
from reference.tiny import LABELS, rows
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback

from contraverse.methods import CARL, METHODS, CrossEntropy
from contraverse.models import TextModel
from contraverse.training import Trainer, read_metrics
from contraverse.types import Batch, Loss

Build = Callable[..., Trainer]
BEST: dict[str, Any] = {
    "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None,
    "load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True,
}  # fmt: skip


class Late(CrossEntropy):
    """Has all of its loss from step ``first`` on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def complete(self) -> bool:  # type: ignore[override]
        return int(self.steps) >= self.first

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        yield from super().losses(model, batch)
        self.steps += 1


class Scores:
    """Accuracy by the step, so that it does not matter how often a run was broken."""

    def __init__(self, method: Late, *scores: float) -> None:
        self.method, self.scores = method, scores

    def __call__(self, model: Any) -> dict[str, float]:
        return {"accuracy": self.scores[int(self.method.steps) - 1]}


class Crash(TrainerCallback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.after:
            raise RuntimeError("power failure")


FALLING = (90.0, 80.0, 60.0, 70.0, 50.0, 40.0, 30.0)


def late(build: Build, name: str, first: int, crash: int | None = None, **settings: Any) -> Trainer:
    method = Late(first)
    callbacks = [] if crash is None else [Crash(crash)]
    evaluators = {"dev": Scores(method, *FALLING)}
    return build(method, name, max_steps=7, callbacks=callbacks, evaluators=evaluators, **{**BEST, **settings})


@pytest.mark.parametrize(("first", "best"), [(0, 1), (2, 2), (3, 4), (7, 7)])
def test_the_best_is_chosen_among_those_that_had_every_term(build: Build, first: int, best: int) -> None:
    trainer = late(build, "run", first)
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (best, FALLING[best - 1])
    stored = Path(trainer.args.output_dir) / f"checkpoint-{best}"
    assert trainer.state.best_model_checkpoint == str(stored)
    saved = load_file(stored / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in trainer.model.state_dict().items() if name in saved)


def test_what_never_had_every_term_is_no_best(build: Build) -> None:
    """The last weights are left, as where nothing is validated."""
    trainer = late(build, "run", 8)
    trainer.train()
    assert trainer.state.best_metric is None
    assert trainer.state.best_model_checkpoint is None
    assert trainer.state.global_step == 7


@pytest.mark.parametrize(("first", "last"), [(0, 3), (3, 6), (5, 7)])
def test_patience_counts_from_the_first_that_had_every_term(build: Build, first: int, last: int) -> None:
    trainer = late(build, "run", first, early_stopping_patience=2)
    trainer.train()
    assert trainer.state.global_step == last


@pytest.mark.parametrize("crash", [2, 4, 5])
def test_a_resumed_run_remembers_both(build: Build, crash: int) -> None:
    with pytest.raises(RuntimeError, match="power"):
        late(build, "run", 3, crash, early_stopping_patience=2).train()
    trainer = late(build, "run", 3, early_stopping_patience=2)
    trainer.train(resume_from_checkpoint=True)
    assert (trainer.state.global_step, trainer.state.best_global_step) == (6, 4)


@pytest.mark.parametrize("name", METHODS)
def test_only_carl_has_a_late_term(name: str) -> None:
    assert METHODS[name]().complete is (name != "carl")


# CARL


def first_contrast(folder: Path) -> int:
    return next(row["step"] for row in read_metrics(folder / "metrics.jsonl") if "contrast" in row)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("start", [1.0, 1.5, 2.0])
def test_carl_starts_on_time_whatever_the_last_batch_leaves_out(build: Build, drop_last: bool, start: float) -> None:
    """Eleven rows in batches of four: an epoch of 8 leaves out three rows, others in each."""
    an_epoch, steps = (8, 2) if drop_last else (11, 3)
    method = CARL(start=start, negatives=3)
    complete: list[bool] = []

    class Noted(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            complete.append(method.complete)

    trainer = build(method, data=rows(11), dataloader_drop_last=drop_last, num_train_epochs=4, callbacks=[Noted()])
    trainer.train()
    assert trainer.state.global_step == 4 * steps
    # Steps before it have seen so many rows: the last of an epoch is smaller where nothing is left out.
    seen = [0]
    for step in range(4 * steps):
        seen.append(seen[-1] + (4 if drop_last or step % 3 < 2 else 3))
    first = next(step for step, rows_before in enumerate(seen, 1) if rows_before >= start * an_epoch)
    assert first_contrast(trainer.rows.path.parent) == first
    assert complete == [step >= first for step in range(1, 4 * steps + 1)]
    for row in read_metrics(trainer.rows.path):
        assert ("contrast" in row) == (row["step"] >= first) or "train_runtime" in row


def _on_a_rank(number: int, out: Path, folder: Path, port: int) -> None:
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    state: dict[str, dict[str, Tensor]] = {}
    for drop_last in (True, False):
        torch.manual_seed(1)
        model = TextModel.from_pretrained(folder, labels=LABELS, max_length=32)
        method = CARL(start=1, negatives=3, positive="current")
        trainer = Trainer(
            model, method, rows(13), output_dir=out / str(drop_last), dataloader_drop_last=drop_last, logging_steps=1,
            num_train_epochs=2, per_device_train_batch_size=2, save_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=True, ddp_backend="gloo", seed=7,
        )  # fmt: skip
        trainer.train()
        state[str(drop_last)] = {**method.state_dict(), "complete": torch.tensor(method.complete)}
    torch.save(state, out / f"{number}.pt")


@pytest.mark.ddp
def test_two_ranks_start_carl_on_time_and_keep_one_bank(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Thirteen rows, four a step: 12 an epoch where the last batch is left out, 16 where it is filled up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_ranks(_on_a_rank, tmp_path, tiny_folder("bert", 0.0), port)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    for drop_last, step in (("True", 4), ("False", 5)):
        assert first_contrast(tmp_path / drop_last) == step
        assert first[drop_last]["complete"]
        assert int(first[drop_last]["seen"]) == 2 * 4 * (step - 1)
        for name, value in first[drop_last].items():
            torch.testing.assert_close(second[drop_last][name], value, rtol=0, atol=0, equal_nan=True)
