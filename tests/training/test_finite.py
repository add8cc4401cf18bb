"""Training stops at the first loss or gradient that is not finite, with the step and the rows, and saves no NaN."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.tiny import rows
from safetensors.torch import load_file
from torch import Tensor, nn

from contraverse.methods import METHODS, CrossEntropy
from contraverse.models.finite import not_finite
from contraverse.training import Diverged, Trainer, read_metrics
from contraverse.training.finite import FiniteRecord
from contraverse.types import Batch, HeadSpec, Loss, Method

Build = Callable[..., Trainer]
SETTINGS: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None, "logging_steps": 1}


class Failing(Method):
    """Cross-entropy whose loss, or gradient alone, is not finite where ``row`` is seen after ``after`` steps."""

    name, summary, paper, equation, requires, cost = "failing", "a test", "none", "none", "labels", "3F"
    heads: Mapping[str, HeadSpec] = {}

    def __init__(self, row: int, after: int, how: str) -> None:
        super().__init__()
        self.row, self.after, self.how, self.count = row, after, how, 0
        self.batches: list[list[int]] = []

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        loss = F.cross_entropy(model(batch).logits, batch["labels"])
        self.count += 1
        self.batches.append(batch["index"].tolist())
        if self.count > self.after and self.row in self.batches[-1]:
            # The derivative of the square root at 0 is infinite, its value is not.
            loss = loss * torch.nan if self.how == "loss" else loss + ((loss - loss.detach()).abs()).sqrt()
        yield Loss(loss, {"ce": loss.detach()})


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"max_grad_norm": 0.0}], ids=str)
def test_the_first_bad_step_stops_it(how: str, settings: Any, build: Build, tmp_path: Path) -> None:
    method = Failing(5, 4, how)
    trainer = build(method, **{**SETTINGS, **settings})
    with pytest.raises(Diverged) as caught:
        trainer.train()
    step, said = method.count, str(caught.value)
    assert f"the {how} of failing is not finite at step {step}" in said
    kept = tmp_path / "run" / f"checkpoint-{(step - 1) // 2 * 2}"
    assert f"the last good checkpoint is {kept}" in said
    if how == "loss":
        assert f"of the training rows {', '.join(map(str, method.batches[-1]))}, from 0" in said
    logged = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in logged] == list(range(1, step))
    assert all(row["loss"] is not None for row in logged)
    again = build(CrossEntropy(), **{**SETTINGS, "max_steps": step})
    again.train(resume_from_checkpoint=str(kept))
    assert not_finite(again.model) is None


@pytest.mark.parametrize("name", ["ce", "simcse", "scal", "uscal"])
def test_a_rate_beyond_all_reason(name: str, build: Build, tmp_path: Path) -> None:
    """F7: an encoder too, whose weights nobody measures."""
    trainer = build(METHODS[name](), data=rows(), **{**SETTINGS, "learning_rate": 1e30})
    with pytest.raises(Diverged, match=r"lower the learning rate, which is 1e\+30"):
        trainer.train()
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        weights = load_file(checkpoint / "model.safetensors")
        assert all(bool(value.isfinite().all()) for value in weights.values())


def test_weights_of_the_last_step_are_looked_at(build: Build) -> None:
    """No later loss shows them: loss and gradient are finite, and the step is not."""

    class Steep(Failing):
        def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
            loss = 1e6 * F.cross_entropy(model(batch).logits, batch["labels"])
            yield Loss(loss, {"ce": loss.detach()})

    settings = {"max_steps": 1, "learning_rate": 3e38, "warmup_steps": 0, "optim": "sgd", "max_grad_norm": 0.0}
    with pytest.raises(Diverged, match="the weights are not finite after step 1 of steep, first "):
        build(Steep(0, 0, "loss"), **settings).train()


def test_it_is_found_out_without_a_wait_at_each_step(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device the record is read when training logs and saves; the step and the rows are those of the first."""
    read: list[int] = []
    check = Trainer._check_record

    def counted(self: Trainer) -> None:
        read.append(self.state.global_step)
        check(self)

    monkeypatch.setattr(Trainer, "_check_record", counted)
    monkeypatch.setattr("contraverse.training.finite.waits", lambda device: True)
    method = Failing(5, 4, "loss")
    with pytest.raises(Diverged) as caught:
        build(method, num_train_epochs=20, logging_steps=20).train()
    assert read == [20]
    first = next(i for i, batch in enumerate(method.batches, 1) if i > 4 and 5 in batch)
    assert f"at step {first};" in str(caught.value)
    assert f"rows {', '.join(map(str, method.batches[first - 1]))}, from 0" in str(caught.value)


def test_the_record_keeps_the_first() -> None:
    record = FiniteRecord(4, torch.device("cpu"))
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    record.see_loss(good, 1, {"index": torch.tensor([1, 2, 3, 4])})
    assert record.values.tolist() == [-1] * 6
    record.see_loss(bad, 2, {"index": torch.tensor([7, 8])})
    record.see_gradient(bad * 0, 2)
    record.see_loss(bad, 3, {"index": torch.tensor([1, 2, 3, 4])})
    record.see_gradient(bad, 3)
    assert record.values.tolist() == [2, 2, 7, 8, -1, -1]
    record = FiniteRecord(2, torch.device("cpu"))
    record.see_loss(bad, 9, {})
    assert record.values.tolist() == [9, -1, -1, -1]


def test_buffers_count_as_weights() -> None:
    model = nn.BatchNorm1d(3)
    assert not_finite(model) is None
    running: Tensor = model.running_var  # type: ignore[assignment]
    running[1] = torch.inf
    assert not_finite(model) == "running_var"
