"""Robustness to attacks that training did not foresee, and UAR (Kang et al., 2019).

Not to be confused with the 19 corruptions that ACL calls "unforeseen attacks": those are in
`contraverse.evaluation.images.corruptions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import attacks_of
from contraverse.attacks.distortions import Distortion, Drawn
from contraverse.data.images import ImageData
from contraverse.errors import UserError, unknown
from contraverse.evaluation.images.pixels import as_classifier, as_floats, device_of, labels_of, map_ranges, right
from contraverse.evaluation.predict import Progress
from contraverse.types import BNBranch

UNFORESEEN: dict[str, Distortion] = {name: spec.load()() for name, spec in attacks_of("unforeseen_accuracy").items()}

CIFAR10_ATA: dict[str, dict[float, float]] = {
    "linf": {1: 91.0, 2: 87.8, 4: 81.6, 8: 71.3, 16: 46.5, 32: 23.1},
    "l2": {40: 90.1, 80: 86.4, 160: 79.6, 320: 67.3, 640: 49.9, 2560: 17.3},
    "l1": {195: 92.2, 390: 90.0, 780: 83.2, 1560: 73.8, 6240: 47.4, 24960: 35.3},
    "jpeg_linf": {0.03125: 89.7, 0.0625: 87.0, 0.125: 83.1, 0.25: 78.6, 0.5: 69.7, 1: 35.4},
    "jpeg_l1": {2: 91.4, 8: 88.1, 64: 80.2, 256: 68.9, 512: 56.3, 1024: 37.7},
    "elastic": {0.125: 87.4, 0.25: 81.3, 0.5: 72.1, 1: 58.2, 2: 45.4, 8: 27.8},
}
"""ATA: sizes calibrated for CIFAR-10, and the best accuracy of adversarial training (ResNet-56) at each, in percent.

