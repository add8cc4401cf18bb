import pytest
from reporting.builders import CE, SCAL, measured

from contraverse.reporting import Measured, outcome


def said(*runs: Measured, **settings) -> str:
    return outcome(runs, **settings).replace("\N{NO-BREAK SPACE}", " ")


def test_two_runs_under_attack_at_the_middle_epsilon() -> None:
    assert said(CE, SCAL) == (
        "SCAL keeps 76.0 % under PGD at ε=0.3, where cross-entropy keeps 42.8 %; clean, both reach 96.4 %."
    )


def test_the_winner_is_who_won() -> None:
    assert said(measured("ce", 96.0, 80.0), measured("scal", 97.0, 70.0)) == (
        "ce keeps 80.0 % under PGD at ε=0.3, where scal keeps 70.0 %; clean, ce reaches 96.0 % and scal 97.0 %."
    )


def test_beside_the_best_stands_the_first_run() -> None:
    runs = measured("ce", 96.0, 40.0), measured("at", 96.0, 70.0), measured("scal", 96.0, 75.0)
    assert said(*runs).startswith("scal keeps 75.0 % under PGD at ε=0.3, where ce keeps 40.0 %")


def test_beside_a_best_first_run_stands_the_next_best() -> None:
    runs = measured("scal", 96.0, 75.0), measured("ce", 96.0, 40.0), measured("at", 96.0, 70.0)
    assert "where at keeps 70.0 %" in said(*runs)


def test_a_tie_as_printed_has_no_winner() -> None:
    assert said(measured("ce", None, 76.04), measured("scal", 96.0, 75.96)) == (
        "ce and scal both keep 76.0 % under PGD at ε=0.3."
    )


def test_one_run() -> None:
    assert said(SCAL) == "SCAL keeps 76.0 % under PGD at ε=0.3, of 96.4 % clean."
    assert said(measured("scal", None, 76.0)) == "scal keeps 76.0 % under PGD at ε=0.3."


def test_seeds_are_averaged_and_counted() -> None:
    assert said(measured("scal", 96.0, 70.0), measured("scal", 97.0, 80.0)) == (
        "scal keeps 75.0 % under PGD at ε=0.3 (mean of 2 seeds), of 96.5 % clean."
    )


@pytest.mark.parametrize(
    ("values", "settings", "sentence"),
    [
        ((75.54, 77.29), {"metric": "spearman", "digits": 2}, "b reaches 77.29 (Spearman), where a reaches 75.54."),
        ((2.4, 1.8), {"metric": "error_rate"},
         "b reaches 1.8 % (error rate), where a reaches 2.4 %."),
        ((90.0, 90.0), {}, "a reaches 90.0 % (accuracy), as does b."),
        ((90.0,), {}, "a reaches 90.0 % (accuracy)."),
    ],
)  # fmt: skip
def test_without_an_attack(values: tuple[float, ...], settings: dict, sentence: str) -> None:
    metric = settings.get("metric", "accuracy")
    assert said(*(Measured(name, {metric: v}) for name, v in zip("ab", values, strict=False)), **settings) == sentence


@pytest.mark.parametrize("runs", [(), (Measured("a", {}),), (measured("a", 1.0, float("nan")),)])
def test_nothing_measured(runs: tuple[Measured, ...]) -> None:
    assert said(*runs) == "Nothing was measured."
