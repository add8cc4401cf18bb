"""DynACL: ACL's dual stream with views that grow weaker (Luo, Wang and Wang, 2023)."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import Perturbation
from contraverse.errors import UserError
from contraverse.functional import Norm, gather
from contraverse.methods.acl import DualStream, Reduction, passing
from contraverse.methods.settings import (
    EPSILON,
    STEP_SIZE,
    Epsilon,
    HeadDim,
    HeadLayers,
    Steps,
    StepSize,
    Temperature,
)
from contraverse.models.modes import attacking
from contraverse.types import Batch, BNBranch, Inputs, Loss, TrainingInfo

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

    Weights alone are averaged. theta_k is in training mode, its batch norms normalise by the statistics of its own
    batches and have running ones of their own; the attack sees both networks in eval mode. theta_k is what is kept
    (`kept_model`): measured, saved, and fine-tuned later.

    Batch: images with a second view as ``positive``, or sentences (whose views have no strength: only w moves). Cost:
    2F for each view in each of the attack's ``steps``, and for each stream F + B, and F for the second view: 28F
    (32F without momentum).

    Departures: theta_k moves after the optimizer's step, in the authors' code before it. In their code w is one period
    ahead of s in the last epoch of each. They halve the loss: ``reduction="mean"``. A batch of a single row goes
    through in eval mode. Of several processes the statistics of theta_k are each one's own, as those of theta are
    unless they are synchronised; the first process's are kept.

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
        head_layers: linear layers of the projection head, >= 1.
        head_dim: width of what the head gives, >= 1; None: the encoder's.
    """

    name = "dynacl"
    summary = "ACL's dual stream, with views and clean weight that are annealed"
    paper = "DynACL"
    equation = "section 4 of DynACL"
    reference_mode = "train"

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
        head_layers: HeadLayers = 3,
        head_dim: HeadDim = None,
    ) -> None:
        super().__init__(
            reduction=reduction,
            temperature=temperature,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            norm=norm,
            head_layers=head_layers,
            head_dim=head_dim,
        )
        self.period, self.rate, self.momentum = period, rate, momentum
        self.rows, self.epochs = 0, 0.0
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @property
    def cost(self) -> str:  # type: ignore[override]
        """4F for each ascent, and for each stream 4F, 6F without momentum."""
        return f"{4 * self.steps + (12 if self.momentum is None else 8)}F"

    @property
    def needs_reference_model(self) -> bool:  # type: ignore[override]
        """With a momentum encoder alone."""
        return self.momentum is not None

    @property
    def augmentation_strength(self) -> float:  # type: ignore[override]
        """s of the next step's views: 1 at first, never below 0."""
        if self.rows == 0:
            return 1.0
        epoch = int(self.seen) // self.rows
        return max(0.0, 1 - epoch // self.period * self.period / self.epochs)

    @property
    def weights(self) -> tuple[float, float]:
        """1 - w and 1 + w of the next step."""
        moved = self.rate * (1 - self.augmentation_strength)
        return 1 - moved, 1 + moved

    def prepare(self, training_info: TrainingInfo) -> None:
        """Note how long an epoch and the training are.

        Raises:
            UserError: how long training is, is not known.
        """
        if training_info.epochs is None:
            raise UserError("dynacl anneals over the whole training, and is not told its length", hint="give epochs")
        self.rows, self.epochs = training_info.epoch_examples or training_info.num_examples, training_info.epochs
        self.seen.zero_()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """theta_k moves towards theta; its buffers, batch norms' statistics among them, are its own."""
        if self.momentum is None:
            return
        for averaged, current in zip(self.reference_model.parameters(), model.parameters(), strict=True):
            averaged.lerp_(current.to(averaged.dtype), 1 - self.momentum)

    def kept_model(self, model: nn.Module) -> nn.Module:
        """theta_k, as the authors keep; without momentum ``model``."""
        if self.momentum is None or not hasattr(self, "reference_model"):
            return model
        whole = getattr(
            self.reference_model, "_orig_mod", self.reference_model
        )  # inside what torch.compile makes of it
        assert isinstance(whole, nn.Module)
        return whole

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if self.rows == 0:
            raise ValueError("call prepare(facts) before the first step (Trainer does)")
        augmentation_strength = self.augmentation_strength
        for loss in super().losses(model, batch):
            yield Loss(loss.total, loss.parts | {"strength": torch.tensor(augmentation_strength)})
        self.seen += len(gather(batch["index"]))

    def attack(self, model: nn.Module, views: Batch) -> tuple[Perturbation, Inputs]:
        with attacking(self.reference_model) if hasattr(self, "reference_model") else nullcontext():
            return super().attack(model, views)

    def features(self, model: nn.Module, views: Batch, delta: Tensor | None, bn_branch: BNBranch) -> Tensor:
        if self.momentum is None:
            return super().features(model, views, delta, bn_branch)
        if not hasattr(self, "reference_model"):
            raise ValueError("call receive(copy of the model) before the first step (Trainer does), or momentum=None")
        rows = len(views["index"]) // 2
        (first, second), deltas = halves(views), (None, None) if delta is None else delta.split(rows)
        with passing(model, rows), passing(self.reference_model, rows):
            query = model(first, delta=deltas[0], want=("z",), bn_branch=bn_branch).z
            key = self.reference_model(second, delta=deltas[1], want=("z",), bn_branch=bn_branch).z
        return torch.cat([query, key]).float()


def halves(views: Batch) -> tuple[Batch, Batch]:
    """The first and the second views, from a batch of both."""
    rows = len(views["index"]) // 2
    return {name: value[:rows] for name, value in views.items()}, {k: value[rows:] for k, value in views.items()}
