"""The shape of the package `contraverse.data`: imports run one way, on few floors."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import contraverse.data

ROOT = Path(contraverse.data.__file__).parent
MOST_FLOORS = 8


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


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_variable_is_called_what_it_holds(module: str) -> None:
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert stored.isdisjoint({"found", "given", "said", "told", "one", "look"})


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_docstring_begins_with_a_verb_or_a_noun(module: str) -> None:
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    strings = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    bad = re.compile(r"(What|Of|Whether|Which|Whoever|How|That|So|Those|It)\b")
    assert [text for text in strings if isinstance(text, str) and bad.match(text.strip())] == []
