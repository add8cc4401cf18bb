"""The package's shape: imports run one way, files stay short, and the command line starts without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "contraverse"
MAX_LINES = 400

LAYERS = (
    ("errors", "units", "visible"),
    ("types", "writing"),
    ("noise",),
    ("functional",),
    ("data",),
    ("attacks",),
    ("models",),
    ("methods",),
    ("training",),
    ("evaluation",),
    ("evasion",),
    ("recipes",),
    ("planning",),
    ("reporting",),
    ("pipeline",),
    ("cli",),
)
"""Lowest first: a module may import from its own package and from the layers before it."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ABOVE_ALL = {"__init__", "__main__"}
"""The package's own front and entry point may import anything."""


def part_of(path: Path, package: Path) -> str:
    """The name in LEVEL that a file belongs to: ``attacks/balls.py`` -> ``attacks``, ``types.py`` -> ``types``."""
    first = path.relative_to(package).parts[0]
    return first.removesuffix(".py")


def imported(path: Path, package: Path) -> Iterator[str]:
    """Every part of contraverse that a file imports, at its head or inside a function."""
    here = ["contraverse", *path.relative_to(package).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "contraverse" else [module]
        else:
            continue
        for name in names:
            if name.startswith("contraverse.") and not name.startswith("contraverse.__"):
                yield name.split(".")[1]


def violations(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        here = part_of(path, package)
        if here in ABOVE_ALL:
            continue
        for there in imported(path, package):
            if here not in LEVEL:
                found.append(f"{path.name}: {here} is in no layer")
            elif there not in LEVEL:
                found.append(f"{path.relative_to(package)} imports {there}, which is in no layer")
            elif there != here and LEVEL[there] >= LEVEL[here]:
                found.append(f"{path.relative_to(package)} imports {there}, which is not below {here}")
    return found


def test_imports_run_downwards() -> None:
    assert violations(PACKAGE) == []


def test_every_part_of_the_package_is_in_a_layer() -> None:
    parts = {part_of(path, PACKAGE) for path in PACKAGE.rglob("*.py")} - ABOVE_ALL
    assert parts == set(LEVEL)


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("types.py", "import contraverse.attacks", "not below types"),
        ("attacks/a.py", "from contraverse.cli import main", "not below attacks"),
        ("attacks/a.py", "from contraverse import methods", "not below attacks"),
        ("attacks/a.py", "from ..cli import main", "not below attacks"),
        ("attacks/a.py", "from .. import methods", "not below attacks"),
        ("data/a.py", "def f():\n    from contraverse.training.step import step", "not below data"),
        ("extras/a.py", "import contraverse.types", "in no layer"),
        ("cli/a.py", "import contraverse.extras", "in no layer"),
    ],
)
def test_the_check_finds_an_import_upwards(tmp_path: Path, file: str, code: str, says: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    (found,) = violations(tmp_path)
    assert says in found


def test_the_check_lets_imports_downwards_pass(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "a.py").write_text("import torch\nfrom contraverse.types import Loss\nfrom .b import c")
    (tmp_path / "__init__.py").write_text("import contraverse.cli")
    assert violations(tmp_path) == []


@pytest.mark.parametrize("module", ["contraverse", "contraverse.cli.app", "contraverse.recipes"])
def test_the_command_line_starts_without_the_heavy_libraries(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "transformers", "datasets", "sentence_transformers", "accelerate", "sklearn", "matplotlib"}
    assert heavy.isdisjoint(loaded), f"import {module} loads {sorted(heavy.intersection(loaded))}"


def test_no_file_is_too_long() -> None:
    folders = [ROOT / name for name in ("src", "tests", "examples", "benchmarks")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
