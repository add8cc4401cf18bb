"""The driver: order, counts, where ``no_sync`` reaches, and use in loops that are not ours."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from reference.driving import flat, gradients, make, ready
from reference.tiny import random_batch, with_pairs
from torch import Tensor, nn

from contraverse.attacks import NormBall, perturbation_inputs
from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.training import step
from contraverse.types import Batch, Loss, Method, Outputs

Make = Callable[..., TextModel]


class ForwardCalls(Method):
    """FreeLB-like: ``yielded`` losses, each of the whole model, while ``passes`` are declared."""

    name, requires, cost = "passes", "labels", "3F"

    def __init__(self, passes: int, yielded: int | None = None, log: list[str] | None = None) -> None:
        super().__init__()
        self.passes, self.yielded = passes, passes if yielded is None else yielded
        self.log = log if log is not None else []
        self.deltas: list[Tensor] = []

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        ball = NormBall(None, 0.1)
        inputs = perturbation_inputs(model, batch)
        delta = ball.init(inputs)
        for i in range(self.yielded):
            self.log.append(f"forward {i}")
            self.deltas.append(delta.detach().clone())
            ce = F.cross_entropy(model(batch, delta=delta).logits, batch["labels"])
            yield Loss(ce / self.passes, {"ce": ce.detach(), "pass": torch.tensor(float(i))})
            assert delta.grad is not None
            delta = ball.step(delta, delta.grad, inputs)
        self.log.append("end")


def backward(loss: Tensor) -> None:
    loss.backward()


@pytest.fixture
def model(tiny_model: Make) -> TextModel:
    return tiny_model(dropout=0.0).train()


def test_parts_are_returned_in_order(model: TextModel, batch: Any) -> None:
    parts = step(ForwardCalls(3), model, batch, backward=backward)
    assert [float(p["pass"]) for p in parts] == [0, 1, 2]
    assert parts[2]["ce"] > parts[0]["ce"]
    assert not any(value.requires_grad for p in parts for value in p.values())


def test_each_loss_is_back_propagated_before_the_next_forward(model: TextModel, batch: Any) -> None:
    log: list[str] = []

    def noted(loss: Tensor) -> None:
        log.append("backward")
        loss.backward()

    step(ForwardCalls(3, log=log), model, batch, backward=noted)
    assert log == ["forward 0", "backward", "forward 1", "backward", "forward 2", "backward", "end"]


def test_gradients_of_all_passes_add_up(model: TextModel, batch: Any) -> None:
    method = ForwardCalls(3)
    got = gradients(method, model, batch)
    model.zero_grad()
    for delta in method.deltas:
        (F.cross_entropy(model(batch, delta=delta).logits, batch["labels"]) / 3).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(flat(got), flat(expected))


@pytest.mark.parametrize(("declared", "yielded"), [(2, 1), (1, 0), (1, 2), (2, 3), (3, 1)])
def test_a_method_that_miscounts_is_refused(model: TextModel, batch: Any, declared: int, yielded: int) -> None:
    with pytest.raises(ValueError, match=f"passes = {declared}"):
        step(ForwardCalls(declared, yielded), model, batch, backward=backward)


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_no_sync_covers_forward_and_backward_of_all_passes_but_the_last(
    model: TextModel, batch: Any, passes: int
) -> None:
    """DDP decides at the forward whether it will reduce: around ``backward`` alone, ``no_sync`` does nothing."""
    log: list[str] = []

    @contextmanager
    def no_sync() -> Iterator[None]:
        log.append("enter")
        yield
        log.append("exit")

    def noted(loss: Tensor) -> None:
        log.append("backward")
        loss.backward()

    step(ForwardCalls(passes, log=log), model, batch, backward=noted, no_sync=no_sync)
    expected = [f"enter,forward {i},backward,exit" for i in range(passes - 1)]
    expected += [f"forward {passes - 1},backward,end"]
    assert log == ",".join(expected).split(",")


def test_no_sync_is_left_when_a_method_fails(model: TextModel, batch: Any) -> None:
    inside: list[int] = []

    class Fails(ForwardCalls):
        def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
            raise RuntimeError("broken")
            yield

    @contextmanager
    def no_sync() -> Iterator[None]:
        inside.append(1)
        try:
            yield
        finally:
            inside.pop()

    with pytest.raises(RuntimeError, match="broken"):
        step(Fails(2), model, batch, backward=backward, no_sync=no_sync)
    assert inside == []


def test_the_driver_neither_zeroes_nor_clips_nor_steps(model: TextModel, batch: Any) -> None:
    once = gradients(ForwardCalls(1), model, batch)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(ForwardCalls(1), model, batch, backward=backward)
    for name, p in model.named_parameters():
        if name in once:
            assert p.grad is not None
            torch.testing.assert_close(p.grad, 2 * once[name], rtol=1e-4, atol=1e-6)
        assert torch.equal(p, weights[name])


# loops that are not ours


def batches() -> list[Any]:
    return [with_pairs(random_batch(4, seed=seed), seed + 100) for seed in range(3)]


def plain_loop(method: Method, model: TextModel) -> Tensor:
    torch.manual_seed(5)
    ready(method, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in batches():
        optimizer.zero_grad()
        step(method, model, batch, backward=backward)
        optimizer.step()
        method.after_step(model)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def accelerate_loop(method: Method, model: TextModel) -> Tensor:
    torch.manual_seed(5)
    ready(method, model)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))

    def no_sync() -> AbstractContextManager[Any]:
        return accelerator.no_sync(prepared)

    for batch in batches():
        optimizer.zero_grad()
        step(method, prepared, batch, backward=accelerator.backward, no_sync=no_sync)
        optimizer.step()
        method.after_step(model)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("case", [*(name for name in METHODS if METHODS[name].modality != "images"), "passes"])
def test_accelerate_and_a_plain_loop_agree(case: str, tiny_model: Make) -> None:
    methods = [ForwardCalls(3) if case == "passes" else make(case) for _ in range(2)]  # a method may remember
    method = methods[0]
    weights = [
        loop(each, tiny_model(dropout=0.0, heads=method.heads).train())
        for loop, each in zip((plain_loop, accelerate_loop), methods, strict=True)
    ]
    assert torch.equal(*weights)
    start = torch.cat([p.flatten() for p in tiny_model(dropout=0.0, heads=method.heads).parameters()])
    assert not torch.allclose(weights[0], start, atol=1e-4)


# a newcomer's first mistakes


class Mine(Method):
    """A method that does in ``losses`` what a test says."""

    name, requires, cost = "mine", "labels", "3F"

    def __init__(self, losses: Callable[[Outputs], Any]) -> None:
        super().__init__()
        self.of = losses

    def losses(self, model: nn.Module, batch: Batch) -> Any:
        return self.of(model(batch))


def one(value: Any) -> Iterator[Any]:
    yield value


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda out: out.logits.mean(), r'must yield its losses, and returned a Tensor\nwrite "yield Loss'),
        (lambda out: Loss(out.logits.mean(), {}), "must yield its losses, and returned a Loss"),
        (lambda out: None, "must yield its losses, and returned a NoneType"),
        (lambda out: [out.logits.mean()], "must yield its losses, and returned a list"),
        (lambda out: one((out.logits.mean(), {})), r"yielded a tuple\nyield a Loss\(total, parts\)"),
        (lambda out: one(1.5), "yielded a float"),
        (lambda out: one(Loss(1.5, {})), "yielded a float"),  # type: ignore[arg-type]
        (lambda out: one(out.logits.mean(1)), r"a loss of shape \(4,\)\nyield one number: loss.mean\(\)"),
        (lambda out: one(Loss(out.logits.mean(), {"ce": 0.5})), "the part 'ce' as a float, not a tensor\nwrite"),  # type: ignore[dict-item]
        (lambda out: one(out.z.mean()), '"z" was not requested\npass want=\\("logits", "z"\\) to the model'),
        (lambda out: one(out.heads["critic"].mean()), '"critic" was not requested\npass want=\\("logits", "critic"\\)'),
    ],
)
def test_a_first_mistake_is_explained(
    model: TextModel, batch: Any, losses: Callable[[Outputs], Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        step(Mine(losses), model, batch, backward=backward)


def test_a_tensor_is_a_loss_without_parts(model: TextModel, batch: Any) -> None:
    taken: list[Tensor] = []
    assert step(Mine(lambda out: one(out.logits.mean())), model, batch, backward=taken.append) == [{}]
    torch.testing.assert_close(taken, [model(batch).logits.mean()])
