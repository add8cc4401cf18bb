"""bf16 autocast and torch.compile on images: settings of the trainer, which change the figures by rounding alone."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from reference.bfloat16 import within_rounding
from torch import Tensor

from contraverse.data import ImageData
from contraverse.methods import METHODS
from contraverse.models import ImageModel
from contraverse.training import Trainer

Build = Callable[..., Trainer]
LABELS = ("dark", "light")


@pytest.fixture
def images() -> ImageData:
    random = np.random.default_rng(0)
    labels = np.arange(8) % 2
    pixels = random.integers(0, 100, (8, 3, 16, 16)) + 120 * labels[:, None, None, None]
    return ImageData.from_arrays(pixels.astype(np.uint8), labels, LABELS)


def trained(build: Build, images: ImageData, name: str, run: str, **settings: Any) -> tuple[list[float], ImageModel]:
    """The losses of two steps, the second with the weights and the statistics that the first left, and the model."""
    torch.manual_seed(0)
    model = ImageModel.from_pretrained("resnet8", labels=LABELS, dual=True)
    method = METHODS[name](steps=2)
    trainer = build(method, run, model=model, data=images, max_steps=2, **settings)
    trainer.train()
    assert not torch.is_autocast_enabled("cpu")  # which would run whatever comes next in half precision
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], model


@pytest.mark.parametrize("name", ["acl-ds", "trades"])
def test_bf16_is_close_to_fp32_and_keeps_weights_and_statistics_in_fp32(
    build: Build, images: ImageData, name: str
) -> None:
    seen: list[torch.dtype] = []
    losses, _ = trained(build, images, name, "fp32")
    torch_conv = torch.nn.Conv2d.forward

    def noted(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        out = torch_conv(self, x)
        seen.append(out.dtype)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", noted)
        halved, model = trained(build, images, name, "bf16", bf16=True)
    assert set(seen) == {torch.bfloat16}
    assert len(losses) == len(halved) == 2
    runs = count()
    exact, half = torch.tensor(losses), torch.tensor(halved)
    assert within_rounding(lambda: torch.tensor(trained(build, images, name, f"{next(runs)}")[0]), exact, half=half)
    assert halved != losses
    floating = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}
    assert all(value.isfinite().all() for value in floating)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # inductor's own imports
def test_compiled_equals_eager(build: Build, images: ImageData) -> None:
    losses, eager = trained(build, images, "acl-ds", "eager")
    frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found, compiled = trained(build, images, "acl-ds", "compiled", torch_compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > frames
    assert found == pytest.approx(losses, abs=1e-4)
    first, second = eager.state_dict(), compiled.state_dict()
    for key in first:
        if "running" in key:  # both sets: the compiled model goes the routes that the eager one goes
            torch.testing.assert_close(second[key], first[key], atol=1e-3, rtol=1e-3)
