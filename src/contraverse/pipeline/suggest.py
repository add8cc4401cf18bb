"""The next trial of a search: Optuna's tree-structured Parzen estimator on the trials so far."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contraverse.errors import UserError
from contraverse.recipes import Choices, Range

if TYPE_CHECKING:
    import optuna

Tried = tuple[Mapping[str, Any], float | None]
"""Settings and the value that they gave, None where the trial failed."""

_NULL = " is null"


def suggest(
    space: Mapping[str, Range | Choices], base: Mapping[str, Any], tried: Sequence[Tried], seed: int
) -> dict[str, Any]:
    """Settings for the next trial: a function of the arguments alone.

    Args:
        space: what may be varied, by dotted name.
        base: the configuration that is varied, as nested sections; tried first where it lies in the space.
        tried: the trials before, in order. Failed ones teach nothing.
        seed: of the draws; each trial has its own stream, so that a resumed search repeats none.

    Raises:
        UserError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        hint = "pip install 'contraverse[search]', or optuna itself"
        raise UserError("a search needs Optuna, which is not installed", hint=hint) from error
    own = {name: _at(base, name) for name in space}
    if not tried and all(own[name] in values for name, values in space.items()):
        return own
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stream = int(np.random.SeedSequence([seed, len(tried)]).generate_state(1)[0])
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=stream))
    for settings, value in tried:
        study.add_trial(_past(space, settings, value))
    trial = study.ask()
    return {name: _draw(trial, name, values) for name, values in space.items()}


def _at(base: Mapping[str, Any], name: str) -> Any:
    value: Any = base
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _draw(trial: "optuna.Trial", name: str, values: Range | Choices) -> Any:
    if isinstance(values, Choices):
        return values.values[trial.suggest_categorical(name, range(len(values.values)))]
    if values.null and trial.suggest_categorical(name + _NULL, (False, True)):
        return None
    if values.whole:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    number = trial.suggest_float(name, values.low, values.high, log=values.log)
    # Three digits are as many as a person wants to read, and more than a search can tell apart.
    return min(max(float(f"{number:.3g}"), float(values.low)), float(values.high))


def _past(
    space: Mapping[str, Range | Choices], settings: Mapping[str, Any], value: float | None
) -> "optuna.trial.FrozenTrial":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    params: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for name, values in space.items():
        setting = settings[name]
        if isinstance(values, Choices):
            params[name] = values.values.index(setting)
            kinds[name] = CategoricalDistribution(range(len(values.values)))
            continue
        if values.null:
            params[name + _NULL], kinds[name + _NULL] = setting is None, CategoricalDistribution((False, True))
        if setting is None:
            continue
        params[name] = setting
        if values.whole:
            kinds[name] = IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            kinds[name] = FloatDistribution(values.low, values.high, log=values.log)
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    return create_trial(state=state, value=value, params=params, distributions=kinds)
