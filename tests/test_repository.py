"""What holds the repository together: versions, pins, make targets, the package's contents."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import contraverse

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_one_version() -> None:
    assert PROJECT["version"] == contraverse.__version__
    assert f"## [{contraverse.__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned_to_a_version_that_the_project_admits() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_licence_is_apache_2() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2


@needs_make
def test_make_lists_every_target() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert re.findall(r"^  make (\S+) +\w", make().stdout, flags=re.MULTILINE) == targets.split()


@needs_make
def test_make_names_the_way_out_where_python_is_missing_or_old(tmp_path: Path) -> None:
    missing = make("setup", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}")
    assert missing.returncode != 0
    assert "no-such-python not found" in missing.stderr
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1\nexit 1\n')
    old.chmod(0o755)
    refused = make("setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert refused.returncode != 0
    assert "Python 3.9.1; Python 3.11 or newer is needed" in refused.stderr
    assert not (tmp_path / "venv").exists()


@needs_make
@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_targets_that_are_named_exist(page: str) -> None:
    named = set(re.findall(r"(?:^|timed |`)make ([a-z-]+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))


def test_ci_runs_the_check_and_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text()
    assert re.findall(r"^timed (make \w+)", lines, re.MULTILINE) == ["make setup", "make check", "make test"]
    assert "timed make check &" in lines
    assert re.search(r"^checking=\$!\n(.*\n)*wait \$checking$", lines, re.MULTILINE), "a check that fails ends the run"
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_wheel_holds_all_that_the_package_reads(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("contraverse-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("contraverse/")}
    assert held == {
        str(path.relative_to(tmp_path / "src"))
        for path in (tmp_path / "src" / "contraverse").rglob("*")
        if path.is_file()
    }
