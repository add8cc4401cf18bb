"""Accuracy under k-step PGD on the word embeddings, over a list of radii."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import EmbeddingBall, perturbable, pgd
from contraverse.data import EncodedText, TextData
from contraverse.errors import UserError
from contraverse.evaluation.metrics import accuracy
from contraverse.evaluation.predict import Progress, batches, encode_data, labels_of, logits_of, predict
from contraverse.functional import Norm, norm
from contraverse.models import TextModel, evaluating
from contraverse.types import Batch


@dataclass(frozen=True)
class PGDSettings:
    """How hard each radius is attacked; see `robust_accuracy`."""

    norm: Norm = "l2"
    steps: int = 5
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = False
    relative: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "linf"):
            raise UserError(f"no norm is called {self.norm!r}", hint="use l2 or linf")
        if self.steps < 1 or self.restarts < 1:
            raise UserError(f"steps and restarts must be at least 1, not {self.steps} and {self.restarts}")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise UserError(f"step_size must be positive, not {self.step_size}")

    def step_at(self, epsilon: float) -> float:
        """The step size at this radius: 2.5 epsilon / steps, as Madry et al. (2018), unless it is set."""
        return 2.5 * epsilon / self.steps if self.step_size is None else self.step_size


@dataclass(frozen=True)
class Attacked:
    """What one radius did.

    Attributes:
        accuracy: percent of all N rows that no perturbation tried inside this radius, or a smaller one, broke.
        correct: (N,) bool, the same for each row.
        relative_size: mean of ||delta|| / ||E|| over the rows attacked at this radius, both in the attack's norm
            and over a whole sequence: delta of largest loss in the row's last restart, E its real tokens' embeddings.
            The same epsilon is another relative size in a model whose embeddings are shorter (ALBERT's have 128
            dimensions). None where no row was left to attack.
        attacked: how many rows were attacked at this radius: right clean, and not broken at a smaller one.
        dead_gradients: how many gradients, over rows, steps and restarts, were zero or not finite. Many of them
            mean that the loss is saturated and the attack blind: the accuracy is then no evidence.
    """

    accuracy: float
    correct: np.ndarray = field(repr=False)
    relative_size: float | None
    attacked: int
    dead_gradients: int


@dataclass(frozen=True)
class RobustReport:
    """Robust accuracy at each radius, in percent, and what is needed to trust and to repeat it.

    Attributes:
        clean_accuracy: percent of rows right without an attack.
        clean_correct: (N,) bool, the same for each row.
        at: what each epsilon did, ascending.
        settings: of the attack.
    """

    clean_accuracy: float
    clean_correct: np.ndarray = field(repr=False)
    at: dict[float, Attacked]
    settings: PGDSettings

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.clean_correct)

    @property
    def metrics(self) -> dict[str, float]:
        """``accuracy`` and ``accuracy@pgd-<epsilon>``, in percent."""
        return {"accuracy": self.clean_accuracy} | {
            f"accuracy@pgd-{e:g}": found.accuracy for e, found in self.at.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without the arrays of single rows."""
        s = self.settings
        return {
            "attack": {"name": "pgd", **vars(s)},
            "n": self.n,
            "accuracy": self.clean_accuracy,
            "at": [
                {
                    "epsilon": epsilon,
                    "step_size": s.step_at(epsilon),
                    "accuracy": found.accuracy,
                    "relative_size": found.relative_size,
                    "attacked": found.attacked,
                    "dead_gradients": found.dead_gradients,
                }
                for epsilon, found in self.at.items()
            ],
        }


