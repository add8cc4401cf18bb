"""The shape of the package `contraverse.data`: imports run one way, on few floors."""

import ast
from functools import cache
from pathlib import Path

import contraverse.data

ROOT = Path(contraverse.data.__file__).parent
MOST_FLOORS = 8
MOST_FILES = 25
"""Lower it when there are fewer."""


def module_of(path: Path) -> str:
    name = ".".join(("contraverse", "data", *path.relative_to(ROOT).with_suffix("").parts))
    return name.removesuffix(".__init__")


FILES = {module_of(path): path for path in ROOT.rglob("*.py")}


def imported(module: str) -> set[str]:
    """Modules of the package that ``module`` imports when it is loaded."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    names = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    return {name for name in names if name in FILES}


@cache
def floor_of(module: str) -> int:
    """1 for a module that imports none of the package."""
    return 1 + max(map(floor_of, imported(module)), default=0)


def test_the_package_has_at_most_eight_floors() -> None:
    floors = {module: floor_of(module) for module in FILES}
    assert max(floors.values()) <= MOST_FLOORS, floors


def test_the_package_has_no_more_files_than_it_had() -> None:
    assert len(FILES) <= MOST_FILES, sorted(FILES)
