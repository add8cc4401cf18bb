"""Noise of training: decided by seed, epoch and row, with the shares that it says, and never the evaluation's."""

from collections import Counter
from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.evaluation import NoiseSettings
from contraverse.evaluation.noise.texts import noisy_rows
from contraverse.noise import KINDS, NoiseMixture, noisy

TEXTS = [f"The burning windows of number {i} weren't modern, said Anna" for i in range(300)]


def test_seed_epoch_and_row_decide_alone() -> None:
    mixture = NoiseMixture(seed=3)
    forward = [mixture.apply((text,), row, 2) for row, text in enumerate(TEXTS)]
    backward = [mixture.apply((TEXTS[row],), row, 2) for row in reversed(range(300))]
    assert forward == backward[::-1]
    assert forward != [mixture.apply((text,), row, 1) for row, text in enumerate(TEXTS)]
    assert forward != [NoiseMixture(seed=4).apply((text,), row, 2) for row, text in enumerate(TEXTS)]


@pytest.mark.parametrize(("share", "views", "expected"), [(0.2, 1, 0.2), (None, 1, 0.5), (None, 2, 1.0), (0.7, 2, 0.7)])
def test_share_kinds_and_strengths_are_those_that_were_asked_for(share: Any, views: int, expected: float) -> None:
    mixture = NoiseMixture(["swap", "keyboard", "leet"], [1, 4], share)
    choices = [mixture.choice(row, epoch, views) for row in range(1000) for epoch in range(3)]
    noisy_ones = [choice for choice in choices if choice is not None]
    assert len(noisy_ones) / 3000 == pytest.approx(expected, abs=0.03)
    counts = Counter(noisy_ones)
    assert set(counts) == {(kind, strength) for kind in ("keyboard", "swap", "leet") for strength in (1, 4)}
    assert all(count / len(noisy_ones) == pytest.approx(1 / 6, abs=0.05) for count in counts.values())


def test_the_evaluation_draws_others() -> None:
    """Same kind, strength, seed and row: the texts that training sees are not those that the model is measured on."""
    settings = NoiseSettings(("keyboard",), (5,), seed=7)
    measured = [row.texts for row in noisy_rows([(text,) for text in TEXTS], "keyboard", 5, 0, settings)]
    for epoch in range(3):
        trained = [NoiseMixture(["keyboard"], [5], 1.0, 7).apply((t,), row, epoch) for row, t in enumerate(TEXTS)]
        assert sum(a == b for a, b in zip(trained, measured, strict=True)) < 6
    plain = [(result.text,) for result in noisy(TEXTS, "keyboard", 5, 7)]
    assert sum(a == b for a, b in zip(trained, plain, strict=True)) < 6


def test_the_texts_of_a_row_have_draws_of_their_own() -> None:
    mixture = NoiseMixture(["keyboard"], [5], 1.0)
    pairs = [mixture.apply((text, text), row, 0) for row, text in enumerate(TEXTS)]
    assert sum(first == second for first, second in pairs) < 6


def test_it_says_what_it_does() -> None:
    described = NoiseMixture(["leet", "keyboard"], [2], 0.3).describe()
    assert described.startswith("noise, drawn anew each epoch, in the place of the text of 30 % of the training rows")
    assert described.endswith(": keyboard, leet, strength 2")
    assert "all kinds, strength 1, 2, 3" in NoiseMixture().describe(2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kinds": ["keyboards"]}, "keyboard"),
        ({"kinds": []}, "no kind of noise is named"),
        ({"strengths": [6]}, "strengths 1 to 5, not 6"),
        ({"strengths": []}, "one strength or more"),
        ({"share": 0.0}, "not 0.0"),
        ({"share": 1.5}, "not 1.5"),
    ],
)
def test_mistakes_are_explained(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        NoiseMixture(**arguments)


def test_every_kind_is_drawn_by_default() -> None:
    assert {choice[0] for row in range(2000) if (choice := NoiseMixture().choice(row, 0))} == set(KINDS)
