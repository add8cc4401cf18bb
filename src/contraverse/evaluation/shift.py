"""Movement of a text's representation under attack: Table 4 of CARL/RAR."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.attacks import AttackSettings, NormBall, Objective, margin, perturbation_inputs
from contraverse.data import Rows
from contraverse.errors import UserError
from contraverse.evaluation.attack_loop import attack_batch, ball_of, frozen, seeded
from contraverse.evaluation.predict import Progress, encode_data, map_batches
from contraverse.models import AnyModel, attacking
from contraverse.types import Batch, BNBranch, Inputs

Climbed = Literal["class", "distance"]


@dataclass(frozen=True)
class Shift:
    """Result at one radius: ``cosine`` similarity and ``euclidean`` distance of h(x) and h(x_adv), (N,) each."""

    cosine: np.ndarray = field(repr=False)
    euclidean: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class ShiftReport:
    """Movement of the representations at each radius.

    Attributes:
        at: results by epsilon, ascending.
        settings: of the attack.
        climbed: ``"class"``: the attack climbed the classification loss; ``"distance"``: ||h(x_adv) - h(x)||^2.
        between: mean Euclidean distance between the means of h of two classes, over the pairs of classes that have
            rows; None without labels, or of one class. A distance in this unit can be compared across models.
    """

    at: dict[float, Shift]
    settings: AttackSettings
    climbed: Climbed
    between: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: means over the rows; ``relative``: the Euclidean distance in units of ``between``."""
        relative = {
            epsilon: {"relative": float(shift.euclidean.mean()) / self.between} if self.between else {}
            for epsilon, shift in self.at.items()
        }
        return {
            "between_classes": self.between,
            "attack": self.settings.to_dict(),
            "climbed": self.climbed,
            "at": [
                {"epsilon": epsilon, "cosine": float(shift.cosine.mean()), "euclidean": float(shift.euclidean.mean())}
                | relative[epsilon]
                for epsilon, shift in self.at.items()
            ],
        }


