"""Gradient checkpointing: the same gradients for less memory, or a reason why not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.driving import gradients, make
from reference.tiny import LABELS, rows
from torch import nn

from contraverse.errors import UserError
from contraverse.methods import SCAL
from contraverse.models import ImageModel, TextModel
from contraverse.training import Trainer


@pytest.mark.parametrize("case", ["ce", "scal", "freelb", "carl"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_gradients_are_the_same(
    tiny_model: Callable[..., TextModel], full_batch: Any, case: str, architecture: str
) -> None:
    found = []
    for recompute in (False, True):
        method = make(case)
        model = tiny_model(architecture, dropout=0.1, heads=method.heads).train()
        if recompute:
            model.activation_checkpointing_enable()
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        torch.manual_seed(5)
        found.append(gradients(method, model, full_batch))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=0, msg=name)


def test_layers_run_again_in_the_backward_pass(tiny_model: Callable[..., TextModel], batch: Any) -> None:
    model = tiny_model(dropout=0.0).train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    runs: list[int] = []
    layer = model.encoder.base_model.encoder.layer[0].intermediate.dense
    layer.register_forward_hook(lambda *_: runs.append(1))
    model(batch).logits.sum().backward()
    assert len(runs) == 2
    model.activation_checkpointing_disable()
    model(batch).logits.sum().backward()
    assert len(runs) == 3


def test_what_gives_no_gradient_to_inputs_is_refused(tiny_model: Callable[..., TextModel]) -> None:
    with pytest.raises(UserError, match="reentrant"):
        tiny_model().activation_checkpointing_enable({"use_reentrant": True})


@pytest.mark.parametrize("dual", [False, True])
def test_batch_norm_is_refused_with_a_reason(dual: bool) -> None:
    with pytest.raises(UserError, match="batch norm"):
        ImageModel.from_pretrained("resnet8", labels=["a", "b"], dual=dual).activation_checkpointing_enable()


def test_a_backbone_that_can_does() -> None:
    asked: list[bool] = []

    class Backbone(nn.Flatten):
        def set_grad_checkpointing(self, on: bool) -> None:
            asked.append(on)

    ImageModel(Backbone(), 12).activation_checkpointing_enable()
    assert asked == [True]
    with pytest.raises(UserError, match="cannot recompute"):
        ImageModel(nn.Flatten(), 12).activation_checkpointing_enable()


def test_the_trainer_switches_it_on(tiny_model: Callable[..., TextModel], tmp_path: Any) -> None:
    model = tiny_model(labels=LABELS)
    trainer = Trainer(
        model, SCAL(), rows(8), output_dir=tmp_path, activation_checkpointing=True, max_steps=1, report_to="none"
    )
    trainer.train()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
