"""DynACL's schedules and its momentum encoder; its attack is tested in test_acl.py."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import acl_reference as reference
from reference.images import CIFAR10, buffers, tiny
from reference.spies import Spy, drive, dual, told, views
from torch import Tensor

from contraverse.data import ImageData, load_images
from contraverse.data.images import SimCLRAugment, TwoViews
from contraverse.errors import UserError
from contraverse.methods import UAT, DynACL
from contraverse.models import ImageModel
from contraverse.pipeline import run
from contraverse.recipes import configure
from contraverse.training import Trainer, step
from contraverse.training.lars import LARS
from contraverse.types import TrainingInfo


def test_strength_and_weights_follow_the_epochs() -> None:
    """From rows seen: T = 7 epochs of 10 rows, K = 2."""
    method = told(DynACL(period=2, rate=0.5), rows=10, epochs=7.0)
    for epoch in range(7):
        for row in (0, 4, 9):
            method.seen.fill_(10 * epoch + row)
            assert method.augmentation_strength == pytest.approx(reference.dynacl_strength(epoch, 7, every=2))
            omega = reference.dynacl_weight(epoch, 7, every=2, rate=0.5)
            assert method.weights == pytest.approx((1 - omega, 1 + omega))
    method.seen.fill_(1000)
    assert method.augmentation_strength == 0


def test_the_papers_schedule() -> None:
    method = told(DynACL(), rows=1, epochs=1000.0)
    assert (method.augmentation_strength, method.weights) == (1.0, (1.0, 1.0))
    method.seen.fill_(999)
    assert method.augmentation_strength == pytest.approx(0.05)
    assert method.weights == pytest.approx((1 - 2 / 3 * 0.95, 1 + 2 / 3 * 0.95))


def test_rows_are_counted_and_saved() -> None:
    method, batch = DynACL(period=1, momentum=None, steps=1), views()
    model = dual(method)
    told(method, rows=6, epochs=2.0)
    strengths = []
    for _ in range(4):
        strengths.append(method.augmentation_strength)
        losses = [loss.parts["strength"] for loss in method.losses(model, batch)]
        assert [float(part) for part in losses] == [strengths[-1]] * 2
    assert strengths == [1.0, 1.0, 0.5, 0.5]
    again = told(DynACL(period=1, momentum=None), rows=6, epochs=2.0)
    again.load_state_dict(method.state_dict())
    assert again.augmentation_strength == method.augmentation_strength == 0
    assert told(method, rows=6, epochs=2.0).augmentation_strength == 1


def test_without_a_length_there_is_no_schedule() -> None:
    method = DynACL()
    assert method.augmentation_strength == 1
    with pytest.raises(UserError, match="length"):
        method.prepare(TrainingInfo(num_examples=3, hidden_size=2))
    with pytest.raises(ValueError, match="prepare"):
        next(method.losses(dual(method), views()))
    with pytest.raises(ValueError, match="set_reference_model"):
        next(told(method).losses(dual(method), views()))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_and_gradients_are_the_papers(reduction: str) -> None:
    """Half of the way through, views in two encoders, of which training reaches one."""
    method, batch = DynACL(period=1, reduction=reduction), views()
    model = dual(method)
    told(method, rows=8, epochs=4.0, model=dual(method))
    with torch.no_grad():
        for parameter in method.reference_model.parameters():
            parameter.mul_(0.9)
    method.seen.fill_(16)
    other, momentum, spy = copy.deepcopy(model), copy.deepcopy(method.reference_model), Spy(model)
    method.reference_model, watched = Spy(method.reference_model), method.reference_model
    total, grads = drive(method, spy, batch)
    kept = method.reference_model.trained()[-1]
    assert all(p.grad is None for p in watched.parameters())
    assert torch.equal(kept.pixels, batch["positive"]["pixel_values"])
    found = (spy.trained()[-1].delta, kept.delta)
    first, second = batch["pixel_values"], batch["positive"]["pixel_values"]
    losses = []
    assert momentum.training
    for bn_branch, deltas in (("clean", (0, 0)), ("adversarial", found)):
        with torch.no_grad():
            key = momentum({"pixel_values": second + deltas[1]}, want=("z",), bn_branch=bn_branch).z
        query = other({"pixel_values": first + deltas[0]}, want=("z",), bn_branch=bn_branch).z
        losses.append(reference.nt_xent(query, key, 0.5))
    expected = reference.dynacl(losses[0], losses[1], reference.dynacl_weight(2, 4, every=1))
    expected = expected * (2 if reduction == "sum" else 1)
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-4)
    largest = max(grad.abs().max().item() for grad in grads.values())
    for name, p in other.named_parameters():
        assert (p.grad is None) == (name not in grads)
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=2e-3, atol=1e-4 * largest, msg=name)


def test_the_momentum_encoder_averages_weights_alone() -> None:
    """Buffers, batch norms' statistics among them, are its own."""
    method = DynACL(momentum=0.8)
    model = dual(method)
    told(method, model=dual(method))
    with torch.no_grad():
        for value in [*method.reference_model.parameters(), *model.buffers()]:
            value.add_(1)
    before = {name: value.clone() for name, value in method.reference_model.state_dict().items()}
    statistics = buffers(method.reference_model)
    method.after_step(model)
    for name, value in method.reference_model.state_dict().items():
        new = model.state_dict()[name]
        expected = before[name] if name in statistics else reference.ema(before[name], new, 0.8)
        torch.testing.assert_close(value, expected, msg=name)
    assert any("running_var" in name for name in before)
    alone = DynACL(momentum=None)
    assert (alone.needs_reference_model, alone.cost) == (False, "32F")
    alone.after_step(model)


