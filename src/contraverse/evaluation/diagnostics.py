"""Checks of an attack: tests on a few rows whose outcome is known for an attack that works.

The checks are those by which masked gradients were found out: Athalye et al., "Obfuscated Gradients Give a False Sense
of Security" (2018), section 3.1; Carlini et al., "On Evaluating Adversarial Robustness" (2019), section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contraverse.attacks import AttackSettings, perturbation_inputs
from contraverse.data import Encoded
from contraverse.evaluation.attack_loop import AttackResult, attack_rows, ball_of
from contraverse.evaluation.predict import Progress, logits_of, map_batches
from contraverse.functional import direction
from contraverse.models import AnyModel
from contraverse.types import Batch

ROWS = 32
"""Default number of rows to diagnose."""

LARGE = 5.0
"""Perturbation size that must break every row: five times the embeddings themselves, ||delta|| = 5 ||E||."""

SLACK, UNSETTLED, LEFT = 0.03, 0.1, 0.05
"""Shares of the rows. What may go the wrong way by chance; what a longer attack may break in addition before the one
that was run counts as too short; what may be left at `LARGE`."""


@dataclass(frozen=True)
class Diagnosis:
    """Results of the checks, in percent of the rows that were tried; all of these are right without an attack.

    Attributes:
        rows: how many were tried.
        fresh: accuracy at each epsilon, each attacked from the beginning.
        random: accuracy under a random perturbation on the boundary of the same ball.
        epsilon: where the next two were tried: the radius whose accuracy is nearest to 50.
        more_steps: with twice the steps.
        more_restarts: with one restart more and every start at random, drawn anew.
        large: at ||delta|| = `large_epsilon` times ||E||.
        large_epsilon: that size.
        forward_units: cost of all this, a row.
        warnings: checks that failed, a sentence each; empty where the attack passes.
    """

    rows: int
    fresh: Mapping[float, float]
    random: Mapping[float, float]
    epsilon: float
    more_steps: float
    more_restarts: float
    large: float
    large_epsilon: float
    forward_units: float
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        at = [{"epsilon": e, "accuracy": self.fresh[e], "random": self.random[e]} for e in self.fresh]
        own = {key: value for key, value in vars(self).items() if key not in ("fresh", "random", "warnings")}
        return {**own, "at": at}


def diagnosed_rows(diagnostics: bool | int, rows: int) -> int:
    """Number of rows that a setting of ``diagnostics`` means."""
    return min(ROWS if diagnostics is True else int(diagnostics), rows)


def probes(radii: Sequence[float]) -> int:
    """Number of attacks of `diagnose` on a row: at each epsilon > 0, and three times more."""
    return 3 + sum(radius > 0 for radius in radii) if any(radii) else 0


def diagnose(
    model: AnyModel,
    data: Encoded,
    clean_correct: np.ndarray,
    radii: Sequence[float],
    settings: AttackSettings,
    count: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Diagnosis:
    """Try the attack of ``settings`` on up to ``count`` of the rows that are right clean.

    Looked at, on the same rows, each attack from the beginning and none given what another one found:

    1. accuracy does not rise from one epsilon to the next;
    2. nor with twice the steps; nor with one restart more, all of them at random starts of their own;
    3. these two do not break many more rows either: else the attack that was run is too short;
    4. next to nothing holds where ||delta|| is 5 times ||E||: the text is then drowned;
    5. a random perturbation of the same norm breaks fewer rows than the attack.

    Costs a row, at most, with E radii, r restarts of k steps and L losses (1 for PGD, 2 for APGD from three classes
    on): ``L ((E + 1) r (2k + 1) + r (4k + 1) + (r + 1) (2k + 1)) + E`` forward-units; 90 for three radii and the
    default PGD. The model has to be in eval mode and frozen. ``progress`` counts ``count * probes(radii)`` rows.

    Args:
        model: a classifier.
        data: labelled rows.
        clean_correct: (N,) which of them are right.
        radii: >= 0, ascending, one of them above 0.
        settings: of the attack.
        count: rows to try.
        batch_size: rows a batch.
        progress: see above.
    """
    rows = np.flatnonzero(clean_correct)
    rows = np.sort(np.random.default_rng(settings.seed).permutation(rows)[:count])
    units = 0.0

    def attack(epsilon: float, settings: AttackSettings) -> AttackResult:
        nonlocal units
        result = attack_rows(model, data, rows, epsilon, settings, batch_size)
        units += sum(result.gradients.values()) * (2 + 1 / settings.steps)
        if progress:
            progress(count)
        return result

    radii = [radius for radius in radii if radius > 0]
    fresh = {radius: attack(radius, settings).still_correct for radius in radii}
    random = {radius: _random(model, data, rows, radius, settings, batch_size) for radius in radii}
    units += len(radii) * len(rows)
    half = min(radii, key=lambda radius: abs(2 * int(fresh[radius].sum()) - len(rows)))
    longer = settings.model_copy(update={"steps": 2 * settings.steps})
    anew = settings.model_copy(
        update={"restarts": settings.restarts + 1, "random_start": True, "seed": settings.seed + 1}
    )
    size = max(LARGE, 2 * radii[-1]) if settings.relative else LARGE
    drowned = settings.model_copy(update={"relative": True, "step_size": None})
    checks = _Checks(
        len(rows),
        {radius: int(still_correct.sum()) for radius, still_correct in fresh.items()},
        {radius: int(still_correct.sum()) for radius, still_correct in random.items()},
        half,
        int(attack(half, longer).still_correct.sum()),
        int(attack(half, anew).still_correct.sum()),
        int(attack(size, drowned).still_correct.sum()),
        size,
    )
    return checks.diagnosis(units / max(1, len(rows)), settings)


@dataclass(frozen=True)
class _Checks:
    """Numbers of ``rows`` that hold, where `Diagnosis` gives percent."""

    rows: int
    fresh: Mapping[float, int]
    random: Mapping[float, int]
    epsilon: float
    more_steps: int
    more_restarts: int
    large: int
    large_epsilon: float

    def diagnosis(self, forward_units: float, settings: AttackSettings) -> Diagnosis:
        def percent(still_correct: int) -> float:
            return 100 * still_correct / max(1, self.rows)

        return Diagnosis(
            self.rows,
            {radius: percent(still_correct) for radius, still_correct in self.fresh.items()},
            {radius: percent(still_correct) for radius, still_correct in self.random.items()},
            self.epsilon,
            percent(self.more_steps),
            percent(self.more_restarts),
            percent(self.large),
            self.large_epsilon,
            forward_units,
            [*self._of_radii(), *self._of_effort(settings), *self._of_size(), *self._of_chance()],
        )

    @property
    def slack(self) -> int:
        return max(1, round(SLACK * self.rows))

    def _of_radii(self) -> list[str]:
        radii = list(self.fresh)
        return [
            f"a larger attack broke fewer rows: {self._of(self.fresh[b])} hold at epsilon {b:g} and "
            f"{self._of(self.fresh[a])} at {a:g}; the gradients mislead the attack"
            for a, b in pairwise(radii)
            if self.fresh[b] > self.fresh[a] + self.slack
        ]

    def _of_effort(self, settings: AttackSettings) -> list[str]:
        still_correct, warnings = self.fresh[self.epsilon], []
        efforts = {
            f"twice the steps ({2 * settings.steps})": (self.more_steps, "--steps"),
            f"{settings.restarts + 1} random restarts in place of {settings.restarts}": (
                self.more_restarts,
                "--restarts",
            ),
        }
        for effort, (then, option) in efforts.items():
            if then > still_correct + self.slack:
                warnings.append(
                    f"{effort} broke fewer rows: {self._of(then)} hold at epsilon {self.epsilon:g} in place of "
                    f"{still_correct}; what the attack finds is luck"
                )
            elif still_correct - then > max(self.slack, UNSETTLED * self.rows):
                warnings.append(
                    f"{effort} broke more rows: {self._of(then)} hold at epsilon {self.epsilon:g} in place of "
                    f"{still_correct}; accuracy under attack is too high, raise {option}"
                )
        return warnings

    def _of_size(self) -> list[str]:
        if self.large <= max(self.slack, LEFT * self.rows):
            return []
        return [
            f"{self._of(self.large)} hold though the perturbation is {self.large_epsilon:g} times as large as the "
            f"embeddings, where nothing should: the attack is blind, or the model hardly reads its input"
        ]

    def _of_chance(self) -> list[str]:
        warnings = []
        for radius, still_correct in self.random.items():
            by_chance, by_attack = self.rows - still_correct, self.rows - self.fresh[radius]
            if self.slack < by_chance >= by_attack < self.rows:
                warnings.append(
                    f"chance does as much harm as the attack: random perturbations of size {radius:g} broke "
                    f"{by_chance} of {self.rows} rows and the attack {by_attack}; the gradients mislead the attack"
                )
        return warnings

    def _of(self, still_correct: int) -> str:
        return f"{still_correct} of {self.rows} rows"


def _random(
    model: AnyModel, data: Encoded, rows: np.ndarray, epsilon: float, settings: AttackSettings, batch_size: int
) -> np.ndarray:
    """Mask (N,) of the ``rows`` that hold under one random perturbation of norm ``epsilon``."""
    other = settings.model_copy(update={"seed": settings.seed + 2})

    def right(chosen: np.ndarray, batch: Batch) -> np.ndarray:
        inputs = perturbation_inputs(model, batch)
        ball = ball_of(inputs, chosen, epsilon, other, attempt=0)
        assert isinstance(ball.epsilon, Tensor)
        directions = direction(ball.init(inputs, random=True).detach(), settings.norm)
        with torch.no_grad():
            logits = logits_of(
                model, batch, (directions * ball.epsilon).to(directions.dtype), bn_branch=settings.bn_branch
            )
        return (logits.argmax(-1) == batch["labels"]).cpu().numpy()

    still_correct = np.zeros(len(data), dtype=bool)
    for chosen, intact in map_batches(model, data, rows, batch_size, right):
        still_correct[chosen] = intact
    return still_correct
