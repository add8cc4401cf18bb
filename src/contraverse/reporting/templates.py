"""The package's Jinja templates."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from contraverse.visible import visible


def template(name: str, *, escape: bool, filters: Mapping[str, Callable[..., Any]] | None = None) -> Template:
    """The template ``name`` of this package. ``escape``: make every value inert in HTML, and hidden characters seen."""
    environment = Environment(
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible if escape else None,
    )
    environment.filters.update(filters or {})
    return environment.from_string(files("contraverse.reporting").joinpath(name).read_text(encoding="utf-8"))


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
