"""The package's front door: every public name can be imported, is listed, and loads torch only when it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import contraverse
from contraverse.methods import METHODS

PACKAGE = Path(contraverse.__path__[0])
SUBPACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_export_resolves_to_what_its_module_holds() -> None:
    for name in contraverse.__all__:
        assert getattr(contraverse, name) is not None
    assert contraverse.TextModel.__module__ == "contraverse.models.text"
    assert contraverse.TRADES is METHODS["trades"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_exported(name: str) -> None:
    method = METHODS[name]
    assert getattr(contraverse, method.__name__) is method
    assert method.__name__ in contraverse.__all__


@pytest.mark.parametrize(
    "name",
    [
        *("TextModel", "ImageModel", "load_model", "TextData", "ImageData", "load_splits", "load_images"),
        *("Trainer", "step", "evaluate", "robust_accuracy", "attack", "predict", "auto_attack", "run", "configure"),
        *("Method", "Loss", "HeadSpec", "Outputs", "Batch", "NormBall", "pgd", "METHODS", "UserError"),
    ],
)
def test_what_the_pages_use_is_exported(name: str) -> None:
    assert name in contraverse.__all__


def test_dir_and_tab_completion_show_all_names_and_subpackages() -> None:
    assert set(dir(contraverse)) >= {*contraverse.__all__, *SUBPACKAGES, "__version__"}
    assert not [name for name in dir(contraverse) if name.startswith("_") and not name.startswith("__")]


def test_subpackages_resolve_without_an_import_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SUBPACKAGES:
        monkeypatch.delattr(contraverse, name, raising=False)
        assert getattr(contraverse, name).__name__ == f"contraverse.{name}"


def test_a_star_import_gives_the_exports_alone() -> None:
    names: dict[str, object] = {}
    exec("from contraverse import *", names)
    assert sorted(names.keys() - {"__builtins__"}) == contraverse.__all__


def test_import_and_dir_load_no_torch() -> None:
    code = "import sys, contraverse as c; dir(c), c.__all__, c.UserError; print('torch' in sys.modules)"
    assert python(code) == "False"
    assert python(code.replace("UserError", "NormBall")) == "True"


def test_a_name_that_is_not_there_is_answered_with_the_nearest() -> None:
    code = "import contraverse\ncontraverse.TextModle"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'contraverse' has no attribute 'TextModle'. Did you mean: 'TextModel'?" in done.stderr


def test_python_m_contraverse_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "contraverse", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: contraverse" in done.stdout
