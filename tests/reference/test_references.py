"""The references are right where theory or another way of counting says what they must give."""

import math

import numpy as np
import pytest
from reference import infobert_reference, nce, sentence_reference, smart_reference, vat_reference
from reference.differences import slope
from reference.freelb_reference import random_sentence, slope_by_differences
from reference.weighted_words import random_classifier


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


# noise-contrastive estimation


def test_the_least_nce_is_at_the_distribution_of_the_data(random: np.random.Generator) -> None:
    """Gutmann and Hyvarinen, theorem 1, on a bank of five rows: exp(s) / Z becomes p_data without being normalised."""
    data = random.dirichlet(np.ones(5)).tolist()
    for m in (1, 4):
        log_z = 0.7
        best = [math.log(p) + log_z for p in data]
        least = nce.expected_nce(best, data, m, log_z)
        for i in range(5):
            for step in (-0.3, -0.01, 0.01, 0.3):
                moved = list(best)
                moved[i] += step
                assert nce.expected_nce(moved, data, m, log_z) > least
        # The full softmax of those scores is the data's distribution too.
        softmax = [math.exp(-nce.full_softmax_loss(best, i)) for i in range(5)]
        np.testing.assert_allclose(softmax, data, rtol=1e-9)


def test_with_many_negatives_the_slope_is_the_full_softmaxs(random: np.random.Generator) -> None:
    """Which is what makes NCE an approximation of it: with the exact Z the difference falls as 1 / m."""
    scores = random.normal(size=6).tolist()
    log_z = nce.log_constant(scores, 6)
    assert log_z == pytest.approx(math.log(sum(math.exp(s) for s in scores)))
    target = nce.softmax_slope(scores, 2)
    gaps = [np.abs(nce.expected_nce_slope(scores, 2, m, log_z) - target).max() for m in (10, 100, 1000)]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
    assert gaps[2] < 1e-2


def test_the_loss_of_one_draw_averages_to_the_expected_one(random: np.random.Generator) -> None:
    scores, m, log_z = random.normal(size=4).tolist(), 3, 1.1
    data = [0.0, 1.0, 0.0, 0.0]
    total = 0.0
    for i in range(4):
        for j in range(4):
            for k in range(4):  # every draw of three negatives from the noise, each as likely
                total += nce.nce_loss(scores[1], [scores[i], scores[j], scores[k]], log_z, 4) / 64
    assert total == pytest.approx(nce.expected_nce(scores, data, m, log_z))


def test_only_the_printed_softmax_can_be_negative() -> None:
    """T14."""
    assert nce.softmax_loss(9.0, [1.0, 2.0]) > 0
    assert nce.softmax_as_printed(9.0, [1.0, 2.0]) < 0
    assert nce.softmax_loss(1.0, [1.0] * 3) == pytest.approx(math.log(4))


def test_a_row_seen_twice_moves_twice(random: np.random.Generator) -> None:
    bank, rows = random.normal(size=(3, 4)), random.normal(size=(2, 4))
    once, twice = nce.updated(bank, [1], rows[:1], 0.5), nce.updated(bank, [1, 1], rows, 0.5)
    np.testing.assert_allclose(once[1], nce.unit(0.5 * bank[1] + 0.5 * rows[0]))
    np.testing.assert_allclose(twice[1], nce.unit(0.25 * bank[1] + 0.25 * rows[0] + 0.5 * rows[1]))
    np.testing.assert_array_equal(once[[0, 2]], bank[[0, 2]])


# perturbations and smoothness


def test_the_classifiers_gradients_are_differences(random: np.random.Generator) -> None:
    like = random_classifier()
    ids, delta = random_sentence(random, 5, 11, 4)
    _, at_delta, _ = like.loss_and_slopes(ids, 1, delta)
    np.testing.assert_allclose(at_delta, slope_by_differences(like, ids, 1, delta), atol=1e-8)


def test_symmetric_kl_of_two_coins() -> None:
    """(p - q) (logit p - logit q)."""
    p, q = 0.8, 0.3
    logits = [np.array([math.log(v), math.log(1 - v)]) for v in (p, q)]
    logit = [math.log(v / (1 - v)) for v in (p, q)]
    assert smart_reference.symmetric_kl(*logits) == pytest.approx((p - q) * (logit[0] - logit[1]))
    assert smart_reference.kl(logits[0], logits[0]) == 0


