"""DynACL: ACL's dual stream with annealed augmentations (Luo, Wang and Wang, 2023)."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from contraverse.attacks import Perturbation
from contraverse.errors import UserError
from contraverse.functional import processes
from contraverse.methods._settings import Momentum, Share, settings
from contraverse.methods._views import halves, single_row_eval
from contraverse.methods.acl_ds import TwoStreams
from contraverse.models.modes import attacking
from contraverse.types import Batch, BNBranch, Inputs, Loss, TrainingInfo


@settings
class DynACL(TwoStreams):
    """ACL's dual stream with augmentations that weaken during training, and a growing adversarial weight.

        s(t) = 1 - floor(t / K) K / T,   w(t) = lambda (1 - s(t))
        L    = (1 - w) l_NT(x_i, x_j) + (1 + w) l_NT(x_i + d_i, x_j + d_j)

    t is the epoch, counted from 0 by rows seen, of T. s is the strength of the random views (`augmentation_strength`),
    w moves weight to the adversarial stream. Streams, batch norms and attack are ACL's (``acl-ds``); as in the authors'
    code the second view goes through a momentum encoder theta_k, which the attack reaches and training does not:

        theta_k <- m theta_k + (1 - m) theta

    Weights alone are averaged. theta_k is in training mode, its batch norms normalize by the statistics of its own
    batches and have running ones of their own; the attack sees both networks in eval mode. theta_k is the network that
    is kept (`kept_model`): measured, saved, and fine-tuned later.

    Batch: images with a second view as ``positive``, or sentences (whose views have no strength: only w moves). Cost:
    2F for each view in each of the attack's ``steps``, and for each stream F + B, and F for the second view: 28F
    (32F without momentum).

    Departures: theta_k moves after the optimizer's step, in the authors' code before it. In their code w is one period
    ahead of s in the last epoch of each. They halve the loss: ``reduction="mean"``. A batch of a single row runs in
    eval mode. With several processes the batch-norm statistics of theta_k are each one's own, as those of theta are
    unless they are synchronized; the first process's are kept.
    """

    name = "dynacl"
    summary = "ACL's dual stream with annealed augmentations and a momentum encoder"
    paper = "DynACL"
    equation = "section 4 of DynACL"
    reference_mode = "train"
    test_settings = {"dynacl-alone": {"momentum": None, "steps": 2}, "dynacl-late": {"period": 1}}

    period: Annotated[int, Field(ge=1)] = 50
    """Epochs K between two strengths of the augmentations; the paper's value."""
    rate: Share = 2 / 3
    """Share lambda of the weight that moves to the adversarial stream by the end; the paper's value, 2/3."""
    momentum: Momentum | None = 0.99
    """Momentum m of theta_k; the value of the authors' code. null: both views go through the model, in one pass."""

    def setup(self) -> None:
        super().setup()
        self.cost = f"{4 * self.steps + (12 if self.momentum is None else 8)}F"
        self.needs_reference_model = self.momentum is not None
        self.rows, self.epochs = 0, 0.0
        self.seen: Tensor = nn.Buffer(torch.zeros((), dtype=torch.long))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move buffers to a device, except the count that every step reads: the host would have to wait for it."""
        on_host = self.seen
        super()._apply(fn, recurse)
        self.seen = on_host
        return self

    @property
    def augmentation_strength(self) -> float:  # type: ignore[override]
        """Strength s of the next step's views: 1 at first, never below 0."""
        if self.rows == 0:
            return 1.0
        epoch = int(self.seen) // self.rows
        return max(0.0, 1 - epoch // self.period * self.period / self.epochs)

    @property
    def weights(self) -> tuple[float, float]:
        """Weights 1 - w and 1 + w of the next step."""
        moved = self.rate * (1 - self.augmentation_strength)
        return 1 - moved, 1 + moved

    def prepare(self, training_info: TrainingInfo) -> None:
        """Store the lengths of an epoch and of training.

        Raises:
            UserError: the length of training is unknown.
        """
        super().prepare(training_info)
        if training_info.epochs is None:
            raise UserError("dynacl anneals over the whole training, whose length is unknown", hint="give epochs")
        self.rows, self.epochs = training_info.epoch_examples or training_info.num_examples, training_info.epochs
        self.seen.zero_()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move theta_k towards theta; its buffers, such as batch-norm statistics, are its own."""
        if self.momentum is None:
            return
        for averaged, current in zip(self.reference_model.parameters(), model.parameters(), strict=True):
            averaged.lerp_(current.to(averaged.dtype), 1 - self.momentum)

    def kept_model(self, model: nn.Module) -> nn.Module:
        """Network theta_k, which the authors keep; without momentum ``model``."""
        if self.momentum is None or not hasattr(self, "reference_model"):
            return model
        inner = getattr(self.reference_model, "_orig_mod", self.reference_model)  # inside torch.compile's wrapper
        assert isinstance(inner, nn.Module)
        return inner

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if self.rows == 0:
            raise ValueError("call prepare(training_info) before the first step (Trainer does)")
        strength = self.augmentation_strength
        for loss in super().losses(model, batch):
            yield Loss(loss.total, loss.parts | {"strength": torch.tensor(strength)})
        self.seen += len(batch["index"]) * processes()

    def attack(self, model: nn.Module, views: Batch) -> tuple[Perturbation, Inputs]:
        with attacking(self.reference_model) if hasattr(self, "reference_model") else nullcontext():
            return super().attack(model, views)

    def features(self, model: nn.Module, views: Batch, delta: Tensor | None, bn_branch: BNBranch) -> Tensor:
        if self.momentum is None:
            return super().features(model, views, delta, bn_branch)
        if not hasattr(self, "reference_model"):
            raise ValueError(
                "call set_reference_model(copy) before the first step (Trainer does), or set momentum=None"
            )
        rows = len(views["index"]) // 2
        (first, second), deltas = halves(views), (None, None) if delta is None else delta.split(rows)
        with single_row_eval(model, rows), single_row_eval(self.reference_model, rows):
            query = model(first, delta=deltas[0], want=("z",), bn_branch=bn_branch).z  # (B, Z)
            key = self.reference_model(second, delta=deltas[1], want=("z",), bn_branch=bn_branch).z  # (B, Z)
        return torch.cat([query, key]).float()  # (2B, Z)
