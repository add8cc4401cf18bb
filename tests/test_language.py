"""The package's language: wordings begin with a verb or a noun, and variables are called what they hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "contraverse"

OPENING = re.compile(r"\W*(What|Of|Whether|Which|Whoever|How|That|So|Those|It)\b")
WORDED = {"help", "description", "summary"}
NAMES = {"found", "given", "said", "told", "one", "way", "look"}


def constant(node: ast.expr | None) -> str | None:
    """Text of a string, or the text before the first placeholder of an f-string; None for any other expression."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0] if node.values else None
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def wordings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, attribute docstring, help, description and summary."""
    for node in ast.walk(tree):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Expr) or (isinstance(node, ast.keyword) and node.arg in WORDED):
            values = [node.value]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = [node.value for target in targets if isinstance(target, ast.Name) and target.id in WORDED]
        for value in values:
            if (text := constant(value)) is not None:
                yield getattr(value, "lineno", 0), text


def variables(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every variable and argument. Fields of a class are left out: they are its public names."""
    fields = {
        statement.target
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            yield node.lineno, node.name


def faults(package: Path) -> list[str]:
    """Wordings and names that break the rules, with file and line."""
    messages = []
    for path in sorted(package.rglob("*.py")):
        tree, file = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(package)
        messages += [f"{file}:{line}: {text[:60]!r}" for line, text in wordings(tree) if OPENING.match(text)]
        messages += [f"{file}:{line}: a variable called {name}" for line, name in variables(tree) if name in NAMES]
    return messages


def test_docstrings_and_help_texts_begin_with_a_verb_or_a_noun_and_variables_say_what_they_hold() -> None:
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    "code",
    [
        '"""What the module does."""',
        'def f():\n    """Whether it holds."""',
        'class A:\n    """Of a run."""',
        'class A:\n    x: int = 1\n    """How many."""',
        'option = typer.Option(help="Which rows are attacked.")',
        'option = typer.Option(help=f"Of at most {MOST} rows.")',
        'field = Field(description="That is all.")',
        'task = Task(summary="What is asked", question="What is asked?")',
        'class A:\n    summary: str = "How it is trained"',
        '"""``What`` it is."""',
        "found = 1",
        "total: int = (given := 1)",
        "def f(told): ...",
        "f = lambda one: one",
        "[way for way in ()]",
        "for said, _ in (): ...",
        "match x:\n    case [look]: ...",
    ],
)
def test_the_check_finds_a_fault(tmp_path: Path, code: str) -> None:
    (tmp_path / "a.py").write_text(code)
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize(
    "code",
    [
        '"""Offset of a row."""',
        'task = Task(summary="Kind of answer", question="What is asked?")',
        "class A:\n    found: int = 1",
        "print(report.found)",
        'x = "What the program says"',
    ],
)
def test_the_check_lets_plain_language_pass(tmp_path: Path, code: str) -> None:
    (tmp_path / "a.py").write_text(code)
    assert faults(tmp_path) == []
