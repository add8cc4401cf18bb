"""AutoAttack (Croce and Hein, 2020), through the package pyautoattack: the standard measure of robust accuracy."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from contraverse.attacks import margin
from contraverse.data.images import ImageData
from contraverse.errors import UserError, unknown
from contraverse.evaluation.images.autoattack_state import State, digest_of_data
from contraverse.evaluation.images.pixels import as_classifier, as_floats, classes_of, device_of, labels_of, right
from contraverse.evaluation.predict import Progress
from contraverse.functional import all_parts, my_share, sharers
from contraverse.models.storage import digest_of_model
from contraverse.types import BNBranch

AutoNorm = Literal["linf", "l2", "l1"]
Version = Literal["standard", "plus", "rand"]

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
"""The attacks of each version, in order. ``"rand"`` is for models that draw at random: 20 gradients a step."""

CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
"""Number of classes that the DLR loss of an attack needs; with fewer, two at least, the margin takes its place."""

QUERIES = 5000
"""Queries of Square for each image, as in the paper."""

SLACK = 1e-5
"""Relative excess over the radius that is forgiven, for the rounding of fp32."""


@dataclass(frozen=True)
class AutoAttackReport:
    """Accuracy under AutoAttack, in percent.

    Attributes:
        clean_accuracy: percent of images right without an attack.
        left: percent still right after each attack, in the order in which they ran, each on what the ones before left.
        seconds: how long each attack took, added up over processes; one that an earlier call finished counts what it
            took then.
        correct: (N,) bool, right under every attack.
        warnings: what AutoAttack itself found amiss, and images of its that were not counted.
        settings: the call's.
        replaced: by attack, the loss it maximized instead of its DLR loss, which needs more classes.
    """

    clean_accuracy: float
    left: dict[str, float]
    seconds: dict[str, float]
    correct: np.ndarray = field(repr=False)
    warnings: list[str]
    settings: dict[str, Any]
    replaced: dict[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """Differences from the standard AutoAttack, in a few words; empty where there are none.

        The version, the attacks where they are not the version's, Square's queries, and losses that were replaced.
        """
        version, attacks = self.settings["version"], self.settings["attacks"]
        marks = [version] if version != "standard" else []
        if tuple(attacks) != VERSIONS[version]:
            marks = [f"{', '.join(attacks)} alone"]
        if "square" in attacks and self.settings["queries"] != QUERIES:
            marks.append(f"{self.settings['queries']} queries")
        if self.replaced:
            marks.append(f"margin for DLR in {', '.join(self.replaced)}")
        return "; ".join(marks)

    @property
    def accuracy(self) -> float:
        """Robust accuracy, in percent."""
        return 100 * float(self.correct.mean())

    @property
    def metrics(self) -> dict[str, float]:
        """``accuracy`` and ``accuracy@autoattack-<epsilon>``, in percent."""
        return {"accuracy": self.clean_accuracy, f"accuracy@autoattack-{self.settings['epsilon']:g}": self.accuracy}

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without the array of single images."""
        return {
            "attack": {"name": "autoattack", **self.settings},
            "n": len(self.correct),
            "accuracy": self.clean_accuracy,
            "robust_accuracy": self.accuracy,
            "mark": self.mark,
            "replaced": self.replaced,
            "left": self.left,
            "seconds": self.seconds,
            "warnings": self.warnings,
        }


