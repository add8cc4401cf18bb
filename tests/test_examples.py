"""The examples run as they stand, on a tiny encoder in place of the default one."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from contraverse.models import TextModel

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


@pytest.fixture
def tiny_default(monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """The default encoder is tiny, and what an example writes goes to a folder that is returned."""
    load = TextModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def load_tiny(cls: type[TextModel], name: str, **settings: object) -> TextModel:
        model: TextModel = load(cls, tiny_folder("bert") if name == "minilm" else name, **settings)
        return model

    monkeypatch.setattr(TextModel, "from_pretrained", classmethod(load_tiny))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example: Path, tiny_default: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_own_dataset_measures_and_saves(tiny_default: Path) -> None:
    done = runpy.run_path(str(next(path for path in EXAMPLES if path.stem == "own_dataset")))
    found = done["evaluate"](done["model"], done["test"], epsilons=[0.1])
    assert set(found) == {"accuracy", "accuracy@pgd-0.1"}
    assert TextModel.load(tiny_default / "runs" / "own" / "model").labels == ["delivery", "refund"]


def test_a_plain_loop_is_the_trainers_arithmetic(tiny_default: Path) -> None:
    """Every weight moves but those of heads that the loss does not reach."""
    done = runpy.run_path(str(next(path for path in EXAMPLES if path.stem == "plain_loop")))
    still = {name for name, weight in done["model"].named_parameters() if not done["optimizer"].state[weight]}
    assert not any("layer" in name or "classifier" in name or "heads" in name for name in still)


@pytest.mark.slow
def test_own_dataset_learns_with_the_default_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = runpy.run_path(str(next(path for path in EXAMPLES if path.stem == "own_dataset")))
    assert done["evaluate"](done["model"], done["test"])["accuracy"] == 100
