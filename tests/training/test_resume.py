"""An interrupted run that is resumed ends as one that was not: weights, buffers and log, bit for bit on CPU."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.tiny import LABELS, rows
from safetensors import safe_open
from torch import Tensor, nn
from transformers import TrainerCallback

from contraverse.methods import METHODS, CrossEntropy
from contraverse.models import TextModel
from contraverse.training import StopOnInterrupt, Trainer
from contraverse.types import Batch, HeadSpec, Loss, Method

Build = Callable[..., Trainer]


class Bank(Method):
    """A running mean of features that the loss pulls towards, and noise: a method with memory and chance."""

    name, summary, paper, equation, requires, cost = "bank", "a test", "none", "none", "labels", "3F"
    heads: Mapping[str, HeadSpec] = {"z": HeadSpec(dim=8)}

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(12, 8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        out = model(batch, want=("logits", "z"))
        ce = F.cross_entropy(out.logits, batch["labels"])
        pull = (out.z - self.bank[batch["index"]] - torch.randn_like(out.z)).square().mean()
        yield Loss(ce + 0.1 * pull, {"ce": ce.detach(), "pull": pull.detach()})
        self.bank[batch["index"]] = 0.5 * self.bank[batch["index"]] + 0.5 * out.z.detach()
        self.steps += 1


class Crash(TrainerCallback):
    """The power fails after a step was logged and, where due, saved."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.after:
            raise RuntimeError("power failure")


class Accuracy:
    """A figure of the weights, so that a wrong resume shows in the log; draws at random too."""

    def __call__(self, model: Any) -> dict[str, float]:
        torch.rand(2)
        return {"accuracy": float(sum(p.detach().double().abs().sum() for p in model.parameters()))}


SETTINGS: dict[str, Any] = {
    "dropout": 0.1, "num_train_epochs": 3, "logging_steps": 3, "save_strategy": "steps", "save_steps": 2,
    "save_total_limit": None, "eval_strategy": "steps", "eval_steps": 2,
}  # fmt: skip


def state(trainer: Trainer) -> dict[str, Tensor]:
    return {**trainer.model.state_dict(), **{f"method.{k}": v for k, v in trainer.method.state_dict().items()}}


def same(one: Trainer, other: Trainer) -> None:
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    # A buffer may be NaN until it is set.
    assert [n for n in first if not torch.allclose(first[n], second[n], rtol=0, atol=0, equal_nan=True)] == []
    logs = [(Path(t.args.output_dir) / "metrics.jsonl").read_text() for t in (one, other)]
    assert logs[0] == logs[1]
    assert one.state.global_step == other.state.global_step
    assert one.state.total_flos == other.state.total_flos


def compare(build: Build, method: Callable[[], Method], crash: int, **settings: Any) -> tuple[Trainer, Trainer]:
    """Train in one go, and again with a crash after ``crash`` steps and a fresh trainer to finish."""
    settings = {**SETTINGS, **settings}

    def trainer(name: str, *callbacks: TrainerCallback) -> Trainer:
        evaluators = {"dev": Accuracy()} if settings["eval_strategy"] != "no" else {}
        return build(method(), name, evaluators=evaluators, callbacks=callbacks, **settings)

    whole = trainer("whole")
    whole.train()
    with pytest.raises(RuntimeError, match="power"):
        trainer("broken", Crash(crash)).train()
    torch.manual_seed(99)  # a fresh process would not be where this one is
    resumed = trainer("broken")
    resumed.train(resume_from_checkpoint=True)
    same(whole, resumed)
    return whole, resumed


@pytest.mark.parametrize("crash", [3, 5, 6])
def test_a_method_with_memory_and_chance(build: Build, crash: int) -> None:
    """9 steps in 3 epochs, saved every 2: mid-epoch, at an epoch's end, and between a save and a log."""
    whole, _ = compare(build, Bank, crash)
    assert int(whole.method.steps) == 9


# CARL's contrast begins in the second epoch, right after the break.
EARLIER: dict[str, dict[str, Any]] = {"carl": {"start": 1, "negatives": 3}, "freelb": {"gamma": 0.2}}


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].modality != "images"])
def test_every_method_of_the_table(build: Build, name: str) -> None:
    """Saved in the first of two epochs, broken at the second's start: its weights, buffers, draws and log."""
    data = rows(texts=3) if METHODS[name].requires == "pairs" else rows()
    settings = {"num_train_epochs": 2, "eval_strategy": "no", "save_steps": 2, "max_steps": 5}
    compare(build, partial(METHODS[name], **EARLIER.get(name, {})), 3, data=data, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"train_sampling_strategy": "random", "save_steps": 3},
        {"gradient_accumulation_steps": 2, "num_train_epochs": 5, "save_steps": 3},
        {"save_strategy": "epoch", "eval_strategy": "epoch"},
        {"bf16": True},
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                {"train_sampling_strategy": "random"},
                {"eval_strategy": "no", "logging_steps": 1},
                {"logging_steps": 7},
                {"data_seed": 3},
                {"dataloader_num_workers": 1},
                {"per_device_train_batch_size": 5},
                {"max_steps": 7},
            )
        ),
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()),
)
def test_any_arguments(build: Build, settings: Any) -> None:
    compare(build, Bank, 5, **settings)


