"""Attacking rows of a data set: what every evaluation under attack shares."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import (
    AttackSettings,
    NormBall,
    Objective,
    count_zero_grad_rows,
    dlr,
    margin,
    perturbation_inputs,
)
from contraverse.data import Encoded
from contraverse.evaluation.predict import Progress, labels_of, logits_of, map_batches
from contraverse.functional import Norm, norm
from contraverse.models import AnyModel, ImageModel
from contraverse.types import Batch, Inputs

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
    "margin": margin,
    "dlr": dlr,
}
"""Losses that an attack maximizes, one value per row: from logits (B, C) and labels (B,)."""

Decide = Callable[[Tensor], Tensor]
"""Class (B,) of each row, from logits (B, C)."""


def most_probable(logits: Tensor) -> Tensor:
    """Class of the largest logit."""
    return logits.argmax(-1)


@dataclass(frozen=True)
class AttackResult:
    """Result of an attack on some of the N rows of a data set.

    Attributes:
        still_correct: (N,) bool: attacked, and right under every perturbation tried.
        predicted: (N,) the class at the first perturbation that broke a row; the row's label where none did.
        relative_size: (N,) ||delta|| / ||E|| of the perturbation of largest loss in the last attempt; 0 where a row
            was not attacked.
        gradients: how many were taken with each loss, over rows, steps and restarts.
        zero_grad_rows: how many of them were zero or not finite, on rows that were still right.
    """

    still_correct: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    relative_size: np.ndarray = field(repr=False)
    gradients: dict[str, int]
    zero_grad_rows: dict[str, int]


@dataclass(frozen=True)
class SeededBall(NormBall):
    """A ball whose random starts are each row's own: the same whatever rows and padding share the batch.

    ``seeds``: one for each row. Drawn on the CPU, so that they are the same on every device.
    """

    seeds: tuple[int, ...] = ()

    def init(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        if not random or self.epsilon is None:
            return super().init(inputs, random=random)
        delta, free = torch.zeros_like(inputs.values), inputs.mask.expand_as(inputs.values)
        for i, seed in enumerate(self.seeds):
            there = torch.zeros(1, int(free[i].sum()))
            torch.manual_seed(seed)
            unit = NormBall(1.0, 0.0, self.norm).init(Inputs(there, torch.ones_like(there) > 0), random=True)
            delta[i][free[i]] = unit[0].detach().to(delta)
        return self._leaf(delta * self.epsilon, inputs)


def ball_of(inputs: Inputs, rows: np.ndarray, epsilon: float, settings: AttackSettings, attempt: int) -> SeededBall:
    """The ball of each row; ``rows`` are their numbers in the data set, which with ``attempt`` seed its starts."""
    length = norm(inputs.values * inputs.mask, settings.norm)
    unit = length if settings.relative else torch.ones_like(length)
    keys = ([settings.seed, attempt, int(row)] for row in rows)
    seeds = tuple(int(np.random.SeedSequence(key).generate_state(1)[0]) for key in keys)
    return SeededBall(epsilon * unit, settings.first_step(epsilon) * unit, settings.norm, seeds=seeds)


def attack_rows(
    model: AnyModel,
    data: Encoded,
    rows: np.ndarray,
    epsilon: float,
    settings: AttackSettings,
    batch_size: int,
    progress: Progress | None = None,
    decide: Decide = most_probable,
) -> AttackResult:
    """Attack ``rows`` (their numbers), attempt by attempt, each on those that the ones before left right.

    An image drops out of the attempt, too, as soon as it is broken. A sentence does not: how large its perturbation is
    relative to it, which encoders are compared by, is of the whole attempt. The model has to be in eval mode and
    `frozen`, inside `seeded`. ``progress`` is called with ``len(rows)`` rows an attempt. ``decide`` gives the class of
    each row from logits (B, C).
    """
    still_correct = np.zeros(len(data), dtype=bool)
    still_correct[rows] = True
    predicted = labels_of(data).copy()
    relative_size, losses = np.zeros(len(data)), settings.losses(len(model.labels or ()))
    gradients, zero_grad_rows = dict.fromkeys(losses, 0), dict.fromkeys(losses, 0)
    for attempt in range(settings.restarts * len(losses)):
        loss, random = losses[attempt // settings.restarts], settings.random_start or attempt % settings.restarts > 0
        survivors = np.flatnonzero(still_correct)
        if progress:
            progress(len(rows) - len(survivors))
        attempt_on = partial(_attempt, model, epsilon, settings, attempt, loss, random, decide)
        for chosen, result in map_batches(model, data, survivors, batch_size, attempt_on, progress):
            still_correct[chosen], predicted[chosen] = ~result.broken, result.predicted
            relative_size[chosen] = result.relative_size
            gradients[loss] += result.gradients
            zero_grad_rows[loss] += result.zero_grad_rows
    return AttackResult(still_correct, predicted, relative_size, gradients, zero_grad_rows)


class _Attempt(NamedTuple):
    """`BatchAttackResult` in the host's memory, with ||delta|| / ||E|| (B,) in the place of the perturbation."""

    broken: np.ndarray
    predicted: np.ndarray
    relative_size: np.ndarray
    gradients: int
    zero_grad_rows: int