def test_the_momentum_encoder_has_the_statistics_of_its_own_batches() -> None:
    """Of the second view, one batch of each stream a step; those of the attack leave no trace."""
    method, batch = DynACL(steps=2), views()
    model = dual(method)
    told(method, model=model)
    expected = copy.deepcopy(method.reference_model)
    spy = method.reference_model = Spy(method.reference_model)
    model_modes = [module.training for module in model.modules()]
    drive(method, model, batch)
    modes = [each.training for each in spy.passes]
    assert modes == [False, False, True, True]
    assert [each.bn_branch for each in spy.passes] == ["adversarial", "adversarial", "clean", "adversarial"]
    for delta, bn_branch in ((0, "clean"), (spy.passes[-1].delta, "adversarial")):
        expected({"pixel_values": batch["positive"]["pixel_values"] + delta}, want=("z",), bn_branch=bn_branch)
    found = buffers(spy.module)
    for name, value in buffers(expected).items():
        torch.testing.assert_close(found[name], value, msg=name)
    assert all(module.training for module in spy.module.modules())
    assert [module.training for module in model.modules()] == model_modes


def test_a_method_in_another_mode_leaves_its_copy_in_its_own() -> None:
    momentum, teacher = told(DynACL(), model=dual(DynACL())), told(UAT(), model=tiny())
    for mode in (True, False, True):
        for method, expected in ((momentum, True), (teacher, False)):
            assert method.train(mode).training is mode
            assert {module.training for module in method.reference_model.modules()} == {expected}


def test_the_momentum_encoder_is_what_is_kept() -> None:
    method, alone = DynACL(), DynACL(momentum=None)
    model = dual(method)
    assert alone.kept_model(model) is model
    told(method, model=dual(method))
    assert method.kept_model(model) is method.reference_model
    assert UAT().kept_model(model) is model
    inner, method.reference_model = method.reference_model, torch.compile(method.reference_model, backend="eager")
    assert method.kept_model(model) is inner


def test_a_single_row_is_normalised_by_running_statistics() -> None:
    method = DynACL(steps=1)
    model = dual(method)
    told(method, model=dual(method))
    before = buffers(method.reference_model)
    total, _ = drive(method, model, views(1))
    assert total == pytest.approx(0, abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in buffers(method.reference_model).items())


