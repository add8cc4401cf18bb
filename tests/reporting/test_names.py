import pytest

from contraverse.reporting.names import amount, describe_attack, duration, heading, plain


def test_headings() -> None:
    keys = ["accuracy", "error_rate", "stsb", "sick", "sts12", "accuracy@fgm-0.10", "my_own"]
    assert [heading(key) for key in keys] == [
        "Accuracy", "Error rate", "STS-B", "SICK-R", "STS12", "Accuracy, FGM ε=0.1", "my_own",
    ]  # fmt: skip


def test_only_shares_are_percentages() -> None:
    assert amount(76.04, "accuracy") == "76.0\N{NO-BREAK SPACE}%"
    assert amount(61.7, "mcc", digits=2) == "61.70"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "PGD"),
        (
            {"steps": 5, "norm": "l2", "scope": "sequence", "restarts": 1},
            "PGD, 5 steps, L2 norm per sequence, 1 restart",
        ),
        ({"steps": 1, "norm": "linf", "step_size": None}, "PGD, 1 step, L∞ norm"),
        (
            {"scope": "token", "random_start": False, "step_size": 0.1},
            "PGD, scope token, no random start, step size 0.1",
        ),
    ],
)
def test_attacks_in_words(settings: dict[str, object], words: str) -> None:
    assert describe_attack("pgd", settings) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min"),
        (195, "3 min 15 s"),
        (3600, "1 h"),
        (7384, "2 h 3 min"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == words


def test_plain_is_one_printable_line() -> None:
    assert plain("a\n b\x00c\ud800d\u202ee\t") == "a b c d e"
    assert plain("Größe – 日本") == "Größe – 日本"