def _attempt(
    model: AnyModel,
    epsilon: float,
    settings: AttackSettings,
    attempt: int,
    loss: str,
    random: bool,
    decide: Decide,
    rows: np.ndarray,
    batch: Batch,
) -> _Attempt:
    """One attempt on the rows of these numbers."""
    inputs = perturbation_inputs(model, batch)
    ball = ball_of(inputs, rows, epsilon, settings, attempt)
    attacked = attack_batch(
        model, batch, inputs, ball, settings, loss, random, drop=isinstance(model, ImageModel), decide=decide
    )
    size = relative_sizes(attacked.delta, inputs, settings.norm)
    broken, predicted = attacked.broken.cpu().numpy(), attacked.predicted.cpu().numpy()
    return _Attempt(broken, predicted, size.cpu().numpy(), attacked.gradients, attacked.zero_grad_rows)


class BatchAttackResult(NamedTuple):
    """Result of one attempt on one batch.

    Attributes:
        broken: (B,) bool, the rows that broke.
        predicted: (B,) the class at the first perturbation that broke a row; its label where none did.
        delta: (B, T, D) the perturbation of largest loss.
        gradients: number of gradients, summed over rows.
        zero_grad_rows: number of those that were zero or not finite, on a row that was still right.
    """

    broken: Tensor
    predicted: Tensor
    delta: Tensor
    gradients: int
    zero_grad_rows: int


def attack_batch(
    model: AnyModel,
    batch: Batch,
    inputs: Inputs,
    ball: NormBall,
    settings: AttackSettings,
    loss: str,
    random: bool,
    *,
    drop: bool = False,
    decide: Decide = most_probable,
) -> BatchAttackResult:
    """One attempt on one batch.

    A row is broken where *any* point that was evaluated is classified wrongly: of three classes, the one of largest
    loss need not be. A gradient that dies on a row that is broken by then is not counted: DLR is flat there.

    Args:
        drop: a row that is broken is not run through the model again. Which rows break stays the same, for each goes
            its own way; their perturbations are those of largest loss until then.
        decide: gives the class of each row (B,) from logits (B, C).
    """
    labels, of_logits, taken, blind = batch["labels"], LOSSES[loss], 0, 0
    broken, predicted = torch.zeros_like(labels, dtype=torch.bool), labels.clone()  # (B,) each

    def loss_of(delta: Tensor) -> Tensor | Objective:
        nonlocal taken
        left = (~broken).nonzero().squeeze(1) if drop else torch.arange(len(labels), device=labels.device)
        if delta.requires_grad and torch.is_grad_enabled():
            taken += len(left)
            delta.register_hook(count)
        # A row that is left out never has the largest loss; the sum only ties it to delta, with a gradient of zero.
        losses = 0 * delta.flatten(1).sum(1, dtype=torch.float32) - math.inf
        if not len(left):
            return losses
        whole = len(left) == len(labels)
        some = batch if whole else _only(batch, left)
        logits = logits_of(model, some, delta if whole else delta[left], bn_branch=settings.bn_branch)
        classes = decide(logits.detach())
        predicted[left] = torch.where(broken[left], predicted[left], classes)
        broken[left] |= classes != labels[left]
        if whole:
            return Objective(of_logits(logits, labels), logits)
        every = torch.zeros(len(labels), logits.shape[1], device=logits.device).index_put((left,), logits)  # (B, C)
        return Objective(losses.index_put((left,), of_logits(every[left], labels[left])), every)

    def count(gradient: Tensor) -> None:
        nonlocal blind
        blind += int(
            count_zero_grad_rows(torch.where(broken.reshape(-1, *[1] * (gradient.dim() - 1)), 1.0, gradient), inputs)
        )

    delta = settings.spec.load()(loss_of, ball, inputs, steps=settings.steps, random_start=random).delta
    return BatchAttackResult(broken, predicted, delta, taken, blind)


def _only(batch: Batch, rows: Tensor) -> Batch:
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in batch.items()}


def relative_sizes(delta: Tensor, inputs: Inputs, kind: Norm) -> Tensor:
    """||delta|| / ||E|| of each row (B,), E the embeddings of its real tokens."""
    length = norm(inputs.values * inputs.mask, kind)
    return (norm(delta, kind) / length.clamp(min=torch.finfo(length.dtype).tiny)).flatten()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient inside, so that none is computed."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The random state that ``seed`` gives inside, on every device; the one from before afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
