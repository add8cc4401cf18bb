"""contraverse: train encoders on adversarial views of their inputs, and measure how robust they are.

``__init__.pyi`` beside this file is the export list. A name is imported on first use, so that ``import contraverse``
and the command line's ``--help`` do not wait for PyTorch.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def _read_exports() -> dict[str, str]:
    """Module of each name in the export list; a subpackage's own name is listed under ``contraverse``."""
    stub = ast.parse((Path(__path__[0]) / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_EXPORTS = _read_exports()
_SUBPACKAGES = [name for name, module in _EXPORTS.items() if module == __name__]

__all__ = sorted(set(_EXPORTS) - set(_SUBPACKAGES))


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        # With ``name`` and ``obj`` Python adds the nearest name: "Did you mean: 'TRADES'?"
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    if name in _SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*_EXPORTS, "__all__", "__doc__", "__version__"])
