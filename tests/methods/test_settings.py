"""A setting of a method is declared once: signature, range, description, table and config come from that place."""

import copy
import inspect
import pickle
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from reference.driving import CASES, make
from torch import Tensor, nn

import contraverse.methods as package
from contraverse import configure
from contraverse.errors import UserError
from contraverse.methods import METHODS, SCAL, InfoBERT, Selfie, settings, settings_of
from contraverse.recipes import RECIPES
from contraverse.types import Method

every = pytest.mark.parametrize("name", list(METHODS))


@settings
class Base(Method):
    """A method of two settings and a buffer."""

    size: Annotated[int, Field(ge=1, lt=9)] = 2
    """Rows of the buffer."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Scale of
    the loss."""

    def setup(self) -> None:
        self.memory: Tensor = nn.Buffer(torch.zeros(self.size))


@settings
class Extended(Base):
    """One setting more."""

    late: bool = False
    """Start later."""

    def setup(self) -> None:
        super().setup()
        self.passes = 2


def test_a_value_is_checked_and_converted() -> None:
    method = Base(size="3", scale="0.5")  # type: ignore[arg-type]
    assert (method.size, method.scale, len(method.memory)) == (3, 0.5, 3)
    for wrong in ({"size": 9}, {"size": 0}, {"scale": 0}, {"sizes": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Base(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="positional"):
        Base(3)  # type: ignore[misc]


def test_a_subclass_inherits_settings_and_their_descriptions() -> None:
    assert list(settings_of(Extended)) == ["late", "size", "scale"]  # its own first
    assert [setting.description for setting in settings_of(Extended).values()] == [
        "Start later.", "Rows of the buffer.", "Scale of the loss.",
    ]  # fmt: skip
    assert [setting.values for setting in settings_of(Extended).values()] == ["", "[1, 9)", "> 0 or null"]
    method = Extended(size=4, late=True)
    assert (method.passes, len(method.memory), method.late) == (2, 4, True)


def test_a_plain_subclass_keeps_the_settings_of_its_base() -> None:
    class Plain(Base):
        pass

    class Fixed(Base):
        def __init__(self) -> None:
            super().__init__(size=5)
            self.extra = nn.Linear(1, 1)

    assert len(Plain(size=3).memory) == 3
    assert list(settings_of(Plain)) == ["size", "scale"]
    assert set(Fixed().state_dict()) == {"memory", "extra.weight", "extra.bias"}


def test_a_method_may_have_an_init_of_its_own() -> None:
    class Own(Method):
        def __init__(self, *, beta: Annotated[float, Field(ge=0)] = 1.0, must: int) -> None:
            super().__init__()

    declared = settings_of(Own)
    assert (declared["beta"].default, declared["beta"].values, declared["must"].default) == (1.0, ">= 0", ...)


def test_a_method_without_attributes_has_the_name_of_its_class() -> None:
    class Mine(Method):
        pass

    assert (Mine.name, Mine().name) == ("mine", "mine")
    assert (Mine().summary, Mine().cost, Mine().requires) == ("", "", "labels")
    assert METHODS["scal"].name == "scal"


def test_settings_that_do_not_go_together_are_a_user_s_mistake() -> None:
    for build, wrong in ((InfoBERT, {"low": 0.9, "high": 0.5}), (Selfie, {"hidden": 16})):
        with pytest.raises(UserError):
            build(**wrong)


def test_the_command_line_takes_range_and_conversion_from_the_declaration() -> None:
    config = configure("scal", task="trec", settings={"method.epsilon": "8/255", "method.alpha": 1})
    assert config.method.settings["epsilon"] == 8 / 255
    assert set(config.method.settings) == set(inspect.signature(SCAL).parameters)
    with pytest.raises(UserError, match=r"method\.temperature: 0 is not possible: it must be greater than 0"):
        configure("scal", task="trec", settings={"method.temperature": 0})
    with pytest.raises(UserError, match=r'method\.temperatures: no such setting\ndid you mean "temperature"\?'):
        configure("scal", task="trec", settings={"method.temperatures": 0})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("at", {"epsilon": 0}), ("at", {"epsilon": -0.1}), ("at", {"epsilon": "big"}), ("at", {"attack": "pgd2"}),
        ("at", {"scope": "word"}), ("scal", {"alpha": -1}), ("scal", {"temperature": 0}), ("scal", {"contrast": "no"}),
        ("scal", {"epsilon": float("nan")}), ("scal", {"epsilon": float("inf")}), ("scal", {"alpha": float("inf")}),
        ("cl", {"temperature": -1}), ("cl", {"alpha": float("nan")}), ("simcse", {"temperature": 0}),
        ("simcse", {"temperature": float("nan")}), ("simcse-sup", {"temperature": 0}), ("uscal", {"epsilon": 0}),
        ("uscal", {"alpha": -0.5}), ("uscal", {"attack": "fgmm"}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        METHODS[name](**wrong)


@every
def test_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises((ValueError, TypeError), match="epsilonn"):
        METHODS[name](epsilonn=0.3)


@every
def test_signature_and_settings_agree(name: str) -> None:
    declared, parameters = settings_of(METHODS[name]), inspect.signature(METHODS[name]).parameters
    if declared:
        assert {key: setting.default for key, setting in declared.items()} == {
            key: parameter.default for key, parameter in parameters.items()
        }
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


@every
def test_every_setting_says_what_it_is(name: str) -> None:
    for setting, declared in settings_of(METHODS[name]).items():
        assert declared.description[:1].isupper(), setting
        assert declared.description.endswith("."), setting
        assert declared.description.split()[0] not in ("What", "Of", "Whether", "Which", "Whoever", "How", "That")


@pytest.mark.parametrize("case", list(CASES))
def test_a_method_can_be_copied_and_pickled(case: str) -> None:
    method = make(case)
    for again in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert type(again) is type(method)
        assert repr(again) == repr(method)
        torch.testing.assert_close(again.state_dict(), method.state_dict(), rtol=0, atol=0, equal_nan=True)


def test_buffers_have_the_names_that_checkpoints_hold() -> None:
    assert set(make("carl").state_dict()) == {
        "seen", "begun", "labels", "log_z", "cosines", "clean.rows", "clean.filled", "adversarial.rows",
        "adversarial.filled",
    }  # fmt: skip
    assert set(make("dynacl").state_dict()) == {"seen"}
    assert set(make("uat-offline").state_dict()) == {"targets", "labelled"}


@every
def test_a_file_has_the_name_of_its_method(name: str) -> None:
    assert METHODS[name].__module__ == f"contraverse.methods.{name.replace('-', '_')}"
    assert getattr(package, METHODS[name].__name__) is METHODS[name]


def test_every_file_of_a_method_is_in_the_table() -> None:
    folder = Path(package.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files == {name.replace("-", "_") for name in METHODS}


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_recipe_sets_what_its_method_declares(recipe: str) -> None:
    config = configure(recipe)
    assert set(config.method.settings) == set(settings_of(METHODS[config.method.name]))


def test_a_default_is_written_as_its_reader_writes_it() -> None:
    shown: Any = settings_of(METHODS["trades"])
    assert (shown["epsilon"].shown_default, shown["steps"].shown_default) == ("8/255", "10")
    assert "epsilon=0.5, alpha=0.1, temperature=0.05" in repr(SCAL(epsilon=0.5))