From the authors' tables. There is none for fog, snow and Gabor noise on CIFAR-10.
"""

IMAGENET_SIZES: dict[str, tuple[float, ...]] = {
    "fog": (128, 256, 512, 2048, 4096, 8192),
    "snow": (0.0625, 0.125, 0.25, 2, 4, 8),
    "gabor": (6.25, 12.5, 25, 400, 800, 1600),
}
"""Sizes of the other three, which the authors calibrated for ImageNet-100 at 224 pixels."""

REFERENCE_STEPS = 200
"""Steps of each attack that `CIFAR10_ATA` is the accuracy under."""


@dataclass(frozen=True)
class UnforeseenReport:
    """Accuracy in percent.

    Attributes:
        clean_accuracy: without an attack.
        accuracy: by attack, then by size.
        uar: by attack, ``100 * sum of accuracies / sum of the reference's`` over the reference's sizes; only of attacks
            that the reference has and that were measured at all its sizes.
        n: how many images.
        settings: of the attacks.
        notes: for the reader of the figures, a sentence each.
    """

    clean_accuracy: float
    accuracy: dict[str, dict[float, float]] = field(repr=False)
    uar: dict[str, float]
    n: int
    settings: dict[str, Any]
    notes: list[str]

    @property
    def metrics(self) -> dict[str, float]:
        """``accuracy`` and ``uar@<attack>``, in percent; ``accuracy@<attack>-<size>`` where there is no UAR."""
        single = {
            f"accuracy@{name}-{epsilon:g}": value
            for name, by_epsilon in self.accuracy.items()
            if name not in self.uar
            for epsilon, value in by_epsilon.items()
        }
        return {"accuracy": self.clean_accuracy} | {f"uar@{name}": value for name, value in self.uar.items()} | single

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        accuracy = {
            name: {f"{e:g}": value for e, value in by_epsilon.items()} for name, by_epsilon in self.accuracy.items()
        }
        figures = {"clean": self.clean_accuracy, "accuracy": accuracy, "uar": self.uar}
        return {"n": self.n, **self.settings, **figures, "notes": self.notes}


def unforeseen_accuracy(
    model: nn.Module,
    data: ImageData,
    epsilons: Mapping[str, Sequence[float]] | None = None,
    *,
    reference: Mapping[str, Mapping[float, float]] = CIFAR10_ATA,
    steps: int = REFERENCE_STEPS,
    targeted: bool = True,
    batch_size: int = 250,
    seed: int = 0,
    bn_branch: BNBranch = "adversarial",
    progress: Progress | None = None,
) -> UnforeseenReport:
    """Accuracy under each attack at each size, and UAR.

    Every attack starts at random and is scored at its last step. With ``targeted`` it descends the
    cross-entropy of a class drawn at random for each image, as the paper does: weaker than climbing the true class's.
    An attack of k steps costs 2k + 1 forwards an image; no image is spared because it was broken at a smaller size.

    Args:
        model: an `ImageModel`, or any module from pixels in [0, 1] to logits; left as it was.
        data: labelled images.
        epsilons: sizes of each attack, by the names of `UNFORESEEN`, in the paper's units (bytes for linf, l2, l1);
            None takes all of ``reference`` that images of this size can have, and notes what it leaves out.
        reference: accuracies that UAR is relative to, in percent by attack and size.
        steps: >= 1; the paper's 200, which the reference is of: another number is noted in the report.
        targeted: see above.
        batch_size: images a batch; an image's random start and target do not depend on it.
        seed: of starts and targets.
        bn_branch: which set of a dual model's batch norms.
        progress: called with the number of images done; in all, images x (1 + number of attacks and sizes).

    Raises:
        UserError: no such attack, an impossible setting, no labels, or images of a size that an attack cannot have.
    """
    fitting, left_out = planned(None, data, reference) if epsilons is None else (epsilons, [])
    chosen = _checked(fitting, data)
    if steps < 1 or batch_size < 1:
        raise UserError(f"steps and batch_size must be at least 1, not {steps} and {batch_size}")
    labels = labels_of(data)
    accuracy: dict[str, dict[float, float]] = {name: {} for name in chosen}
    with as_classifier(model, bn_branch, seed) as classifier:
        clean = right(classifier, data.pixels, labels, batch_size, progress)
        for name, sizes in chosen.items():
            for epsilon in sizes:

                def still_right(rows: range, distortion: Distortion, epsilon: float) -> np.ndarray:
                    x, y = as_floats(data.pixels[rows], device_of(classifier)), labels[rows].to(device_of(classifier))
                    attacked = attack(classifier, x, y, distortion, epsilon, steps, targeted, _keys(seed, rows))
                    with torch.no_grad():
                        return (classifier(attacked).argmax(1) == y).cpu().numpy()

                work = partial(still_right, distortion=UNFORESEEN[name], epsilon=epsilon)
                right_under_attack = np.concatenate(map_ranges(len(data), batch_size, work, progress))
                accuracy[name][epsilon] = 100 * float(right_under_attack.mean())
    settings = {"steps": steps, "targeted": targeted, "seed": seed, "bn_branch": bn_branch}
    found_uar = uar(accuracy, reference)
    notes = left_out + (_doubts(steps, data) if found_uar and reference is CIFAR10_ATA else [])
    return UnforeseenReport(100 * float(clean.mean()), accuracy, found_uar, len(data), settings, notes)


def planned(
    names: Sequence[str] | None, data: ImageData, reference: Mapping[str, Mapping[float, float]] = CIFAR10_ATA
) -> tuple[dict[str, list[float]], list[str]]:
    """The sizes of each attack on ``data``, and a sentence on each attack that is left out.

    Args:
        names: of `UNFORESEEN`. None takes those of ``reference``, ``["all"]`` every one: then what images of this size
            cannot have is left out.
        data: images.
        reference: source of an attack's sizes; `IMAGENET_SIZES` for an attack that it lacks.

    Raises:
        UserError: no such attack, or one that is named and that images of this size cannot have.
    """
    known = {name: list(sizes) for name, sizes in IMAGENET_SIZES.items()}
    known |= {name: list(at) for name, at in reference.items()}
    if names is not None and list(names) != ["all"]:
        return _checked({name: known.get(name, [1.0]) for name in names}, data), []
    wanted = known if names is not None else {name: known[name] for name in reference}
    unfit = {name: _unfit(name, data) for name in wanted}
    left_out = [f"{name} is left out: {why}" for name, why in unfit.items() if why is not None]
    return {name: sizes for name, sizes in wanted.items() if unfit[name] is None}, left_out


def _unfit(name: str, data: ImageData) -> str | None:
    height, width = data.pixels.shape[2:]
    return UNFORESEEN[name].unfit(height, width)


def _doubts(steps: int, data: ImageData) -> list[str]:
    """Notes on differences from the paper's UAR."""
    height, width = data.pixels.shape[2:]
    warnings = []
    if steps != REFERENCE_STEPS:
        warnings.append(
            f"UAR with {steps} steps: its reference is accuracy under {REFERENCE_STEPS}, so that it is no UAR of the "
            f"paper"
        )
    if (height, width) != (32, 32):
        warnings.append(
            f"UAR on images of {height} x {width}: its sizes and its reference are CIFAR-10's, of 32 x 32, so that it "
            f"compares models on these images alone"
        )
    return warnings


