"""Rates, their intervals, and gates."""

import pytest
from scipy.stats import binomtest

from contraverse.errors import UserError
from contraverse.evasion import Figure, Gate, Rate, failures


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 7), (39, 39), (450, 1000), (1, 1)])
def test_the_interval_is_wilsons(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, "wilson")
    interval = Rate(hits, n).interval
    assert interval is not None
    assert interval == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-6)
    z, share = 1.959963984540054, hits / n  # written out: its ends solve |share - p| = z sqrt(p (1 - p) / n)
    for end in (interval[0] / 100, interval[1] / 100):
        assert abs(share - end) == pytest.approx(z * (end * (1 - end) / n) ** 0.5, abs=1e-6)


def test_a_rate_of_nothing_is_undefined() -> None:
    assert Rate(0, 0).percent is None
    assert Rate(0, 0).interval is None


FIGURES = {
    "recall": {"attack": Figure.of(Rate(8, 10)), "clean": Figure.of(Rate(10, 10)), "edits@2": Figure.of(Rate(9, 10))},
    "flip_rate": {"append": Figure.of(Rate(0, 0))},
    "accuracy": {"noise:typos": Figure(71.26, 500)},
}


@pytest.mark.parametrize(
    ("written", "passes"),
    [
        ("recall[attack]>=80", True),
        ("recall[attack]>80", False),
        (" recall [ clean ] >= 99.5% ", True),
        ("recall[edits@2]<=90", True),
        ("accuracy[noise:typos]<71", False),
        ("accuracy[noise:typos]>=.5", True),
        ("flip_rate[append]<=20", False),
        ("flip_rate[append]>=0", False),
    ],
)
def test_gates(written: str, passes: bool) -> None:
    assert (failures([Gate.parse(written)], FIGURES) == []) is passes


def test_a_failed_gate_says_what_was_measured() -> None:
    (reason,) = failures([Gate.parse("recall[attack]>=90")], FIGURES)
    assert reason == "recall[attack]>=90: it is 80.0 (n = 10, 95 % interval 49.0 to 94.3)"
    (reason,) = failures([Gate.parse("flip_rate[append]<=20")], FIGURES)
    assert reason == "flip_rate[append]<=20: undefined, of 0 rows"


@pytest.mark.parametrize(
    "written", ["recall>=80", "recall[attack]=80", "recall[attack]>=101", "", "[a]>=1", "x[a]>=-1"]
)
def test_what_is_no_gate(written: str) -> None:
    with pytest.raises(UserError, match="is no gate"):
        Gate.parse(written)


def test_a_gate_on_what_was_not_measured_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no recalled was measured") as caught:
        failures([Gate.parse("recalled[attack]>=80")], FIGURES)
    assert caught.value.hint == "there are recall, flip_rate, accuracy" or "recall" in str(caught.value.hint)
    with pytest.raises(UserError, match="not measured under adding"):
        failures([Gate.parse("flip_rate[adding]<=20")], FIGURES)
