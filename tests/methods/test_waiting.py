"""Methods do not wait for the device: they read nothing from a tensor, and no result's size depends on values.

What transformers does in a forward is its own: with SDPA it looks once whether a mask has padding.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.driving import Watched, make, ready
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from contraverse.methods import CARL
from contraverse.models import TextModel
from contraverse.training import step

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.masked_select, aten.equal}


class Waiting(TorchDispatchMode):
    """Counts what would wait for a device if all tensors but ``host`` were on one."""

    def __init__(self, host: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.host, self.seen, self.paused = {value.data_ptr() for value in host}, list[str](), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        masked = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            place is not None and place.dtype == torch.bool for place in args[1]
        )
        if not self.paused and ((packet in WAITS and args[0].data_ptr() not in self.host) or masked):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Apart(Watched):
    """A model whose forward is not looked at."""

    waiting: Waiting | None = None

    def forward(self, batch: Any, **arguments: Any) -> Any:
        if self.waiting is not None:
            self.waiting.paused = True
        out = super().forward(batch, **arguments)
        if self.waiting is not None:
            self.waiting.paused = False
        return out


@pytest.mark.parametrize(
    "case",
    ["carl", "carl-current", "carl-start", "carl-rar", "scal-masked", "scal-positives", "cl-positives", "consert",
     "consert-cut", "consert-adversarial"],
)  # fmt: skip
def test_a_step_reads_nothing_back(case: str, tiny_model: Callable[..., TextModel], full_batch: dict[str, Any]) -> None:
    """Of CARL's phases the counters are on the host: they stay there when the method moves."""
    method = make(case)
    model = Apart(tiny_model(heads=method.heads).train())
    ready(method, model)
    host = (method.seen, method.begun) if isinstance(method, CARL) else ()
    with Waiting(host) as waiting:
        model.waiting = waiting
        step(method, model, full_batch, backward=lambda loss: loss.backward())
    assert waiting.seen == []


def test_counters_stay_on_the_host() -> None:
    method = CARL().to("meta")
    assert (method.seen.device.type, method.begun.device.type) == ("cpu", "cpu")
    assert method.log_z.device.type == "meta"
