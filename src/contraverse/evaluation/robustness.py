"""Accuracy under attack on the word embeddings, over a list of radii."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from contraverse.attacks import AttackSettings
from contraverse.data import Encoded, ImageData, Rows
from contraverse.errors import UserError
from contraverse.evaluation.attack_loop import attack_rows, frozen, seeded
from contraverse.evaluation.diagnostics import Diagnosis, diagnose, diagnosed_rows, probes
from contraverse.evaluation.metrics import accuracy
from contraverse.evaluation.own_models import measurable
from contraverse.evaluation.paired import pack_rows
from contraverse.evaluation.predict import Progress, TaskEvaluator, encode_data, labels_of, predict
from contraverse.models import AnyModel, ImageModel, TextModel, attacking
from contraverse.models.detector import Detector, class_id
from contraverse.types import BNBranch


@dataclass(frozen=True)
class Attacked:
    """Result at one radius.

    Attributes:
        accuracy: percent of all N rows that no perturbation tried inside this radius, or a smaller one, broke.
        correct: (N,) bool, the same for each row.
        predicted: (N,) the class under attack: at the first perturbation that broke the row, or of the clean row.
        relative_size: mean of ||delta|| / ||E|| over the rows attacked at this radius, both in the attack's norm
            and over a whole sequence: delta of largest loss in the row's last attempt, E its real tokens' embeddings.
            The same epsilon is another relative size in a model whose embeddings are shorter (ALBERT's have 128
            dimensions). None where no row was left to attack.
        attacked: how many rows were attacked at this radius: right clean, and not broken at a smaller one.
        gradients: how many the attack took with each loss, over rows, steps and restarts.
        dead: how many of them were zero or not finite, on rows that were still right. Many of them mean that the loss
            is saturated and the attack blind: where that holds for every loss, the accuracy is no evidence.
    """

    accuracy: float
    correct: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    relative_size: float | None
    attacked: int
    gradients: dict[str, int]
    zero_grad_rows: dict[str, int]

    @property
    def dead_gradients(self) -> int:
        """Number of gradients that were zero or not finite, over all losses."""
        return sum(self.zero_grad_rows.values())


@dataclass(frozen=True)
class RobustReport:
    """Robust accuracy at each radius, in percent, and what is needed to trust and to repeat it.

    Attributes:
        clean_accuracy: percent of rows right without an attack.
        clean_correct: (N,) bool, the same for each row.
        logits: (N, C) of the clean rows, float32.
        labels: (N,) classes of the rows.
        at: results by epsilon, ascending.
        settings: of the attack.
        diagnosis: results of the sanity checks; None where they were not run.
    """

    clean_accuracy: float
    clean_correct: np.ndarray = field(repr=False)
    logits: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    at: dict[float, Attacked]
    settings: AttackSettings
    diagnosis: Diagnosis | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.clean_correct)

    @property
    def metrics(self) -> dict[str, float]:
        """``accuracy`` and ``accuracy@<attack>-<epsilon>``, as ``accuracy@pgd-0.3``, in percent."""
        return {"accuracy": self.clean_accuracy} | {
            f"accuracy@{self.settings.attack}-{e:g}": result.accuracy for e, result in self.at.items()
        }

    @property
    def right(self) -> dict[str, str]:
        """Rows that were right, for each of `metrics`, as `pack_rows` writes them: two models are compared by row."""
        attacked = {f"accuracy@{self.settings.attack}-{e:g}": result.correct for e, result in self.at.items()}
        return {name: pack_rows(rows) for name, rows in {"accuracy": self.clean_correct, **attacked}.items()}

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the figures, a sentence each; the first is looked for without a diagnosis too."""
        taken, zero_grad_rows = Counter[str](), Counter[str]()
        for result in self.at.values():
            taken.update(result.gradients)
            zero_grad_rows.update(result.zero_grad_rows)
        blind = []
        if taken and all(zero_grad_rows[loss] > DEAD_SHARE * taken[loss] for loss in taken):
            blind = [
                f"{zero_grad_rows.total():,} of {taken.total():,} gradients were zero or not finite: there the attack "
                f"saw nothing, and accuracy under attack is no evidence"
            ]
        return blind + (self.diagnosis.warnings if self.diagnosis else [])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without the arrays of single rows."""
        s = self.settings
        return {
            "attack": s.to_dict(),
            "n": self.n,
            "accuracy": self.clean_accuracy,
            "at": [
                {
                    "epsilon": epsilon,
                    "step_size": s.first_step(epsilon),
                    "accuracy": result.accuracy,
                    "relative_size": result.relative_size,
                    "attacked": result.attacked,
                    "gradients": sum(result.gradients.values()),
                    "dead_gradients": result.dead_gradients,
                }
                for epsilon, result in self.at.items()
            ],
            "warnings": self.warnings,
            "diagnostics": self.diagnosis.to_dict() if self.diagnosis else None,
        }


DEAD_SHARE = 0.01
"""A larger share of dead gradients, of every loss that was climbed, is warned of."""


def robust_accuracy(
    model: nn.Module,
    data: Rows,
    epsilons: Sequence[float],
    *,
    batch_size: int = 64,
    diagnostics: bool | int = False,
    progress: Progress | None = None,
    tokenizer: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **attack: Any,
) -> RobustReport:
    """Accuracy when an attack perturbs each row's word embeddings within ``epsilon``, in eval mode.

    A row counts as broken when *any* iterate, the start and the last one included, of any restart on any loss is
    classified wrongly: the worst case for each row. So do rows that are wrong clean, and rows broken at a smaller
    radius (their perturbation lies in the larger ball too). Neither is attacked again: the result is the same as if
    they were, and cheaper. White-box and untargeted. Each row's attack is its own, whatever rows share its batch. For
    the same reason an image that is broken drops out of the attack at once.

    Args:
        model: a classifier: ours, any network of images, or one of transformers with its ``tokenizer``, as
            `contraverse.evaluation.attack` takes them. Its weights, their ``.grad``, its mode and the global random
            state are left as they were.
        data: labelled rows.
        epsilons: radii >= 0, of the whole sequence's perturbation; 0 is the clean accuracy.
        batch_size: rows a batch.
        diagnostics: test the attack itself (see `contraverse.evaluation.diagnostics.diagnose`), on 32 rows or on as
            many as this says. `RobustReport.warnings` then holds reasons to doubt it.
        progress: called with the number of rows done; they add up to `rows_done`.
        tokenizer: of a transformers model.
        mean: normalisation of a network of images: see `contraverse.evaluation.attack`.
        std: see ``mean``.
        attack: fields of `contraverse.attacks.AttackSettings`: ``attack`` (``"pgd"``, ``"apgd"``), ``norm``, ``steps``,
            ``step_size``, ``restarts``, ``random_start``, ``relative``, ``seed`` (of the random starts and of the
            diagnosed rows), and for dual models the batch norms that are attacked, and measured clean.

    Raises:
        UserError: no labels, a regression, labels that the model does not know, or an impossible setting.
    """
    if not isinstance(model, TextModel | ImageModel):
        pixels = data.pixels[:] if isinstance(data, ImageData) else None
        options: dict[str, Any] = {"batch_size": batch_size, "diagnostics": diagnostics, "progress": progress}
        with measurable(model, tokenizer=tokenizer, mean=mean, std=std, pixels=pixels) as measured:
            return robust_accuracy(measured, data, epsilons, **options, **attack)
    settings = AttackSettings(**attack)
    for epsilon in epsilons:
        if not 0 <= epsilon < math.inf:
            raise UserError(f"epsilon must be a finite number >= 0, not {epsilon}")
    encoded = encode_data(model, data)
    labels = labels_of(encoded)
    logits = predict(model, encoded, batch_size, bn_branch=settings.bn_branch, progress=progress)
    if logits.shape[1] < 2:
        raise UserError(
            "robust accuracy is for classification, and this model is a regression",
            hint="leave the epsilons out",
        )
    clean_accuracy = accuracy(logits, labels)
    clean_correct = logits.argmax(1) == labels

    correct, predicted, at = clean_correct, logits.argmax(1), {}
    radii = sorted({float(e) for e in epsilons})
    with attacking(model), frozen(model), seeded(settings.seed):
        for epsilon in radii:
            result = _attack_survivors(model, encoded, correct, predicted, epsilon, settings, batch_size, progress)
            at[epsilon], correct, predicted = result, result.correct, result.predicted
        diagnosis = None
        if (count := diagnosed_rows(diagnostics, len(encoded))) and probes(radii):
            diagnosis = diagnose(model, encoded, clean_correct, radii, settings, count, batch_size, progress)
    return RobustReport(clean_accuracy, clean_correct, logits, labels, at, settings, diagnosis)


def recall_under_attack(
    model: AnyModel,
    data: Rows,
    detector: Detector,
    epsilons: Sequence[float],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
    **attack: Any,
) -> dict[float, tuple[int, int]]:
    """Recall of a detector's class at its threshold under attack, the worst case of each row as in `robust_accuracy`.

    Rows of the class alone are attacked, with the same losses, starts and steps. One is missed where any iterate falls
    below the threshold, which need not be where another class becomes the most probable one.

    Args:
        model: a classifier with the detector's class.
        data: labelled rows.
        detector: threshold.
        epsilons: radii >= 0; 0 is the clean recall.
        batch_size: rows a batch.
        progress: called with the number of rows done.
        attack: as in `robust_accuracy`.

    Returns:
        Rows that stay detected, and rows of the class, by radius.
    """
    settings, names = AttackSettings(**attack), model.labels or []
    encoded = encode_data(model, data)
    labels = labels_of(encoded)
    logits = predict(model, encoded, batch_size, bn_branch=settings.bn_branch)
    held = detector.detects(logits, names) & (labels == class_id(detector.positive, names))  # (N,)
    count, results = int((labels == class_id(detector.positive, names)).sum()), dict[float, tuple[int, int]]()
    decide = partial(detector.decide_tensor, labels=names)
    with attacking(model), frozen(model), seeded(settings.seed):
        for epsilon in sorted({float(e) for e in epsilons}):
            if epsilon > 0:
                rows = np.flatnonzero(held)
                held = attack_rows(model, encoded, rows, epsilon, settings, batch_size, progress, decide).still_correct
            results[epsilon] = int(held.sum()), count
    return results


def rows_done(
    rows: int, classes: int, epsilons: Sequence[float], settings: AttackSettings, diagnostics: bool | int = False
) -> int:
    """Rows that `robust_accuracy` reports to ``progress`` in all: each once clean, and once for every attempt on it."""
    radii = sorted({float(e) for e in epsilons})
    attempts = settings.attempts(classes) * sum(epsilon > 0 for epsilon in radii)
    return rows * (1 + attempts) + diagnosed_rows(diagnostics, rows) * probes(radii)


def _attack_survivors(
    model: AnyModel,
    data: Encoded,
    correct: np.ndarray,
    predicted: np.ndarray,
    epsilon: float,
    settings: AttackSettings,
    batch_size: int,
    progress: Progress | None,
) -> Attacked:
    """Attack the rows that are still ``correct`` (N,); the others stay ``predicted`` (N,) as they were."""
    if epsilon == 0:
        return Attacked(100 * float(correct.mean()), correct, predicted, None, 0, {}, {})
    rows = np.flatnonzero(correct)
    if progress:  # the rows that are not attacked are settled
        progress((len(correct) - len(rows)) * settings.attempts(len(model.labels or ())))
    attacked = attack_rows(model, data, rows, epsilon, settings, batch_size, progress)
    size = float(attacked.relative_size[rows].mean()) if len(rows) else None
    return Attacked(
        100 * float(attacked.still_correct.mean()),
        attacked.still_correct,
        np.where(correct, attacked.predicted, predicted),
        size,
        len(rows),
        attacked.gradients,
        attacked.zero_grad_rows,
    )


def evaluate(
    model: AnyModel,
    data: Rows,
    *,
    metrics: Sequence[str] = ("accuracy",),
    epsilons: Sequence[float] = (),
    batch_size: int = 64,
    bn_branch: BNBranch = "adversarial",
    **attack: Any,
) -> dict[str, float]:
    """Clean metrics and, where ``epsilons`` are given, robust accuracy, all in percent.

    Keys are the metrics' names and ``accuracy@pgd-0.3`` for each epsilon.

    Args:
        model: a classifier or regressor.
        data: labelled rows.
        metrics: names from `METRICS`.
        epsilons: radii of the attack; none is no attack.
        batch_size: rows a batch.
        bn_branch: which set of a dual model's batch norms; others, and texts, ignore it.
        attack: ``norm``, ``steps``, ``step_size``, ``restarts``, ``random_start``, ``relative``, ``seed``: see
            `robust_accuracy`, which gives a full report instead of two numbers.

    Raises:
        UserError: no such metric, no labels, or an attack on a regression.
    """
    data = encode_data(model, data)
    results = TaskEvaluator(data, metrics, batch_size, bn_branch=bn_branch)(model)
    if epsilons:
        results |= robust_accuracy(model, data, epsilons, batch_size=batch_size, bn_branch=bn_branch, **attack).metrics
    return results
