"""Settings laid over settings: nested sections, and their dotted names."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

_NAMED = ("method", "optimizer", "schedule")
_BATCH = ("global_batch_size", "per_device_train_batch_size")


def merge(below: Mapping[str, Any], above: Mapping[str, Any], *, beside: bool = False) -> dict[str, Any]:
    """``below`` with the values of ``above`` over it, section by section.

    ``beside``: the two are parts of one layer, so that neither stands above the other where they say a batch twice.
    """
    merged = dict(deepcopy(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            # The settings of one method, optimizer or schedule mean nothing to another.
            names = [section["name"] for section in (merged[key], value) if key in _NAMED and "name" in section]
            other = names[1:] and names[0] != names[1]
            merged[key] = dict(value) if other else merge(merged[key], value, beside=beside)
        else:
            merged[key] = deepcopy(value)
    # Two ways to say one thing: what is set above takes the place of the other below.
    for name, other in (_BATCH, _BATCH[::-1]):
        if not beside and above.get(name) is not None and above.get(other) is None:
            merged.pop(other, None)
    return merged


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"method.epsilon": 0.3}`` as ``{"method": {"epsilon": 0.3}}``; later ones win."""
    whole: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = {last: value}
        for outer in reversed(sections):
            section = {outer: section}
        whole = merge(whole, section, beside=True)
    return whole


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in ``settings`` by dotted name: the inverse of `nested`."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
