"""Schedules of the learning rate: functions that `torch.optim.lr_scheduler.LambdaLR` takes.

A schedule maps the number of steps that were made (0 before the first) to a factor of the largest rate. All are written
so that ``LambdaLR`` is stepped once after each step of the optimizer, as transformers does: the n-th step, counted from
1, has ``schedule(n - 1)`` times the largest rate. `learning_rates` lists the rates of a run.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from contraverse.errors import UserError

Schedule = Callable[[int], float]


def milestones(epochs: Sequence[int], steps_per_epoch: int, *, factor: float = 0.1) -> Schedule:
    """The rate times ``factor`` from each of these epochs on, which count from 1.

    ACL fine-tunes for 25 epochs with (15, 20): its scheduler steps before an epoch, so that epochs 1 to 14 have the
    whole rate and the 15th is the first with a tenth. Code that steps after an epoch and names 10 and 20 (DynACL's
    probe) has 10 whole epochs: that is (11, 21) here.

    Args:
        epochs: the first epoch at each lower rate, >= 1, ascending.
        steps_per_epoch: of the optimizer, >= 1.
        factor: in (0, 1].

    Raises:
        UserError: epochs that do not ascend from 1, or another setting out of its range.
    """
    if list(epochs) != sorted(set(epochs)) or (epochs and epochs[0] < 1):
        raise UserError(f"milestones {list(epochs)} do not ascend", hint="epochs count from 1, for example 15, 20")
    if not 0 < factor <= 1:
        raise UserError(f"factor must be above 0 and at most 1, not {factor}")
    _check_steps(steps_per_epoch)

    def at(step: int) -> float:
        epoch = step // steps_per_epoch + 1
        return factor ** sum(epoch >= milestone for milestone in epochs)

    return at


def cosine(
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: int = 0,
    floor: float = 0.0,
    every: Literal["step", "epoch"] = "step",
) -> Schedule:
    """A linear warm-up from 0 to 1, then half a cosine down to ``floor``.

    After the part p of the epochs since the warm-up: ``floor + (1 - floor) (1 + cos(pi p)) / 2``.

    Args:
        epochs: of the run, above ``warmup_epochs``.
        steps_per_epoch: of the optimizer, >= 1.
        warmup_epochs: >= 0. ACL: 10.
        floor: the smallest rate as a fraction of the largest, in [0, 1]. ACL: 1e-6 / 5.
        every: ``"step"`` counts the step itself, as ACL does: the first step has 1 / (steps of the warm-up) and the
            last one exactly ``floor``. ``"epoch"`` holds for an epoch the value at its start, as DynACL does: with a
            warm-up the whole first epoch then has rate 0.

    Raises:
        UserError: a setting is out of its range.
    """
    if not 0 <= warmup_epochs < epochs:
        hint = "shorten it with the run: train.schedule.warmup_epochs"
        raise UserError(f"a warm-up of {warmup_epochs} epochs leaves none of {epochs}", hint=hint)
    if not 0 <= floor <= 1:
        raise UserError(f"floor must be in [0, 1], not {floor}", hint="it is a fraction of the largest rate")
    if every not in ("step", "epoch"):
        raise UserError(f"a schedule cannot change every {every!r}", hint="use step or epoch")
    _check_steps(steps_per_epoch)
    # Counted in steps or in whole epochs: both are integers, so that the ends are met exactly.
    unit = steps_per_epoch if every == "step" else 1
    warm, total = warmup_epochs * unit, epochs * unit

    def at(step: int) -> float:
        done = min(step + 1 if every == "step" else step // steps_per_epoch, total)
        if done < warm:
            return done / warm
        return floor + (1 - floor) * (1 + math.cos(math.pi * (done - warm) / (total - warm))) / 2

    return at


def learning_rates(schedule: Schedule, learning_rate: float, steps: int) -> list[float]:
    """The rate of each of the first ``steps`` steps of a run."""
    return [learning_rate * schedule(step) for step in range(steps)]


def _check_steps(steps_per_epoch: int) -> None:
    if steps_per_epoch < 1:
        raise UserError(f"an epoch has at least 1 step, not {steps_per_epoch}")


def build_schedule(name: str, run_epochs: int, steps_per_epoch: int, **settings: Any) -> Schedule:
    """A schedule by name.

    Args:
        name: ``"milestones"`` or ``"cosine"``.
        run_epochs: of the whole run.
        steps_per_epoch: of the optimizer.
        settings: the schedule's own, by name.

    Raises:
        UserError: no such schedule, a setting that it does not have, or one out of its range.
    """
    if name not in ("milestones", "cosine"):
        raise UserError(f"no schedule is called {name!r}", hint="use milestones or cosine")
    try:
        if name == "milestones":
            return milestones(steps_per_epoch=steps_per_epoch, **settings)
        return cosine(run_epochs, steps_per_epoch, **settings)
    except TypeError as error:
        raise UserError(f"{name} cannot be built: {error}", hint=f"see {name} for its settings") from error
