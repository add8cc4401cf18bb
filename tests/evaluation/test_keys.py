"""Names of metrics are made when JSON is written, and read in one function."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contraverse.attacks import ATTACKS
from contraverse.evaluation.keys import MetricKey, attacked_accuracy, clean_metrics, named_metrics


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("accuracy@pgd-0.3", ("accuracy", "pgd", 0.3)),
        ("accuracy@pgd-1", ("accuracy", "pgd", 1.0)),
        ("accuracy@pgd-1e-05", ("accuracy", "pgd", 1e-5)),
        ("f1@my-attack-0.25", ("f1", "my-attack", 0.25)),
        ("accuracy@swap-words", ("accuracy", "swap-words", None)),
        ("uar@jpeg_linf", ("uar", "jpeg_linf", None)),
        ("accuracy", ("accuracy", None, None)),
        ("accuracy@pgd", ("accuracy", "pgd", None)),
        ("sts-2012", ("sts-2012", None, None)),
    ],
)
def test_names_in_json(name: str, key: tuple[str, str | None, float | None]) -> None:
    assert MetricKey.read(name) == key
    assert str(MetricKey.read(name)) == name


@given(st.sampled_from([*ATTACKS, "swap-words", "a-b-c"]), st.floats(1e-30, 1e30))
def test_a_name_is_read_as_it_was_written(attack: str, epsilon: float) -> None:
    key = MetricKey("accuracy", attack, float(f"{epsilon:g}"))
    assert MetricKey.read(str(key)) == key


def test_an_evaluation_keeps_the_attack_apart_until_it_is_json_and_is_read_back_the_same() -> None:
    at = [{"epsilon": 0.1, "accuracy": 80.0}, {"epsilon": 1e-05, "accuracy": 90.0}]
    evaluation = {"metrics": {"accuracy": 95.0, "uar@fog": 7.0}, "robustness": {"attack": {"name": "apgd"}, "at": at}}
    named = named_metrics(evaluation)
    assert named == {"accuracy": 95.0, "uar@fog": 7.0, "accuracy@apgd-0.1": 80.0, "accuracy@apgd-1e-05": 90.0}
    stored = json.loads(json.dumps({**evaluation, "metrics": named}))
    assert clean_metrics(stored) == clean_metrics(evaluation) == evaluation["metrics"]
    assert attacked_accuracy(stored) == {
        MetricKey("accuracy", "apgd", 0.1): 80.0,
        MetricKey("accuracy", "apgd", 1e-05): 90.0,
    }
    assert named_metrics(stored) == named
    assert attacked_accuracy({"metrics": {"average": 70.0}}) == {}
