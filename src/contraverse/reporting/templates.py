"""The package's Jinja templates."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


def template(name: str, *, escape: bool, filters: Mapping[str, Callable[..., Any]] | None = None) -> Template:
    """The template ``name`` of this package. ``escape``: make every value inert in HTML."""
    environment = Environment(autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(filters or {})
    return environment.from_string(files("contraverse.reporting").joinpath(name).read_text(encoding="utf-8"))
