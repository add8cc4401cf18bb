"""Validation runs in the precision of the weights, whatever mixed precision the training runs in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.tiny import rows
from torch import Tensor, nn

from contraverse.data import ImageData
from contraverse.evaluation import TaskEvaluator, robust_accuracy
from contraverse.methods import METHODS
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.models.modes import without_autocast
from contraverse.training import Trainer

Build = Callable[..., Trainer]
Seen = dict[str, set[torch.dtype]]


def watched(module: nn.Module) -> tuple[Seen, Callable[[AnyModel, Callable[[], dict[str, float]]], dict[str, float]]]:
    """What ``module`` gives, by phase, and how an evaluator says that its phase is on."""
    seen: Seen = {"training": set(), "validation": set()}
    phase = ["training"]

    def noted(_: nn.Module, __: Any, out: Tensor) -> None:
        seen[phase[0]].add(out.dtype)

    module.register_forward_hook(noted)

    def within(model: AnyModel, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        phase[0] = "validation"
        try:
            return measure()
        finally:
            phase[0] = "training"

    return seen, within


def images() -> ImageData:
    pixels = torch.randint(0, 256, (16, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageData.from_arrays(pixels, torch.arange(16) % 2, ("dark", "light"))


def test_images_are_validated_in_fp32_clean_and_under_attack(build: Build) -> None:
    model, data = ImageModel.from_pretrained("resnet8", labels=("dark", "light")), images()
    seen, within = watched(model.encoder.layer1)
    alone = ImageModel.from_pretrained("resnet8", labels=("dark", "light"))
    logged: list[tuple[dict[str, float], dict[str, float]]] = []

    def measure(model: AnyModel) -> dict[str, float]:
        clean = TaskEvaluator(data, ("accuracy",))(model)
        report = robust_accuracy(model, data, [8 / 255], norm="linf", steps=2)
        return clean | {"robust_accuracy": report.at[8 / 255].accuracy}

    def evaluator(model: AnyModel) -> dict[str, float]:
        found = within(model, lambda: measure(model))
        alone.load_state_dict(model.state_dict())
        logged.append((found, measure(alone)))
        return found

    settings = {"bf16": True, "eval_strategy": "epoch", "num_train_epochs": 2, "max_grad_norm": 0.0}
    build(METHODS["trades"](steps=1), model=model, data=data, evaluators={"task": evaluator}, **settings).train()
    assert seen == {"training": {torch.bfloat16}, "validation": {torch.float32}}
    assert len(logged) == 2
    assert all(found == by_another for found, by_another in logged)


def test_texts_are_validated_in_fp32_and_training_goes_on_in_bf16(
    build: Build, tiny_model: Callable[..., TextModel]
) -> None:
    model, data = tiny_model(), rows()
    seen, within = watched(next(m for m in model.modules() if isinstance(m, nn.Linear)))
    order: list[torch.dtype] = []

    def evaluator(model: AnyModel) -> dict[str, float]:
        order.extend(seen["training"])
        seen["training"].clear()
        return within(model, lambda: TaskEvaluator(data, ("accuracy",))(model))

    settings = {"bf16": True, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    build(METHODS["ce"](), model=model, evaluators={"task": evaluator}, **settings).train()
    assert order == [torch.bfloat16] * 3
    assert seen["validation"] == {torch.float32}


class Halved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_autocast_of_the_caller_is_off_inside_and_on_afterwards(dtype: torch.dtype) -> None:
    model, x = Halved(), torch.ones(1, 2)
    with torch.autocast("cpu", dtype=dtype):
        with without_autocast(model):
            assert model(x).dtype == torch.float32
        assert model(x).dtype == dtype
    model.forward = lambda x: model.linear(x) + 1  # type: ignore[method-assign]
    with without_autocast(model):  # one's own, and not accelerate's
        assert torch.equal(model(x), model.linear(x) + 1)
