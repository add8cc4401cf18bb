"""DynACL: ACL's dual stream with views that grow weaker (Luo, Wang and Wang, 2023)."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import Norm, gather, nt_xent
from contraverse.methods.acl import DualStream, Reduction, passing
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize, Temperature
from contraverse.types import Batch, Facts, Loss, Route

Period = Annotated[int, Field(ge=1, description="epochs between two strengths of the views")]
Rate = Annotated[float, Field(ge=0, le=1, description="how much weight moves to the adversarial stream by the end")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="how much the momentum encoder keeps at a step")] | None


class DynACL(DualStream):
    """Strong views first, to learn from; weak ones in the end, which are like what the model is tested on.

        s(t) = 1 - floor(t / K) K / T,   w(t) = lambda (1 - s(t))
        L    = (1 - w) l_NT(x_i, x_j) + (1 + w) l_NT(x_i + d_i, x_j + d_j)

    t is the epoch, counted from 0 by rows seen, of T. s is the strength of the random views (`strength`), w moves
    weight to the adversarial stream. Streams, batch norms and attack are ACL's (``acl-ds``); as in the authors' code
    the second view goes through a momentum encoder theta_k, which training does not reach and the attack does:

        theta_k <- m theta_k + (1 - m) theta

    Batch: images with a second view as ``positive``, or sentences (whose views have no strength: only w moves). Cost:
    2F for each view in each of the attack's ``steps``, and for each stream F + B, and F for the second view: 28F
    (32F without momentum).

    Departures: theta_k is in eval mode, and its batch norms' statistics are averaged as its weights are; in the
    authors' code they are its own. The model that is trained is kept, where they keep theta_k. In their code w is one
    period ahead of s in the last epoch of each. They halve the loss: ``reduction="mean"``.

    Args:
        period: K, epochs between two strengths, >= 1.
        rate: lambda, in [0, 1].
        momentum: m, in [0, 1); None: both views go through the model, in one pass.
        reduction: ``"sum"``, or ``"mean"``: half of it.
        temperature: t of NT-Xent, > 0.
        epsilon: largest norm of a perturbation, > 0, in pixels of [0, 1] (of the word embeddings, for sentences).
        step_size: length of one ascent, > 0, in the same units.
        steps: gradients of the attack, >= 1.
        norm: ``"linf"`` or ``"l2"``, of a whole image (of a whole sentence).
    """

    name = "dynacl"
    summary = "ACL's dual stream, with views and clean weight that are annealed"
    paper = "DynACL"
    equation = "section 4 of DynACL"

    seen: Tensor

    @validate_call
    def __init__(
        self,
        *,
        period: Period = 50,
        rate: Rate = 2 / 3,
        momentum: Momentum = 0.99,
        reduction: Reduction = "sum",
        temperature: Temperature = 0.5,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 5,
        norm: Norm = "linf",
    ) -> None:
        super().__init__(
            reduction=reduction,
            temperature=temperature,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            norm=norm,
        )
        self.period, self.rate, self.momentum = period, rate, momentum
        self.rows, self.epochs = 0, 0.0
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @property
    def cost(self) -> str:  # type: ignore[override]
        """4F for each ascent, and for each stream 4F, 6F without momentum."""
        return f"{4 * self.steps + (12 if self.momentum is None else 8)}F"

    @property
    def wants_copy(self) -> bool:  # type: ignore[override]
        """With a momentum encoder alone."""
        return self.momentum is not None

    @property
    def strength(self) -> float:  # type: ignore[override]
        """s of the next step's views: 1 at first, never below 0."""
        if self.rows == 0:
            return 1.0
        epoch = int(self.seen) // self.rows
        return max(0.0, 1 - epoch // self.period * self.period / self.epochs)

    @property
    def weights(self) -> tuple[float, float]:
        """1 - w and 1 + w of the next step."""
        moved = self.rate * (1 - self.strength)
        return 1 - moved, 1 + moved

    def prepare(self, facts: Facts) -> None:
        """Note how long an epoch and the training are.

        Raises:
            UserError: how long training is, is not known.
        """
        if facts.epochs is None:
            raise UserError("dynacl anneals over the whole training, and is not told its length", hint="give epochs")
        self.rows, self.epochs = facts.epoch_rows or facts.rows, facts.epochs
        self.seen.zero_()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """theta_k moves towards theta, and its statistics with it."""
        if self.momentum is None:
            return
        pairs = [(self.frozen.parameters(), model.parameters()), (self.frozen.buffers(), model.buffers())]
        for mine, theirs in pairs:
            for old, current in zip(mine, theirs, strict=True):
                if old.is_floating_point():
                    old.lerp_(current.to(old.dtype), 1 - self.momentum)
                else:
                    old.copy_(current)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if self.rows == 0:
            raise ValueError("call prepare(facts) before the first step (Trainer does)")
        strength = self.strength
        for loss in super().losses(model, batch):
            yield Loss(loss.total, loss.parts | {"strength": torch.tensor(strength)})
        self.seen += len(gather(batch["index"]))

    def contrast(self, model: nn.Module, views: Batch, delta: Tensor | None, route: Route) -> Tensor:
        if self.momentum is None:
            return super().contrast(model, views, delta, route)
        if not hasattr(self, "frozen"):
            raise ValueError("call receive(copy of the model) before the first step (Trainer does), or momentum=None")
        rows = len(views["index"]) // 2
        (first, second), deltas = halves(views), (None, None) if delta is None else delta.split(rows)
        with passing(model, rows):
            z = model(first, delta=deltas[0], want=("z",), route=route).z
        kept = self.frozen(second, delta=deltas[1], want=("z",), route=route).z
        return nt_xent(z, kept, self.temperature)


def halves(views: Batch) -> tuple[Batch, Batch]:
    """The first and the second views, from a batch of both."""
    rows = len(views["index"]) // 2
    return {name: value[:rows] for name, value in views.items()}, {k: value[rows:] for k, value in views.items()}