def representation_shift(
    model: AnyModel,
    data: Rows,
    epsilons: Sequence[float],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    **attack: Any,
) -> ShiftReport:
    """Cosine similarity and Euclidean distance of h(x) and h(x_adv): Table 4 and section 4.5 of CARL/RAR.

    h is the pooled feature, not normalised: the distances of the table, 8.4 at a cosine of .85, are those of vectors
    of length 15. Every row is attacked at every radius from the beginning, rows that are wrong clean included. The
    attack is that of `contraverse.evaluation.robust_accuracy`; of its attempts, the perturbation with the largest
    logit margin ``max_{i != y} z_i - z_y`` counts.

    A model without classes, or data without labels, is attacked by climbing the squared distance ||h(x_adv) - h(x)||^2
    itself, and the largest distance counts. Its gradient is zero at x, so that every restart then begins at random.
    These figures cannot be compared with those of an attack on a classification loss.

    Costs a row and radius ``attempts * (2 * steps + 2)`` forward-units, and once 1 for h(x).

    Args:
        model: a classifier or a sentence encoder; left as it was, the global random state too.
        data: rows; their labels are used where the model has classes.
        epsilons: radii > 0.
        batch_size: rows a batch.
        progress: called with the number of rows done; they add up to N * attempts * number of radii.
        attack: fields of `contraverse.attacks.AttackSettings`, as in `robust_accuracy`.

    Raises:
        UserError: no rows, a regression with labels, or an impossible setting.
    """
    settings = AttackSettings(**attack)
    radii = sorted({float(e) for e in epsilons})
    for epsilon in radii:
        if not 0 < epsilon < math.inf:
            raise UserError(f"epsilon must be a finite number > 0, not {epsilon}")
    encoded = encode_data(model, data)
    classes = len(model.labels or ())
    climbed: Climbed = "class" if classes > 1 and encoded.labels is not None else "distance"
    if classes == 1 and encoded.labels is not None:
        raise UserError(
            "the shift of a regression under attack is not defined", hint="give rows without labels, or a classifier"
        )
    at = {epsilon: Shift(np.zeros(len(encoded)), np.zeros(len(encoded))) for epsilon in radii}

    def moved(rows: np.ndarray, batch: Batch) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Clean features (B, H), and cosines and distances, (B,) each, at each radius."""
        inputs, pairs = perturbation_inputs(model, batch), []
        with torch.no_grad():
            clean = _features(model, batch, settings.bn_branch)
        for epsilon in radii:
            attacked = _attacked(model, batch, rows, inputs, clean, epsilon, settings, climbed)
            cosine, distance = F.cosine_similarity(clean, attacked), (attacked - clean).norm(dim=1)
            pairs.append((cosine.cpu().numpy(), distance.cpu().numpy()))
        return clean.cpu().numpy(), pairs

    each = len(radii) * shift_attempts(settings, classes, climbed == "class")
    with attacking(model), frozen(model), seeded(settings.seed):
        parts = map_batches(model, encoded, np.arange(len(encoded)), batch_size, moved, progress, each=each)
    for rows, (_, pairs) in parts:
        for epsilon, (cosines, distances) in zip(radii, pairs, strict=True):
            at[epsilon].cosine[rows], at[epsilon].euclidean[rows] = cosines, distances
    labels = np.asarray(encoded.labels) if climbed == "class" else None
    features = [(rows, clean) for rows, (clean, _) in parts]
    between = _between_classes(features, labels) if labels is not None else None
    return ShiftReport(at, settings, climbed, between)


def _between_classes(features: Sequence[tuple[np.ndarray, np.ndarray]], labels: np.ndarray) -> float | None:
    """Mean distance between two classes' mean features; None where fewer than two classes have rows.

    Args:
        features: numbers of rows, and their h (B, H).
        labels: (N,) of all rows.
    """
    rows = np.concatenate([numbers for numbers, _ in features])  # (N,)
    h = np.concatenate([part for _, part in features]).astype(np.float64)  # (N, H)
    means = np.stack([h[labels[rows] == label].mean(axis=0) for label in np.unique(labels[rows])])  # (C, H)
    if len(means) < 2:
        return None
    distances = np.linalg.norm(means[:, None] - means[None], axis=-1)  # (C, C)
    return float(distances[np.triu_indices(len(means), k=1)].mean())


def shift_attempts(settings: AttackSettings, classes: int, labelled: bool) -> int:
    """Number of attacks of `representation_shift` on each row at each radius."""
    return settings.attempts(classes) if classes > 1 and labelled else settings.restarts


def _attacked(
    model: AnyModel,
    batch: Batch,
    rows: np.ndarray,
    inputs: Inputs,
    clean: Tensor,
    epsilon: float,
    settings: AttackSettings,
    climbed: Climbed,
) -> Tensor:
    """h(x_adv) (B, H) of each row's worst perturbation over restarts and losses."""
    losses = settings.losses(len(model.labels or ())) if climbed == "class" else ("distance",)
    moved, worst = clean, torch.full_like(clean[:, 0], -math.inf)
    for attempt in range(len(losses) * settings.restarts):
        ball = ball_of(inputs, rows, epsilon, settings, attempt)
        if climbed == "class":
            random = settings.random_start or attempt % settings.restarts > 0
            loss = losses[attempt // settings.restarts]
            delta = attack_batch(model, batch, inputs, ball, settings, loss, random).delta
            features, score = _features_and_margin(model, batch, delta, settings.bn_branch)
        else:
            delta = _pushed_away(model, batch, inputs, clean, ball, settings)
            with torch.no_grad():
                features = _features(model, batch, settings.bn_branch, delta)
            score = (features - clean).norm(dim=1)
        better = score > worst
        worst, moved = torch.where(better, score, worst), torch.where(better[:, None], features, moved)
    return moved


def _pushed_away(
    model: AnyModel, batch: Batch, inputs: Inputs, clean: Tensor, ball: NormBall, settings: AttackSettings
) -> Tensor:
    """The perturbation that the attack finds to move h(x) the farthest."""

    def distance(delta: Tensor) -> Objective:
        h = _features(model, batch, settings.bn_branch, delta)
        return Objective((h - clean).square().sum(1), h)

    return settings.spec.load()(distance, ball, inputs, steps=settings.steps, random_start=True).delta


def _features(model: AnyModel, batch: Batch, bn_branch: BNBranch, delta: Tensor | None = None) -> Tensor:
    h: Tensor = model(batch, delta=delta, want=("h",), bn_branch=bn_branch).h
    return h.float()


@torch.no_grad()
def _features_and_margin(model: AnyModel, batch: Batch, delta: Tensor, bn_branch: BNBranch) -> tuple[Tensor, Tensor]:
    out = model(batch, delta=delta, want=("h", "logits"), bn_branch=bn_branch)
    return out.h.float(), margin(out.logits.float(), batch["labels"])