@pytest.fixture
def build(images: ImageData, tmp_path: Path) -> Callable[..., Trainer]:
    def make(**arguments: Any) -> Trainer:
        model = ImageModel.from_pretrained("resnet8", dual=True)
        return Trainer(
            model, DynACL(momentum=0.5, steps=1), images, output_dir=tmp_path / "run", num_train_epochs=3,
            per_device_train_batch_size=4, learning_rate=0.05, use_cpu=True, disable_tqdm=True, report_to="none",
            **arguments,
        )  # fmt: skip

    return make


@pytest.fixture
def images() -> ImageData:
    return ImageData.from_arrays(torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8))


def test_what_is_kept_is_measured_and_the_best_of_it_is_chosen(build: Callable[..., Trainer]) -> None:
    """The second of three evaluations is the best: the momentum encoder goes back to it with the model."""
    seen: list[tuple[Any, dict[str, Tensor]]] = []

    def evaluator(model: Any) -> dict[str, float]:
        seen.append((model, {name: value.clone() for name, value in model.state_dict().items()}))
        return {"score": float(len(seen) == 2)}

    trainer = build(
        evaluators={"validation": evaluator}, eval_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="score", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    kept = trainer.method.kept_model(trainer.model)  # type: ignore[arg-type]
    assert len(seen) == 3
    assert all(model is kept is trainer.method.reference_model for model, _ in seen)
    assert trainer.state.best_global_step == 4
    assert all(torch.equal(value, seen[1][1][name]) for name, value in kept.state_dict().items())
    assert not all(torch.equal(value, seen[2][1][name]) for name, value in kept.state_dict().items())


def test_a_run_saves_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers = []

    class Watched(Trainer):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            trainers.append(self)

    monkeypatch.setattr(sys.modules["contraverse.pipeline.run"], "Trainer", Watched)
    settings = {
        "model.name": "resnet8", "method.steps": 1, "data.train_rows": 40, "data.test_rows": 10,
        "train.num_train_epochs": 1, "train.per_device_train_batch_size": 20, "train.use_cpu": True,
        "train.schedule.warmup_epochs": 0,
        "train.report_to": "none",
    }  # fmt: skip
    config = configure("dynacl", task="digits", settings=settings)
    run(config, tmp_path / "run")
    (trainer,) = trainers
    saved = ImageModel.load(tmp_path / "run" / "model").state_dict()
    assert isinstance(trainer.method, DynACL)
    for name, value in trainer.method.reference_model.state_dict().items():
        assert torch.equal(saved[name], value), name
    assert not all(torch.equal(saved[name], value) for name, value in trainer.model.state_dict().items())  # type: ignore[union-attr]
    assert ImageModel.load(tmp_path / "run" / "model").dual


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_file(), reason="needs ../shared/data")
def test_different_images_stay_different() -> None:
    """ResNet-8 on 2,000 images of CIFAR-10 at 16 x 16, batch 64, LARS at 5, PGD-1: after 200 steps the mean cosine of
    different images is near 0. With a momentum encoder in eval mode it is .7."""
    data = load_images("cifar10", str(CIFAR10.parent), train_rows=2000, validation_rows=10, test_rows=500, seed=0).need(
        "train"
    )
    pixels = torch.nn.functional.avg_pool2d(data.pixels.float(), 2).round() / 255
    torch.manual_seed(0)
    method = DynACL(steps=1, period=1000)
    model = ImageModel.from_pretrained("resnet8", dual=True)
    model.add_heads(method.heads)
    told(method, rows=len(pixels), epochs=1000.0, model=model.train())
    optimizer, augment = LARS(model.parameters(), lr=0.1, weight_decay=1e-6), TwoViews(SimCLRAugment())
    for number in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 5 * min(1, (number + 1) / 30)
        index = torch.randperm(len(pixels))[:64]
        optimizer.zero_grad()
        step(method, model, augment({"pixel_values": pixels[index], "index": index}), backward=torch.Tensor.backward)
        optimizer.step()
        method.after_step(model)
    for encoder in (model, method.reference_model):
        for bn_branch in ("clean", "adversarial"):
            with torch.no_grad():
                z = torch.nn.functional.normalize(
                    encoder({"pixel_values": pixels[:200]}, want=("z",), bn_branch=bn_branch).z
                )
            assert ((z @ z.T).sum() - 200) / (200 * 199) < 0.1
