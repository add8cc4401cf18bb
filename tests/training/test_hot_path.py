"""A training step never waits for the device: no blocking copy to it, no value read from it.

There need not be a device. On torch's ``meta`` a step of each method runs whole: views, forward, attack, backward, what
the method does after the step, optimizer. Reading a value there raises, and `BlockingCopies` counts the copies. Two
things are left out: autocast, which meta lacks, and how transformers looks once in each forward whether a mask has
padding, to choose a faster attention. The trainer around the step runs on the CPU, where its reads are counted.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers.masking_utils
from reference.driving import CASES, TEXT_CASES, make, ready
from reference.images import image_batch, tiny
from reference.waiting import BlockingCopies
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from contraverse.data import ImageData
from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.methods import CARL, METHODS
from contraverse.models import TextModel
from contraverse.training import Trainer, finite, step
from contraverse.training.lars import LARS

aten = torch.ops.aten
IMAGE_CASES = [
    case
    for case, (name, _) in CASES.items()
    if METHODS[name].modality != "text"
    and {spec.kind for spec in make(case).heads.values()} <= {"projection", "mlp", "patches"}  # others read tokens
]


@pytest.fixture
def _meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast that does nothing on meta, and transformers not looking into masks."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *args, **kwargs: nullcontext() if kind == "meta" else autocast(kind, *args, **kwargs),
    )
    monkeypatch.setattr(transformers.masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *args, **kwargs: False)


def to_meta(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: to_meta(value) if isinstance(value, dict) else value.to("meta") for name, value in batch.items()}


def run(
    case: str,
    model: Any,
    batch: dict[str, Any],
    optimizer: type[torch.optim.Optimizer],
    views: Any = None,
    chunk: int | None = None,
) -> list[str]:
    """The blocking copies of one step; a value that is read raises."""
    method = make(case, hidden_size=model.width)
    model.add_heads(method.heads)
    model.train()
    ready(method, model)
    method.to("meta")
    model.to("meta")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    moved, batch = optimizer(trained, lr=0.1), to_meta(batch)
    with BlockingCopies() as copies:
        viewed = views(batch) if views else batch
        step(method, model, viewed, backward=lambda loss: loss.backward(), contrast_chunk=chunk)
        moved.step()
        method.after_step(model)
    return copies.seen


@pytest.mark.usefixtures("_meta")
@pytest.mark.parametrize("case", TEXT_CASES)
def test_a_step_on_texts_never_waits(
    case: str, tiny_model: Callable[..., TextModel], full_batch: dict[str, Any]
) -> None:
    assert run(case, tiny_model(), full_batch, torch.optim.AdamW) == []


@pytest.mark.usefixtures("_meta")
def test_a_step_in_chunks_never_waits(tiny_model: Callable[..., TextModel], full_batch: dict[str, Any]) -> None:
    assert run("uscal", tiny_model(), full_batch, torch.optim.AdamW, chunk=3) == []
    assert run("acl-ds", tiny(dual=True), image_batch(size=16), LARS, TwoViews(SimCLRAugment()), 3) == []


@pytest.mark.usefixtures("_meta")
@pytest.mark.parametrize("case", IMAGE_CASES)
def test_a_step_on_images_never_waits(case: str) -> None:
    two = METHODS[CASES[case][0]].image_views == 2
    views = TwoViews(SimCLRAugment(blur=0.5)) if two else OneView(CropFlip())
    pair = {"pixel_values": image_batch(size=16, seed=1)["pixel_values"]}
    batch = {**image_batch(size=16), "positive": pair, "negative": pair}
    assert run(case, tiny(dual=True), batch, LARS, views) == []


def test_the_counter_counts() -> None:
    """Each way that a blocking copy, or a read, can come into a step."""
    x, at = torch.zeros(4, device="meta"), torch.tensor([1, 2])
    with BlockingCopies() as copies:
        at.to("meta")
        torch.tensor([1.0], device="meta")
        torch.as_tensor(0.5, device="meta")
        x.new_tensor([1.0])
        x[at]
        x.copy_(torch.zeros(4))
        assert len(copies.seen) == 6
        at.to("meta", non_blocking=True)
        x.clamp(-0.5, 0.5) * torch.tensor(2.0)
        x[torch.arange(2, device="meta")].new_zeros(3).copy_(x[:3])
    assert len(copies.seen) == 6
    for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(x[0])


class Reads(TorchDispatchMode):
    """Counts values that the host reads while ``on``."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.seen = False, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.on and func.overloadpacket in (aten._local_scalar_dense, aten.is_nonzero, aten.equal):
            self.seen += 1
        return func(*args, **(kwargs or {}))


class Steps(TrainerCallback):
    """From the beginning of a step of the optimizer to its end, the batch's drawing left out."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.reads.on = True


@pytest.mark.parametrize("optimizer", [None, {"name": "lars"}])
def test_the_trainer_reads_nothing_between_two_rows_of_the_log(
    optimizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device: loss, gradient and log stay there until the log is written, here after the last step."""
    monkeypatch.setattr(finite, "waits", lambda device: True)
    reads = Reads()

    class Counted(Trainer):
        def _viewed(self, batch: Any) -> Any:  # draws are the host's own
            reads.on = False
            viewed = super()._viewed(batch)
            reads.on = True
            return viewed

        def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
            super()._maybe_log_save_evaluate(*args, **kwargs)
            reads.on = False

    data = ImageData.from_arrays(torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8), [0, 1, 2] * 4, ["a", "b", "c"])
    args: dict[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 100, "report_to": "none"}
    args |= {"save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "max_grad_norm": 1.0}
    trainer = Counted(
        tiny(dual=True),
        METHODS["acl-ds"](steps=1),
        data,
        output_dir=tmp_path,
        optimizer=optimizer,
        callbacks=[Steps(reads)],
        **args,
    )
    with reads:
        trainer.train()
    assert reads.seen == 0


def test_counters_stay_on_the_host() -> None:
    carl, dynacl = CARL().to("meta"), METHODS["dynacl"]().to("meta")
    assert {carl.seen.device.type, carl.begun.device.type, dynacl.seen.device.type} == {"cpu"}  # type: ignore[union-attr]
    assert carl.log_z.device.type == "meta"


def test_given_arguments_do_not_bring_back_the_filter_that_waits(build: Callable[..., Trainer], tmp_path: Any) -> None:
    from transformers import TrainingArguments

    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    assert arguments.logging_nan_inf_filter
    model = build(METHODS["ce"]()).model
    trained = Trainer(model, METHODS["ce"](), build(METHODS["ce"]()).train_dataset, args=arguments)
    assert not trained.args.logging_nan_inf_filter


def test_lars_starts_few_operations_however_many_tensors() -> None:
    class Counted(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for tensors in (2, 40):
        weights = [torch.ones(3, 2, requires_grad=True) for _ in range(tensors)]
        optimizer = LARS(weights, lr=0.1, weight_decay=0.1)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            with Counted() as counted:
                optimizer.step()
        counts.append(counted.count)
    assert counts[0] == counts[1] < 30