def test_the_climbed_noise_is_worse_than_the_noise(random: np.random.Generator) -> None:
    weight = random.normal(size=(3, 8))

    def model(delta: np.ndarray) -> np.ndarray:
        return weight @ np.tanh(delta.ravel() + 0.3)

    noise = random.normal(size=(2, 4)) * 1e-3
    delta = smart_reference.perturbation(model, noise, step_size=0.1, epsilon=0.05)
    clean = model(np.zeros((2, 4)))
    distances = [smart_reference.symmetric_kl(clean, model(d)) for d in (noise, delta)]
    assert distances[1] > 10 * distances[0]
    assert np.abs(delta).max() == pytest.approx(0.05)
    vat = vat_reference.perturbation(model, noise, xi=1e-3, epsilon=0.1, steps=1)
    assert math.sqrt((vat**2).sum()) == pytest.approx(0.1)
    assert smart_reference.kl(clean, model(vat)) > smart_reference.kl(clean, model(0.1 * noise / np.linalg.norm(noise)))


def test_the_clean_prediction_has_no_slope(random: np.random.Generator) -> None:
    """At delta = 0 the divergence is least: SMART and VAT must start from noise."""
    weight = random.normal(size=(3, 4))

    def model(delta: np.ndarray) -> np.ndarray:
        return weight @ (delta.ravel() + 1)

    clean = model(np.zeros((1, 4)))
    gradient = slope(lambda d: smart_reference.symmetric_kl(clean, model(d)), np.zeros((1, 4)))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


# InfoBERT


def test_the_bound_is_the_sum_of_variances(random: np.random.Generator) -> None:
    """Half the mean squared distance of all pairs; the authors' shuffle has it as its mean over all shifts."""
    tokens = random.normal(size=(7, 3)) * 2
    bound = infobert_reference.club_bound(tokens)
    assert bound == pytest.approx(tokens.var(0).sum())
    shifts = [infobert_reference.club_of_a_shuffle(tokens, [(i + s) % 7 for i in range(7)]) for s in range(7)]
    assert np.mean(shifts) == pytest.approx(bound)


def test_anchored_features_are_the_upper_middle(random: np.random.Generator) -> None:
    grad = np.arange(12, dtype=float)[::-1, None] * np.ones((12, 2))
    assert infobert_reference.anchored(grad, [1] * 10 + [0] * 2) == [1, 2, 3, 4]
    assert infobert_reference.anchored(grad, [1] * 5 + [0] * 7) == [0, 1]  # ranks 3 and 4 of 0 to 4


def test_the_lower_bound_is_at_most_log_n(random: np.random.Generator) -> None:
    local, sentences = random.normal(size=(5, 3)), random.normal(size=(5, 3))
    value = infobert_reference.info_nce(local, sentences, lambda a, b: float(a @ b) * 5)
    assert value <= math.log(5)
    same = np.eye(5) * 30
    assert infobert_reference.info_nce(same, same, lambda a, b: float(a @ b)) == pytest.approx(math.log(5))


# sentences


def test_jensen_shannon_of_a_critic_that_knows_nothing(random: np.random.Generator) -> None:
    tokens = random.normal(size=(3, 4, 5))
    assert sentence_reference.isbert_loss(tokens, [4, 2, 3], np.zeros((3, 5))) == pytest.approx(2 * math.log(2))


def test_whitened_rows_have_no_mean_and_the_identity(random: np.random.Generator) -> None:
    x = random.normal(size=(50, 4)) @ random.normal(size=(4, 4)) + random.normal(size=4)
    mean, w = sentence_reference.whitening(x)
    white = (x - mean) @ w
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(sentence_reference.covariance(white), np.eye(4), atol=1e-9)
    _, narrow = sentence_reference.whitening(x, 2)
    np.testing.assert_allclose(narrow, w[:, :2])


def test_the_determinant_of_a_linear_map(random: np.random.Generator) -> None:
    matrix = random.normal(size=(4, 4))
    value = sentence_reference.log_determinant(lambda v: matrix @ v, random.normal(size=4))
    assert value == pytest.approx(np.linalg.slogdet(matrix)[1])
