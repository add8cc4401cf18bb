"""``evaluation.evasion``: which attacks on texts a configuration names, and on how many rows."""

import pytest

from contraverse.errors import UserError
from contraverse.pipeline.evasion import evasion_progress_total, evasion_rows, suites_of
from contraverse.recipes import EvaluationConfig, configure


def test_a_configuration_names_attacks_budgets_and_rows() -> None:
    settings = EvaluationConfig(evasion="edits,unicode,edits", evasion_budgets=[2, 1, 2], evasion_rows=5)
    assert [(suite.attack, suite.budgets) for suite in suites_of(settings)] == [("edits", (1, 2)), ("unicode", (1, 2))]
    assert evasion_rows(9, settings) == 5
    assert evasion_rows(3, settings) == 3
    assert suites_of(EvaluationConfig()) == []


def test_only_true_diagnostics_check_attacks_on_texts() -> None:
    checked, unchecked = (EvaluationConfig(evasion=["edits"], diagnostics=value) for value in (True, 8))
    assert suites_of(checked)[0].diagnostics
    assert not suites_of(unchecked)[0].diagnostics
    assert evasion_progress_total(7, unchecked) == 7
    assert evasion_rows(9, EvaluationConfig(evasion=["edits"], rows=4)) == 4


@pytest.mark.parametrize(
    ("recipe", "task", "value", "message"),
    [
        ("ce", "text", ["edit"], "edits"),
        ("ce", "text", ["standard", "edits"], "is all attacks on texts"),
        ("trades", "digits", ["edits"], "evasion is for texts"),
    ],
)
def test_mistakes_name_the_setting(recipe: str, task: str, value: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        configure(recipe, task=task, settings={"evaluation.evasion": value})
    assert "evaluation.evasion" in str(error.value)
