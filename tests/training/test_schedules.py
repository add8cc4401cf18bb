"""The whole list of rates that a run gets, as the papers' code gives it, and through LambdaLR."""

import math
import warnings
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from contraverse.errors import UserError
from contraverse.training.schedules import Schedule, cosine, learning_rates, milestones


def through_torch(schedule: Schedule, rate: float, steps: int) -> list[float]:
    """What an optimizer is given when its scheduler steps after each of its steps."""
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=rate)
    scheduler, found = LambdaLR(optimizer, schedule), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_rate_decays_at_the_start_of_a_milestone() -> None:
    schedule = milestones((15, 20), 3)
    expected = [0.1] * 14 * 3 + [0.01] * 5 * 3 + [0.001] * 6 * 3
    assert len(expected) == 25 * 3
    assert learning_rates(schedule, 0.1, 75) == pytest.approx(expected, rel=1e-12)
    assert through_torch(schedule, 0.1, 75) == pytest.approx(expected, rel=1e-12)


def test_it_is_the_schedule_of_code_that_steps_before_each_epoch() -> None:
    """ACL's fine-tuning: ``for epoch in 1 ... 25: scheduler.step(); train()``."""
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    scheduler, found = MultiStepLR(optimizer, [15, 20]), []
    for _ in range(25):
        with warnings.catch_warnings():  # torch advises to step after the optimizer
            warnings.simplefilter("ignore")
            scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    assert learning_rates(milestones((15, 20), 1), 0.1, 25) == pytest.approx(found, rel=1e-12)


def test_no_milestone_and_one_at_the_first_epoch() -> None:
    assert learning_rates(milestones((), 2), 1.0, 4) == [1.0] * 4
    assert learning_rates(milestones((1, 2), 2, factor=0.5), 1.0, 4) == [0.5, 0.5, 0.25, 0.25]


def test_cosine_warms_up_by_the_step_and_ends_on_its_floor() -> None:
    """ACL pre-trains with rate 5: ten epochs of warm-up, then down to 1e-6; here with 4 steps an epoch."""
    schedule = cosine(30, 4, warmup_epochs=10, floor=1e-6 / 5)
    found = learning_rates(schedule, 5.0, 120)
    expected = [5 * n / 40 for n in range(1, 40)]
    expected += [1e-6 + (5 - 1e-6) * 0.5 * (1 + math.cos(math.pi * n / 80)) for n in range(81)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert (found[0], found[39]) == (5 / 40, 5.0)
    assert found[-1] == pytest.approx(1e-6, rel=1e-12)
    assert through_torch(schedule, 5.0, 120) == pytest.approx(expected, rel=1e-12)


def test_cosine_by_the_epoch_holds_what_stands_at_its_start() -> None:
    """DynACL's code steps its scheduler after an epoch: with a warm-up the first epoch has rate 0."""
    found = learning_rates(cosine(6, 2, warmup_epochs=2, every="epoch"), 4.0, 12)
    by_epoch = [0.0, 2.0, 4.0] + [2 * (1 + math.cos(math.pi * n / 4)) for n in (1, 2, 3)]
    assert found == pytest.approx([rate for rate in by_epoch for _ in range(2)], abs=1e-12)


def test_without_a_warm_up_the_rate_only_falls_and_stays_down_after_the_end() -> None:
    found = learning_rates(cosine(5, 3, floor=0.1), 1.0, 20)
    assert all(a > b for a, b in pairwise(found[:15]))
    assert found[14:] == pytest.approx([0.1] * 6)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: milestones((20, 15), 1), "ascend"),
        (lambda: milestones((0,), 1), "ascend"),
        (lambda: milestones((5,), 0), "at least 1 step"),
        (lambda: milestones((5,), 1, factor=0.0), "factor"),
        (lambda: cosine(10, 1, warmup_epochs=10), "leaves none"),
        (lambda: cosine(10, 1, floor=5.0), "fraction"),
        (lambda: cosine(10, 0), "at least 1 step"),
        (lambda: cosine(10, 1, every="year"), "step or epoch"),  # type: ignore[arg-type]
    ],
)
def test_settings_have_ranges(make: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()  # type: ignore[operator]