def auto_attack(
    model: nn.Module,
    data: ImageData,
    epsilon: float,
    *,
    norm: AutoNorm = "linf",
    version: Version = "standard",
    attacks: Sequence[str] | None = None,
    queries: int = QUERIES,
    batch_size: int = 250,
    seed: int = 0,
    bn_branch: BNBranch = "adversarial",
    state: str | Path | None = None,
    progress: Progress | None = None,
) -> AutoAttackReport:
    """Robust accuracy under AutoAttack: an ensemble of attacks without settings to tune.

    The standard ensemble is APGD on cross-entropy (100 steps), targeted APGD and targeted FAB (9 targets, 100 steps
    each) and Square (5,000 queries, no gradients); each attacks what the ones before left right. Every image that an
    attack gives is checked: one outside [0, 1] or outside the ball is not counted and named in the warnings.

    With the same settings the result is that of the package's own ``run_standard_evaluation``, batch for batch. Of two
    or three classes there is no targeted DLR loss, and of two no DLR loss at all: these attacks maximize the margin,
    ``z_t - z_y`` of the target t or ``max_{j != y} z_j - z_y``, which is DLR's numerator. `AutoAttackReport.replaced`
    and ``mark`` say so.

    Args:
        model: an `ImageModel`, or any module from pixels in [0, 1] to logits. Its weights, their ``.grad``, its modes
            and the global random state are left as they were.
        data: labelled images.
        epsilon: radius in pixels of [0, 1], > 0: 8/255 for Linf and 0.5 for L2 on CIFAR-10.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        version: see `VERSIONS`.
        attacks: only these, in this order: ``("apgd-ce", "apgd-t")`` is fast and, on models without gradient masking,
            within a few tenths of a percent. Anything but the whole standard ensemble is no AutoAttack accuracy, and
            `AutoAttackReport.mark` names the difference.
        queries: of Square, for each image.
        batch_size: images a batch; the random numbers of an image depend on it.
        seed: of the random numbers.
        bn_branch: which set of a dual model's batch norms.
        state: a file that each finished batch is noted in, so that a call that was interrupted continues there; it
            ends with the same report. None keeps nothing.
        progress: called with the number of images that are settled; they add up to ``len(data) * len(attacks)``.

    Raises:
        UserError: pyautoattack is not installed, no labels, an impossible setting, a model of a single class or of
            fewer than the images have, or a ``state`` of another call.
    """
    settings = _settings(epsilon, norm, version, attacks, queries, batch_size, seed, bn_branch)
    package = _package()
    labels = labels_of(data)
    with as_classifier(model, bn_branch, seed) as classifier, _traced():
        device = device_of(classifier)
        notes, classes = _Notes(), classes_of(classifier, data, device)
        if classes < 2:
            raise UserError("AutoAttack needs two classes, and the model has a single one")
        replaced = {attack: "margin" for attack in settings["attacks"] if classes < CLASSES.get(attack, 2)}
        runner = _build(package, classifier, settings, classes, device, notes.logger)
        call = {**settings, "data": digest_of_data(data, labels), "model": digest_of_model(classifier)}
        run = State.begin(state, call)
        clean = right(classifier, data.pixels, labels, batch_size)
        standing = clean
        left = {"clean": float(clean.mean())}
        for attack in settings["attacks"]:
            rows, standing = np.flatnonzero(standing), standing.copy()
            if progress:  # what is wrong by then is settled
                progress(len(data) - len(rows))
            runner.attacks_to_run = [attack]

            def broken_of(chosen: np.ndarray, attack: str) -> tuple[np.ndarray, float]:
                begun = time.perf_counter()
                x, y = as_floats(data.pixels[chosen], device), labels[chosen].to(device)
                adversarial, _ = runner.run_standard_evaluation(x, y, batch_size=batch_size)
                broken = _broken(classifier, x, adversarial.detach(), y, epsilon, norm, notes, attack)
                return broken, time.perf_counter() - begun

            batches = {first: rows[first : first + batch_size] for first in range(0, len(rows), batch_size)}
            waiting = [first for first in batches if run.known(attack, first) is None]
            known = len(rows) - sum(len(batches[first]) for first in waiting)
            if progress and known:
                progress(known)
            # As many batches at once as there are processes, so that each is noted soon after it is done.
            for begin in range(0, len(waiting), sharers()):
                together = waiting[begin : begin + sharers()]
                parts = [(first, *broken_of(batches[first], attack)) for first in my_share(together)]
                for first, broken, taken in all_parts(parts):
                    run.note(attack, first, broken, taken)
                if progress:
                    progress(sum(len(batches[first]) for first in together))
            for first, chosen in batches.items():
                standing[chosen[run.known(attack, first)]] = False
            left[attack] = float(standing.mean())
        for note in all_parts(notes.notes):
            notes.add(note)
        package.checks.check_square_sr(left, logger=notes.logger)
    percent = {attack: 100 * share for attack, share in left.items() if attack != "clean"}
    seconds = {attack: run.seconds.get(attack, 0.0) for attack in settings["attacks"]}
    return AutoAttackReport(100 * left["clean"], percent, seconds, standing, notes.notes, settings, replaced)


