"""Paired comparison of classifiers, against counts by hand and scipy."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from contraverse.evaluation.comparison import Measure, compare, mcnemar, quartiles


def test_mcnemars_exact_test_is_the_binomial_of_the_rows_that_differ() -> None:
    first, second = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1], bool), np.array([1, 0, 1, 1, 1, 1, 1, 1, 1], bool)
    gained, lost, p_value = mcnemar(first, second)
    assert (gained, lost) == (5, 1)
    assert p_value == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_the_paired_interval_covers_the_difference_of_all_resamples() -> None:
    """Of four rows all 256 resamples are counted; unpaired ones would spread wider."""
    first, second = np.array([0, 1, 1, 0], bool), np.array([1, 1, 1, 0], bool)
    gaps = second.astype(float) - first
    exact = np.sort([100 * np.mean(gaps[list(rows)]) for rows in product(range(4), repeat=4)])
    (result,) = compare([Measure("accuracy", np.ones(4, bool), {"a": first, "b": second})], {}, resamples=4000)
    test = result.tests["b"]
    assert test.difference.value == 25
    assert (test.difference.low, test.difference.high) == tuple(np.quantile(exact, [0.025, 0.975]))
    assert result.rates == {"a": 50, "b": 75}


def test_slices_are_tested_by_themselves_and_corrected_together() -> None:
    random = np.random.default_rng(0)
    first, language = random.random(200) < 0.5, np.array(["en"] * 100 + ["de"] * 92 + ["fr"] * 8, dtype=object)
    second = first | (np.arange(200) < 100)  # better in English alone
    measure = Measure("accuracy", np.ones(200, bool), {"a": first, "b": second, "c": first})
    whole, *parts = compare([measure], {"language": language})
    assert [part.value for part in parts] == ["en", "de", "fr"]
    english, german, french = parts
    assert english.rates["b"] == 100
    assert english.tests["b"].gained == (~first[:100]).sum()
    assert english.tests["b"].corrected == pytest.approx(4 * english.tests["b"].p_value)  # of four tests on slices
    assert german.tests["b"].p_value == german.tests["b"].corrected == 1
    assert not french.tests  # eight rows
    assert french.rows == 8
    assert whole.tests["b"].corrected == pytest.approx(2 * whole.tests["b"].p_value)  # of two runs
    assert whole.tests["c"].corrected == 1


def test_a_measure_without_rows_is_left_out() -> None:
    hits = {"a": np.ones(12, bool), "b": np.zeros(12, bool)}
    assert compare([Measure("recall", np.zeros(12, bool), hits)], {}) == []


def test_lengths_fall_into_quartiles() -> None:
    slices = quartiles(np.arange(1, 101))
    assert list(dict.fromkeys(slices)) == ["1-26 words", "27-51 words", "52-76 words", "77-100 words"]
    assert set(quartiles(np.full(9, 5))) == {"5-5 words"}
