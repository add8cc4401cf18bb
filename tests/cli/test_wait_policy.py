"""Threads of the command line sleep while they wait, unless the user has set how they wait."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SHOW = "import os; print(*(os.environ.get(name, '-') for name in {names}))"
COMMAND = """
import sys, contraverse.cli
assert "torch" not in sys.modules
sys.argv = ["contraverse", "--help"]
try:
    contraverse.cli.main()
except SystemExit:
    pass
"""


def policies(code: str, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | variables
    code = f"{code}\n{SHOW.format(names=NAMES)}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["passive", "-", "-"]),
        ({"OMP_WAIT_POLICY": "active"}, ["active", "-", "-"]),
        ({"GOMP_SPINCOUNT": "100"}, ["-", "100", "-"]),
        ({"KMP_BLOCKTIME": "1"}, ["-", "-", "1"]),
    ],
)
def test_the_command_line_waits_passively_unless_told(variables: dict[str, str], expected: list[str]) -> None:
    assert policies(COMMAND, **variables) == expected


def test_an_import_leaves_the_environment_alone() -> None:
    assert policies("import contraverse.attacks") == ["-", "-", "-"]