def uar(
    accuracy: Mapping[str, Mapping[float, float]], reference: Mapping[str, Mapping[float, float]]
) -> dict[str, float]:
    """Percent of the reference's accuracy, summed over its sizes, by attack; see `UnforeseenReport`."""
    return {
        name: 100 * sum(by_epsilon[epsilon] for epsilon in reference[name]) / sum(reference[name].values())
        for name, by_epsilon in accuracy.items()
        if name in reference and set(reference[name]) <= set(by_epsilon)
    }


def attack(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    distortion: Distortion,
    epsilon: float,
    steps: int,
    targeted: bool,
    keys: Sequence[int],
) -> Tensor:
    """Images (B, C, H, W) after ``steps`` steps; ``keys`` seed each image's start and, if ``targeted``, its target.

    The classifier has to be frozen and in eval mode.
    """
    with torch.no_grad():
        classes = classifier(x[:1]).shape[1]
    drawn, goals = [], []
    for image, label, key in zip(x, y.tolist(), keys, strict=True):
        random = torch.Generator().manual_seed(key)
        goals.append((label + int(torch.randint(1, classes, (), generator=random))) % classes if targeted else label)
        drawn.append(distortion.draw(image, epsilon, random))
    goal, sign = torch.tensor(goals, device=x.device), -1 if targeted else 1
    parameters = torch.stack([variables.parameters for variables in drawn]).to(x.device)
    fixed = torch.stack([variables.fixed for variables in drawn]).to(x.device)
    for step in range(steps):
        parameters.requires_grad_()
        logits = classifier(distortion.perturb(x, Drawn(parameters, fixed), epsilon))
        loss = sign * F.cross_entropy(logits, goal, reduction="sum")
        (grad,) = torch.autograd.grad(loss, parameters)
        parameters = parameters.detach()
        parameters = distortion.climb(x, Drawn(parameters, fixed), grad, epsilon, step, steps)
    return distortion.perturb(x, Drawn(parameters, fixed), epsilon)


def _keys(seed: int, rows: range) -> list[int]:
    return [int(np.random.SeedSequence([seed, row]).generate_state(1)[0]) for row in rows]


def _checked(epsilons: Mapping[str, Sequence[float]], data: ImageData) -> dict[str, list[float]]:
    for name, sizes in epsilons.items():
        if name not in UNFORESEEN:
            raise unknown("unforeseen attack", name, UNFORESEEN)
        if not sizes or not all(0 < epsilon < float("inf") for epsilon in sizes):
            raise UserError(f"the sizes of {name} must be positive, not {list(sizes)}")
        if why := _unfit(name, data):
            raise UserError(f"{name} cannot be measured here: {why}", where=data.source, hint="leave it out")
    return {name: sorted(set(sizes)) for name, sizes in epsilons.items()}
