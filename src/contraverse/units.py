"""Numbers as their users write them. Imports without torch."""

from typing import Annotated, Any

from pydantic import BeforeValidator


def fraction(written: Any) -> Any:
    """``"8/255"`` as a number; anything else as it is, for pydantic to judge."""
    if not isinstance(written, str) or "/" not in written:
        return written
    above, _, below = written.partition("/")
    try:
        return float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        return written


def shown(epsilon: float) -> str:
    """A radius for a reader: 0.3 as it is, .0313725 as 8/255, the unit of pixels."""
    plain = f"{epsilon:g}"
    steps = round(epsilon * 255)
    if len(plain.partition(".")[2]) > 4 and steps > 0 and abs(epsilon * 255 - steps) < 1e-3:
        return f"{steps}/255"
    return plain


Number = Annotated[float, BeforeValidator(fraction)]
"""A float that may be written as a fraction."""
