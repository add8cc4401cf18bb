"""No method yields inside a ``with``."""

import ast
import inspect
import textwrap
from typing import Any

import pytest

from contraverse.methods import METHODS


class _Yields(ast.NodeVisitor):
    """Lines of the yields that stand inside a ``with``."""

    def __init__(self) -> None:
        self.inside, self.found, self.total = 0, [], 0

    def _with(self, node: Any) -> None:
        self.inside += 1
        self.generic_visit(node)
        self.inside -= 1

    visit_With = visit_AsyncWith = _with

    def _yield(self, node: Any) -> None:
        self.total += 1
        if self.inside:
            self.found.append(node.lineno)
        self.generic_visit(node)

    visit_Yield = visit_YieldFrom = _yield


@pytest.mark.parametrize("name", list(METHODS))
def test_no_yield_stands_inside_a_with(name: str) -> None:
    """A ``no_grad`` or autocast would leak into the driver."""
    visitor = _Yields()
    for cls in METHODS[name].__mro__:
        if cls.__module__.startswith("contraverse.methods"):  # one that builds on another yields there
            visitor.visit(ast.parse(textwrap.dedent(inspect.getsource(cls))))
    assert visitor.total >= 1
    assert visitor.found == []


def test_the_search_for_yields_finds_one() -> None:
    visitor = _Yields()
    visitor.visit(ast.parse("def f():\n  with a:\n    if b:\n      yield 1\n  yield 2"))
    assert (visitor.found, visitor.total) == ([4], 2)
