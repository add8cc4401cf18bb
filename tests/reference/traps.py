"""A docstring that lists traps, and under each the tests that catch it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def table(doc: str | None) -> dict[str, list[str]]:
    """``{"T1": ["tests/file.py::test_name", ...], ...}``, from lines ``T1 what`` and indented ones below."""
    found: dict[str, list[str]] = {}
    trap = ""
    for line in (doc or "").splitlines():
        if head := re.match(r"T\d+ ", line):
            trap = head[0].strip()
            found[trap] = []
        elif line.startswith("    "):
            found[trap].append(line.strip())
    return found


def names(doc: str | None) -> list[str]:
    """All tests of the table, each once."""
    return sorted({name for tests in table(doc).values() for name in tests})


def assert_it_says_something(named: str) -> None:
    """The test exists, and holds an assertion or calls what does."""
    file, function = named.split("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    body = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in body, f"{file} has no {function}"
    says = [node for node in ast.walk(body[function]) if isinstance(node, ast.Assert)]
    text = ast.unparse(body[function])
    assert says or "assert_" in text or "raises" in text
