"""BERT-flow (Li et al., 2020): an invertible map that makes the embeddings' distribution a standard normal one."""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.models.postprocess import DenseLayer, Postprocess, embeddings_of

if TYPE_CHECKING:
    from contraverse.models.text import TextModel


class _Step(nn.Module):
    """One step of Glow on vectors (N, width): actnorm, a fixed permutation, an additive coupling."""

    permutation: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.kept = width // 2
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.register_buffer("permutation", torch.randperm(width))
        self.inner = nn.Linear(self.kept, hidden)
        self.outer = nn.Linear(hidden, width - self.kept)
        nn.init.normal_(self.inner.weight, std=0.05)
        nn.init.zeros_(self.inner.bias)
        # Each step starts as the identity, as Glow's do.
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    @torch.no_grad()
    def centre(self, x: Tensor) -> None:
        """Set actnorm so that ``x`` leaves it with mean zero and variance one."""
        std = x.std(0, correction=0)
        self.log_scale.copy_(-torch.where(std > 0, std, 1.0).log())
        self.shift.copy_(-x.mean(0) * self.log_scale.exp())

    def forward(self, x: Tensor) -> Tensor:
        x = (x * self.log_scale.exp() + self.shift)[:, self.permutation]
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        return torch.cat([kept, moved + self.outer(F.relu(self.inner(kept)))], 1)

    def inverse(self, z: Tensor) -> Tensor:
        kept, moved = z[:, : self.kept], z[:, self.kept :]
        x = torch.cat([kept, moved - self.outer(F.relu(self.inner(kept)))], 1)
        return (x[:, self.permutation.argsort()] - self.shift) * (-self.log_scale).exp()


class Flow(Postprocess):
    """Glow on vectors: levels of ``depth`` steps each; after every level but the last, half of the dimensions leave.

    Every part has a standard normal prior. Only actnorm changes volumes, so that log |det| is the sum of its scales.

    Args:
        width: D, of the embeddings, at least 2.
        levels: how many; there are fewer where the dimensions do not last.
        depth: steps of a level.
        hidden: units of a coupling's one hidden layer.
    """

    name = "flow"

    def __init__(self, width: int, levels: int = 3, depth: int = 3, hidden: int = 32) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"width": width, "levels": levels, "depth": depth, "hidden": hidden}
        self.width = width
        self.stack = nn.ModuleList()
        while len(self.stack) < levels and width >= 2:
            self.stack.append(nn.ModuleList(_Step(width, hidden) for _ in range(depth)))
            width -= width // 2

    @property
    def levels(self) -> list[list[_Step]]:
        """The steps of each level, first to last."""
        return [[cast(_Step, step) for step in cast(nn.ModuleList, steps)] for steps in self.stack]

    def forward(self, x: Tensor) -> Tensor:
        """``z`` (N, D), in the order in which the parts leave."""
        return self._run(x, centre=False)

    @torch.no_grad()
    def centre(self, x: Tensor) -> None:
        """Set every actnorm from ``x`` (N, D), first to last."""
        self._run(x, centre=True)

    def _run(self, x: Tensor, centre: bool) -> Tensor:
        left = []
        for i, steps in enumerate(self.levels):
            if i > 0:
                left.append(x[:, : x.shape[1] // 2])
                x = x[:, x.shape[1] // 2 :]
            for step in steps:
                if centre:
                    step.centre(x)
                x = step(x)
        return torch.cat([*left, x], 1)

    def inverse(self, z: Tensor) -> Tensor:
        """The ``x`` (N, D) that gives ``z``."""
        sizes = [steps[0].shift.numel() for steps in self.levels]
        x = z[:, z.shape[1] - sizes[-1] :]
        for i in reversed(range(len(sizes))):
            for step in reversed(self.levels[i]):
                x = step.inverse(x)
            if i > 0:
                first = z.shape[1] - sizes[i - 1]
                x = torch.cat([z[:, first : first + sizes[i - 1] - sizes[i]], x], 1)
        return x

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x) of each row (N,), exactly: ``log N(z; 0, 1) + log |det dz/dx|``, eq. (1)."""
        scales = [step.log_scale.sum() for steps in self.levels for step in steps]
        normal = -0.5 * self(x).square().sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)
        return normal + torch.stack(scales).sum()

    @torch.no_grad()
    def dense_layers(self) -> list[DenseLayer]:
        """Between two ReLUs the flow is affine; a value ``x`` passes one as the pair relu(x), relu(-x)."""
        size = self.width
        identity, nothing = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        # What the last ReLU left, ``seen``, gives the current values as ``weight @ seen + bias``.
        weight, bias = identity.clone(), nothing.clone()
        layers = []
        for step in (step for steps in copy.deepcopy(self).cpu().double().levels for step in steps):
            here = slice(size - step.shift.numel(), size)  # what left earlier stays as it is
            kept, moved = (slice(here.start + a, here.start + b) for a, b in ((0, step.kept), (step.kept, size)))
            scale = step.log_scale.exp()
            weight[here] = (scale.unsqueeze(1) * weight[here])[step.permutation]
            bias[here] = (scale * bias[here] + step.shift)[step.permutation]
            inner = torch.cat([identity, -identity, F.pad(step.inner.weight, (kept.start, size - kept.stop))])
            at = torch.cat([nothing, nothing, step.inner.bias])
            layers.append(DenseLayer((inner @ weight).float(), (inner @ bias + at).float(), relu=True))
            weight = torch.cat([identity, -identity, torch.zeros(size, len(step.inner.bias)).double()], 1)
            weight[moved, 2 * size :] = step.outer.weight
            bias = nothing.clone()
            bias[moved] = step.outer.bias
        return [*layers, DenseLayer(weight.float(), bias.float())]


def fit_flow(
    model: "TextModel",
    sentences: Sequence[str],
    *,
    levels: int = 3,
    depth: int = 3,
    hidden: int = 32,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    seed: int = 0,
    batch_size: int = 64,
) -> Flow:
    """The flow that makes ``model``'s embeddings of ``sentences`` most likely; the encoder stays as it is.

    Give training sentences: what is fitted on test sentences has seen the test. Set the result as
    ``model.postprocess``. Runs in fp64 on the CPU.

    Args:
        model: a sentence encoder without a ``postprocess``.
        sentences: two or more; many times as many as there are dimensions give steadier figures.
        levels, depth, hidden: see `Flow`; the defaults are the authors'.
        epochs: passes over the embeddings.
        learning_rate: Adam's.
        seed: of the permutations, the first weights and the order of the sentences.
        batch_size: sentences at a time, in encoding and in training.

    Raises:
        UserError: the model has a ``postprocess`` already, or there are fewer than two sentences.
    """
    x = torch.from_numpy(embeddings_of(model, sentences, batch_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = Flow(x.shape[1], levels, depth, hidden).double()
        flow.centre(x)
        optimizer = torch.optim.Adam(flow.parameters(), learning_rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(batch_size):
                optimizer.zero_grad()
                (-flow.log_likelihood(x[rows]).mean() / x.shape[1]).backward()
                optimizer.step()
    return flow.requires_grad_(False).float().to(model.device)
