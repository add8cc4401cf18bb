"""One table of attacks: everything else reads it."""

import subprocess
import sys
from typing import Any

import pytest

from contraverse.attacks import ATTACKS, AttackSettings, attacks_of
from contraverse.errors import UserError
from contraverse.recipes import EvaluationConfig


def test_every_row_is_complete_and_its_function_exists() -> None:
    for name, spec in ATTACKS.items():
        assert (spec.name, bool(spec.label), bool(spec.summary), bool(spec.paper)) == (name, True, True, True)
        assert spec.function is None or callable(spec.load())
    assert set(attacks_of("robust_accuracy")) == {"pgd", "apgd"}


@pytest.mark.parametrize("name", ["fgms", "fgm", "autoattack", "fog"])
def test_what_robust_accuracy_cannot_run_is_refused_with_what_it_can(name: str) -> None:
    with pytest.raises(UserError, match="pgd") as error:
        AttackSettings(attack=name)
    assert "apgd" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps: 0 is not possible"),
        ({"restarts": 0}, "restarts: 0"),
        ({"step_size": 0}, "step_size: 0"),
        ({"norm": "l7"}, "norm: 'l7'"),
        ({"stepz": 3}, "no such setting of an attack: stepz"),
    ],
)
def test_an_impossible_setting_is_the_users_mistake(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        AttackSettings(**settings)


def test_the_configuration_and_the_python_call_have_the_same_fields_and_first_steps() -> None:
    config = EvaluationConfig(attack="pgd", norm="linf", steps=10, step_size="2/255", restarts=2, relative=True)
    settings = AttackSettings(**config.attack_settings(), seed=3)
    assert settings.attack_settings() == config.attack_settings()
    assert settings.first_step(8 / 255) == config.first_step(8 / 255) == 2 / 255
    assert AttackSettings(attack="pgd", steps=5).first_step(1.0) == 0.5  # Madry et al.: 2.5 epsilon / steps
    assert AttackSettings(attack="apgd", steps=5).first_step(1.0) == 2.0  # Croce & Hein: 2 epsilon


def test_table_and_settings_are_read_without_torch() -> None:
    code = "import sys, contraverse.attacks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