def robust_accuracy(
    model: TextModel,
    data: TextData | EncodedText,
    epsilons: Sequence[float],
    *,
    norm: Norm = "l2",
    steps: int = 5,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = False,
    batch_size: int = 64,
    relative: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> RobustReport:
    """Accuracy when PGD (Madry et al., 2018) perturbs each row's word embeddings within ``epsilon``.

    The attack climbs the cross-entropy of each row in eval mode. A row counts as broken when *any* iterate,
    the start and the last one included, of any restart is classified wrongly; so do rows that are wrong
    clean, and rows broken at a smaller radius (their perturbation lies in the larger ball too). Neither is
    attacked again: the result is the same as if they were, and cheaper. White-box and untargeted.

    Args:
        model: a classifier. Its weights, their ``.grad``, its mode and the global random state are left as they were.
        data: labelled rows.
        epsilons: radii >= 0, of the whole sequence's perturbation; 0 is the clean accuracy.
        norm: ``"l2"`` of the flattened (T, D) perturbation, or ``"linf"`` per coordinate.
        steps: gradient steps per restart, >= 1. A restart costs 2 * steps + 1 forward-units.
        step_size: length of a step, in the units of ``epsilons``; None is 2.5 epsilon / steps.
        restarts: attempts on each row that is still right; the second and later start at random.
        random_start: whether the first does too; it starts from zero otherwise.
        batch_size: rows a batch.
        relative: read ``epsilons`` and ``step_size`` as fractions of each row's own ||E||, E the word embeddings.
        seed: of the random starts, which repeat for the same data and batch size.
        progress: told the rows settled; they add up to N * (1 + restarts * number of epsilons > 0).

    Raises:
        UserError: no labels, a regression, labels that the model does not know, or an impossible setting.
    """
    settings = PGDSettings(norm, steps, step_size, restarts, random_start, relative, seed)
    for epsilon in epsilons:
        if not 0 <= epsilon < math.inf:
            raise UserError(f"epsilon must be a finite number >= 0, not {epsilon}")
    encoded = encode_data(model, data)
    labels = labels_of(encoded)
    logits = predict(model, encoded, batch_size, progress=progress)
    if logits.shape[1] < 2:
        raise UserError(
            "robust accuracy is for classification, and this model is a regression",
            hint="leave the epsilons out",
        )
    clean_accuracy = accuracy(logits, labels)
    clean_correct = logits.argmax(1) == labels

    correct, at = clean_correct, {}
    with evaluating(model), frozen(model), seeded(seed):
        for epsilon in sorted({float(e) for e in epsilons}):
            found = _attack_survivors(model, encoded, correct, epsilon, settings, batch_size, progress)
            at[epsilon], correct = found, found.correct
    return RobustReport(clean_accuracy, clean_correct, at, settings)


def _attack_survivors(
    model: TextModel,
    data: EncodedText,
    correct: np.ndarray,
    epsilon: float,
    settings: PGDSettings,
    batch_size: int,
    progress: Progress | None,
) -> Attacked:
    """Attack the rows that are still ``correct`` (N,), restart by restart."""
    if epsilon == 0:
        return Attacked(100 * float(correct.mean()), correct, None, 0, 0)
    attacked, correct = correct, correct.copy()
    relative_size, dead = np.zeros(len(correct)), 0
    for restart in range(settings.restarts):
        survivors = np.flatnonzero(correct)
        if progress:
            progress(len(correct) - len(survivors))
        random = settings.random_start or restart > 0
        for rows, batch in batches(model, data, survivors, batch_size):
            broken, relative_size[rows], blind = _attack_batch(model, batch, epsilon, settings, random)
            correct[rows] = ~broken
            dead += blind
            if progress:
                progress(len(rows))
    size = float(relative_size[attacked].mean()) if attacked.any() else None
    return Attacked(100 * float(correct.mean()), correct, size, int(attacked.sum()), dead)


def _attack_batch(
    model: TextModel, batch: Batch, epsilon: float, settings: PGDSettings, random: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """One restart on one batch: which rows broke (B,), ||delta|| / ||E|| of each (B,), number of dead gradients."""
    labels, inputs = batch["labels"], perturbable(model, batch)
    length = norm(inputs.values * inputs.mask, settings.norm)
    unit = length if settings.relative else torch.ones_like(length)
    ball = EmbeddingBall(epsilon * unit, settings.step_at(epsilon) * unit, settings.norm)
    broken = torch.zeros_like(labels, dtype=torch.bool)

    def loss_of(delta: Tensor) -> Tensor:
        logits = logits_of(model, batch, delta)
        # PGD keeps the iterate of largest loss, which with three classes need not be one that is wrong.
        broken.logical_or_(logits.detach().argmax(-1) != labels)
        return F.cross_entropy(logits, labels, reduction="none")

    attack = pgd(loss_of, ball, inputs, steps=settings.steps, random_start=random)
    relative_size = (norm(attack.delta, settings.norm) / length.clamp(min=torch.finfo(length.dtype).tiny)).flatten()
    return broken.cpu().numpy(), relative_size.cpu().numpy(), int(attack.dead)


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
