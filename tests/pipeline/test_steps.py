"""Text or image is decided in one place, by the configuration; methods declare what they need of a run."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import contraverse.pipeline
from contraverse.methods import METHODS
from contraverse.pipeline import run
from contraverse.pipeline.images import ImageSteps
from contraverse.pipeline.steps import steps_of
from contraverse.pipeline.text import TextSteps
from contraverse.recipes import configure

PACKAGE = Path(contraverse.pipeline.__file__).parent
KINDS = {"TextModel", "ImageModel", "TextData", "ImageData", "TextSplits", "ImageSplits", "ImageTask", "Task"}
CONFIGS = {"ImageRunConfig", "ImageDataConfig", "ImageModelConfig", "ModelConfig"}


def type_checks(source: str) -> Iterator[str]:
    """The names of types that ``isinstance`` is called with."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            yield from (name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name))


def test_the_check_reads_unions_and_tuples() -> None:
    assert list(type_checks("isinstance(a, (TextData, ImageData)) or isinstance(b, int | float)")) == [
        "TextData", "ImageData", "int", "float",
    ]  # fmt: skip


def test_text_or_image_is_decided_once_and_no_method_is_known_by_its_class() -> None:
    forbidden = KINDS | CONFIGS | {method.__name__ for method in METHODS.values()}
    checks = {
        (path.name, name)
        for path in PACKAGE.rglob("*.py")
        for name in type_checks(path.read_text(encoding="utf-8"))
        if name in forbidden
    }
    assert checks == {("steps.py", "ImageRunConfig")}


def test_the_configuration_decides() -> None:
    assert type(steps_of(configure("trades", task="digits"))) is ImageSteps
    assert type(steps_of(configure("trades", task="text", source="x.csv"))) is TextSteps


@pytest.mark.parametrize("recipe", ["scal", "trades"])
def test_a_run_builds_its_method_once(
    recipe: str, configured: Callable[..., Any], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was built once more to ask by which batch norm the model is measured."""
    config = configured(recipe, rows, task="text", **{"train.num_train_epochs": 1})
    built = list[Any]()
    plain = METHODS[recipe]

    class Counted(plain):  # type: ignore[misc, valid-type]
        def __init__(self, **settings: Any) -> None:
            built.append(settings)
            super().__init__(**settings)

    monkeypatch.setitem(METHODS, recipe, Counted)
    run(config, tmp_path / "run")
    assert built == [config.method.settings]