def test_adapters_alone_are_in_a_checkpoint(build: Build, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """The encoder's own weights come from where they came from before."""
    folder = tiny_folder("bert")

    def adapted(method: Method, name: str, **settings: Any) -> Trainer:
        torch.manual_seed(0)
        model = TextModel.from_pretrained(folder, labels=LABELS, max_length=32, peft={"type": "lora", "r": 4})
        return build(method, name, model=model, **settings)

    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "max_steps": 5}
    whole, _ = compare(adapted, METHODS["scal"], 3, **best)
    with safe_open(whole.state.best_model_checkpoint + "/model.safetensors", framework="pt") as file:
        assert set(file.keys()) == {name for name, value in whole.model.named_parameters() if value.requires_grad}


def test_the_best_so_far_is_remembered(build: Build) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": False}
    whole, resumed = compare(build, Bank, 7, **best, save_total_limit=1)
    assert whole.state.best_metric == resumed.state.best_metric
    assert whole.state.best_global_step == resumed.state.best_global_step


def test_patience_is_remembered(build: Build) -> None:
    """The first evaluation is the best: with a patience of 3 it ends at the fourth, whether or not it was broken."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": False}
    whole, resumed = compare(
        build, CrossEntropy, 5, **best, early_stopping_patience=3, num_train_epochs=10, learning_rate=1e-2
    )
    assert whole.state.global_step == resumed.state.global_step == 8


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
@pytest.mark.parametrize(
    ("moment", "at"),
    [
        ("on_step_begin", 4),
        pytest.param("on_step_begin", 5, id="ends an epoch"),
        pytest.param("on_step_begin", 8, id="ends the run"),
        ("on_epoch_end", 6),
        ("on_evaluate", 6),
        ("on_save", 6),
    ],
)
def test_a_clean_stop_resumes_too(build: Build, strategy: str, moment: str, at: int) -> None:
    """Ctrl-C anywhere: what an epoch's end would have measured and saved is not lost with it."""

    class Pressed(TrainerCallback):
        pass

    def press(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == at:
            stop.interrupted = True

    setattr(Pressed, moment, press)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "save_total_limit": 1}
    when = {"eval_strategy": strategy, "save_strategy": strategy, "eval_steps": 3, "save_steps": 3}
    settings = {**SETTINGS, **best, **when}

    def trainer(name: str, *callbacks: TrainerCallback) -> Trainer:
        return build(Bank(), name, evaluators={"dev": Accuracy()}, callbacks=callbacks, **settings)

    whole = trainer("whole")
    whole.train()
    stop = StopOnInterrupt()
    stopped = trainer("stopped", Pressed(), stop)
    stopped.train()
    assert stopped.state.global_step == {"on_step_begin": at + 1}.get(moment, 7)
    resumed = trainer("stopped")
    resumed.train(resume_from_checkpoint=True)
    same(whole, resumed)
    assert whole.state.best_metric == resumed.state.best_metric
    assert whole.state.best_global_step == resumed.state.best_global_step


@pytest.mark.slow
def test_resuming_twice_is_as_good(build: Build) -> None:
    whole = build(Bank(), "whole", **{**SETTINGS, "eval_strategy": "no"})
    whole.train()
    for crash in (3, 7):
        with pytest.raises(RuntimeError, match="power"):
            build(Bank(), "broken", callbacks=[Crash(crash)], **{**SETTINGS, "eval_strategy": "no"}).train(
                resume_from_checkpoint=True if crash > 3 else None
            )
    resumed = build(Bank(), "broken", **{**SETTINGS, "eval_strategy": "no"})
    resumed.train(resume_from_checkpoint=True)
    same(whole, resumed)


@pytest.mark.slow
def test_a_named_checkpoint_can_be_resumed(build: Build, tmp_path: Path) -> None:
    whole = build(Bank(), "whole", **{**SETTINGS, "eval_strategy": "no"})
    whole.train()
    expected = {name: value.clone() for name, value in state(whole).items()}
    again = build(Bank(), "whole", **{**SETTINGS, "eval_strategy": "no"})
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert all(torch.equal(value, expected[name]) for name, value in state(again).items())


def test_the_methods_buffers_are_in_the_checkpoint(build: Build, tmp_path: Path) -> None:
    trainer = build(Bank(), **{**SETTINGS, "eval_strategy": "no"})
    trainer.train()
    stored = [path for path in (tmp_path / "run" / "checkpoint-4").iterdir() if "method" in path.name]
    assert [path.suffix for path in stored] == [".safetensors"]
    from safetensors.torch import load_file

    buffers = load_file(stored[0])
    assert set(buffers) == {"bank", "steps"}
    assert int(buffers["steps"]) == 4
    assert buffers["bank"].abs().sum() > 0