def _settings(
    epsilon: float,
    norm: str,
    version: str,
    attacks: Sequence[str] | None,
    queries: int,
    batch_size: int,
    seed: int,
    bn_branch: str,
) -> dict[str, Any]:
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    if version not in VERSIONS:
        raise unknown("version of AutoAttack", version, VERSIONS)
    if not 0 < epsilon < float("inf"):
        raise UserError(f"epsilon must be positive, not {epsilon}", hint="8/255 is 0.03137")
    if queries < 1 or batch_size < 1:
        raise UserError(f"queries and batch_size must be at least 1, not {queries} and {batch_size}")
    chosen = VERSIONS[version] if attacks is None else tuple(attacks)
    known = VERSIONS["plus"]
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise UserError(f"cannot run the attacks {list(chosen)}", hint=f"choose from {', '.join(known)}, each once")
    return {
        "norm": norm,
        "epsilon": float(epsilon),
        "version": version,
        "attacks": list(chosen),
        "queries": queries,
        "batch_size": batch_size,
        "seed": seed,
        "bn_branch": bn_branch,
    }


def _package() -> Any:
    try:
        import pyautoattack
        import pyautoattack.checks
    except ImportError as error:
        raise UserError(
            "AutoAttack needs the package pyautoattack", hint="pip install 'contraverse[images]', or pip install it"
        ) from error
    return pyautoattack


def _build(
    package: Any, classifier: nn.Module, settings: dict[str, Any], classes: int, device: torch.device, logger: Any
) -> Any:
    runner = package.AutoAttack(
        classifier,
        eps=settings["epsilon"],
        norm=NORMS[settings["norm"]],
        seed=settings["seed"],
        version=settings["version"],
        device=device,
    )
    # With fewer than ten classes there are fewer targets than the nine of the standard version.
    runner.apgd_targeted.n_target_classes = min(runner.apgd_targeted.n_target_classes, classes - 1)
    runner.fab.n_target_classes = min(runner.fab.n_target_classes, classes - 1)
    runner.square.n_queries = settings["queries"]
    if classes < CLASSES["apgd-t"]:
        runner.apgd_targeted.dlr_loss_targeted = partial(_to_target, runner.apgd_targeted)
    if classes < CLASSES["apgd-dlr"]:
        runner.apgd.dlr_loss = margin
    for part in (runner, runner.apgd, runner.apgd_targeted):
        part.logger = logger
    return runner


def _to_target(attack: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """``z_t - z_y`` of each row (B,), t the class that ``attack`` aims at."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, attack.y_target] - logits[rows, labels]


@torch.no_grad()
def _broken(
    classifier: nn.Module,
    x: Tensor,
    adversarial: Tensor,
    y: Tensor,
    epsilon: float,
    norm: AutoNorm,
    notes: "_Notes",
    attack: str,
) -> np.ndarray:
    """Rows that are wrong at an image that the attacker may show: (B,) bool."""
    away = (adversarial - x).flatten(1)
    size = away.abs().amax(1) if norm == "linf" else away.norm(p=1 if norm == "l1" else 2, dim=1)
    inside = (
        (size <= epsilon * (1 + SLACK)) & (adversarial.flatten(1).amin(1) >= 0) & (adversarial.flatten(1).amax(1) <= 1)
    )
    wrong = classifier(adversarial).argmax(1) != y
    if outside := int((wrong & ~inside).sum()):
        notes.add(f"{attack} gave {outside} images outside the ball or outside [0, 1], which were not counted")
    return (wrong & inside).cpu().numpy()


class _Notes(logging.Handler):
    """Collects each warning once, by a logger of its own.

    Leaves out the warning of a DLR loss with too few classes: `_build` has replaced that loss.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.notes: list[str] = []
        self.logger = logging.Logger("contraverse.autoattack")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.getMessage())

    def add(self, text: str) -> None:
        if text not in self.notes and not text.startswith("with only"):
            self.notes.append(text)


@contextmanager
def _traced() -> Iterator[None]:
    """AutoAttack's check of dynamic models ends what traces the process, a debugger say; it is put back."""
    tracer = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(tracer)
