"""What there is to choose from, for people and for programs."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from contraverse.attacks import ATTACKS
from contraverse.cli.console import result
from contraverse.data import IMAGE_TASKS, TASKS
from contraverse.methods import METHODS
from contraverse.noise import KINDS
from contraverse.recipes import RECIPES

KNOWN = {"methods": METHODS, "recipes": RECIPES, "tasks": TASKS | IMAGE_TASKS, "attacks": ATTACKS, "noise": KINDS}


@pytest.mark.parametrize("what", KNOWN)
def test_json_is_a_list_of_objects_with_name_and_summary(invoke: Any, what: str) -> None:
    listed = json.loads(invoke("list", what, "--json").stdout)
    assert [row["name"] for row in listed] == list(KNOWN[what])
    assert all(row["summary"] for row in listed)


def test_methods_have_their_paper_equation_and_cost(invoke: Any) -> None:
    listed = {row["name"]: row for row in json.loads(invoke("list", "methods", "--json").stdout)}
    assert all(row["paper"] and row["equation"] for row in listed.values())
    assert {name: listed[name]["cost"] for name in ("ce", "simcse", "scal", "uscal")} == {
        "ce": "3F",
        "simcse": "6F",
        "scal": "7F",
        "uscal": "10F",
    }


@pytest.mark.parametrize("what", KNOWN)
def test_the_table_names_all_of_them(invoke: Any, what: str) -> None:
    table = invoke("list", what).stdout
    assert all(name in table for name in KNOWN[what])


def test_recipes_are_listed_without_torch() -> None:
    code = (
        "import sys; from contraverse.cli.app import app; app(['list', 'recipes'], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_methods_take_one_line_each_at_80_columns(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "_width", 80)
    lines = invoke("list", "methods").stdout.splitlines()
    for name, method in METHODS.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.rstrip()) <= 80
        assert line.split()[1:3] == [method().requires, method().cost]
        assert method.summary.startswith(line.split(maxsplit=3)[3].rstrip("… "))


def test_kinds_of_noise_with_the_shares_of_their_strengths(invoke: Any) -> None:
    rows = json.loads(invoke("list", "noise", "--json").stdout)
    assert [row["name"] for row in rows] == list(KINDS)
    assert rows[0]["shares"] == "5 10 20 35 50 %"
    assert "keyboard" in invoke("list", "noise").stdout


@pytest.mark.parametrize("columns", ["0", "5", "wide"])
def test_odd_widths_of_the_terminal_leave_the_text(columns: str) -> None:
    """With COLUMNS=0 help and tables were empty."""
    for arguments, words in ((["list", "--help"], "Kind of thing"), (["list", "attacks"], "autoattack")):
        code = f"import sys; from contraverse.cli import main; sys.argv[1:] = {arguments}; main()"
        environment = {**os.environ, "COLUMNS": columns}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert words in done.stdout
