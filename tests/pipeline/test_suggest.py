"""What a search tries: inside the space, the same for the same seed and history, and better as it goes on."""

from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.pipeline.suggest import suggest
from contraverse.recipes import Choices, Range

pytest.importorskip("optuna")

SPACE: dict[str, Range | Choices] = {
    "method.gamma": Range(0, 0.8),
    "method.epsilon": Range(0.01, 0.5, null=True),
    "method.steps": Range(2, 4),
    "train.learning_rate": Range(1e-5, 1e-3, log=True),
    "method.attack": Choices(("fgm", "fgsm", None)),
}


def go(trials: int, seed: int = 0, base: Any = None, tried: Any = ()) -> list[tuple[dict[str, Any], float | None]]:
    """A search whose value is best at gamma .6 and a rate of 1e-4; every fifth trial fails."""
    found = list(tried)
    while len(found) < trials:
        settings = suggest(SPACE, base or {}, found, seed)
        value = -abs(settings["method.gamma"] - 0.6) - abs(settings["train.learning_rate"] - 1e-4) * 1e3
        found.append((settings, None if len(found) % 5 == 4 else value))
    return found


def test_all_that_is_tried_lies_in_the_space() -> None:
    tried = [settings for settings, _ in go(40)]
    assert all(settings[name] in SPACE[name] for settings in tried for name in SPACE)
    assert all(isinstance(settings["method.steps"], int) for settings in tried)
    for name in ("method.steps", "method.attack"):
        assert {settings[name] for settings in tried} == {"method.steps": {2, 3, 4}}.get(name, {"fgm", "fgsm", None})
    unlimited = sum(settings["method.epsilon"] is None for settings in tried)
    assert 5 < unlimited < 35
    rates = [settings["train.learning_rate"] for settings in tried]
    assert 5 < sum(rate < 1e-4 for rate in rates) < 35  # on a plain scale it would be one in eleven
    assert all(f"{rate:.3g}" == f"{rate:.10g}" for rate in rates)


def test_a_seed_and_what_was_tried_decide() -> None:
    whole = go(14)
    assert go(14) == whole
    assert go(14, tried=whole[:6]) == whole
    assert go(14, seed=1)[3] != whole[3]
    drawn = [tuple(settings.values()) for settings, _ in whole]
    assert len(set(drawn)) == len(drawn)  # a search that goes on draws nothing twice


def test_later_trials_are_better() -> None:
    values = [[value for _, value in go(40, seed) if value is not None] for seed in range(3)]
    first, last = (sum(sum(v[a:b]) / 8 for v in values) / 3 for a, b in ((0, 8), (-8, None)))
    assert last > first / 2


@pytest.mark.parametrize(("gamma", "inside"), [(0.3, True), (0.9, False)])
def test_the_configuration_itself_is_tried_first_where_it_lies_in_the_space(gamma: float, inside: bool) -> None:
    method = {"gamma": gamma, "epsilon": None, "steps": 3, "attack": "fgm"}
    first = suggest(SPACE, {"method": method, "train": {"learning_rate": 3e-5}}, [], 0)
    own = {f"method.{name}": value for name, value in method.items()} | {"train.learning_rate": 3e-5}
    assert (first == own) is inside
    assert all(first[name] in SPACE[name] for name in SPACE)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"contraverse\[search\]"):
        suggest(SPACE, {}, [], 0)
