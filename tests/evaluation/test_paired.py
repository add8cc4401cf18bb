"""Paired differences: against textbook formulas, and by how often the interval holds in simulations."""

import numpy as np
import pytest
from scipy import stats

from contraverse.evaluation.paired import holm, paired_difference

RANDOM = np.random.default_rng(0)


def test_of_whole_sets_it_is_the_paired_t_test_over_seeds() -> None:
    first, second = RANDOM.normal(80, 2, (6, 1)), RANDOM.normal(79, 2, (6, 1))
    result = paired_difference(first, second)
    expected = stats.ttest_rel(first[:, 0], second[:, 0])
    low, high = expected.confidence_interval(0.95)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.low, result.high) == pytest.approx((low, high))


def test_of_one_seed_it_is_the_paired_t_test_over_rows() -> None:
    first, second = (RANDOM.random((1, 200)) < 0.8).astype(float), (RANDOM.random((1, 200)) < 0.7).astype(float)
    assert paired_difference(first, second).p_value == pytest.approx(stats.ttest_rel(first[0], second[0]).pvalue)


def by_loops(d: np.ndarray) -> tuple[float, float]:
    """Variance of the mean and Satterthwaite's degrees of freedom, in plain loops from the sums of squares."""
    seeds, rows = d.shape
    grand = sum(d[i, j] for i in range(seeds) for j in range(rows)) / (seeds * rows)
    seed_means = [sum(d[i]) / rows for i in range(seeds)]
    row_means = [sum(d[i, j] for i in range(seeds)) / seeds for j in range(rows)]
    ms_seeds = rows * sum((m - grand) ** 2 for m in seed_means) / (seeds - 1)
    ms_rows = seeds * sum((m - grand) ** 2 for m in row_means) / (rows - 1)
    rest = sum((d[i, j] - seed_means[i] - row_means[j] + grand) ** 2 for i in range(seeds) for j in range(rows)) / (
        (seeds - 1) * (rows - 1)
    )
    weights = [(ms_seeds, seeds - 1), (ms_rows, rows - 1), (rest, (seeds - 1) * (rows - 1))]
    total = ms_seeds + ms_rows - rest
    return total / (seeds * rows), total**2 / sum(ms**2 / freedom for ms, freedom in weights)


def test_the_interval_is_the_textbooks() -> None:
    d = RANDOM.normal(1, 1, (4, 1)) + RANDOM.normal(0, 2, (1, 30)) + RANDOM.normal(0, 1, (4, 30))
    result = paired_difference(d, np.zeros_like(d))
    variance, freedom = by_loops(d)
    half = stats.t.ppf(0.975, freedom) * variance**0.5
    assert (result.low, result.high) == pytest.approx((d.mean() - half, d.mean() + half))


@pytest.mark.parametrize(("seed_spread", "row_spread"), [(0.0, 1.0), (0.5, 1.0), (0.3, 0.0), (0.0, 0.0)])
def test_the_interval_holds_for_new_seeds_and_new_rows(seed_spread: float, row_spread: float) -> None:
    """95 % of 2,000 simulated studies: a bound of three standard errors below, and it may be wider."""
    random, covered = np.random.default_rng(1), 0
    for _ in range(2000):
        d = seed_spread * random.normal(size=(5, 1)) + row_spread * random.normal(size=(1, 40))
        d = d + random.normal(size=(5, 40)) + 0.4
        result = paired_difference(d, np.zeros_like(d))
        covered += result.low <= 0.4 <= result.high
    assert covered / 2000 > 0.95 - 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_rows_alone_would_be_too_sure_of_themselves() -> None:
    """The trap: with a spread of seeds, 200 rows of each of five seeds are not 1,000 independent differences."""
    random = np.random.default_rng(2)
    d = 2.0 * random.normal(size=(5, 1)) + random.normal(size=(5, 200))
    naive = stats.ttest_1samp(d.ravel(), 0.0).confidence_interval(0.95)
    result = paired_difference(d, np.zeros_like(d))
    assert result.high - result.low > 5 * (naive.high - naive.low)


def test_the_detectable_difference_is_found_in_four_of_five_studies() -> None:
    random = np.random.default_rng(3)
    d = random.normal(size=(8, 1))
    size = paired_difference(d, np.zeros_like(d)).detectable
    spread = d.std(ddof=1)
    found = 0
    for _ in range(2000):
        sample = random.normal(size, spread, (8, 1))
        found += paired_difference(sample, np.zeros_like(sample)).p_value < 0.05
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_equal_scores_decide_nothing() -> None:
    same = np.ones((3, 10))
    result = paired_difference(same, same)
    assert (result.difference, result.p_value, result.decided) == (0.0, 1.0, False)
    assert result.within(0.0)


def test_one_seed_on_a_whole_set_has_no_interval() -> None:
    result = paired_difference(np.array([[81.0]]), np.array([[79.0]]))
    assert result.difference == 2.0
    assert np.isnan([result.low, result.high, result.p_value]).all()
    assert not result.decided
    assert not result.within(5.0)


def test_other_rows_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same shape"):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 4)))


def test_holm_is_the_step_down_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    corrected = holm([0.01, float("nan"), 0.02])
    assert corrected[0] == pytest.approx(0.02)
    assert np.isnan(corrected[1])
    assert holm([]) == []
