"""Whitening and flow: the printed equations, and that they stay what they were fitted to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import sentence_reference as reference
from reference.tiny import sentences
from sentence_transformers import SentenceTransformer

from contraverse.errors import UserError
from contraverse.evaluation import StsSet, evaluate_sts
from contraverse.models import Flow, TextModel, fit_flow, fit_whitening

Make = Callable[..., TextModel]
TRAIN, TEST = sentences(120, seed=1), sentences(9, seed=2)
FITS: dict[str, Callable[[TextModel], Any]] = {
    "whitening": lambda model: fit_whitening(model, TRAIN, dim=20),
    "flow": lambda model: fit_flow(model, TRAIN, epochs=2),
}
fitted = pytest.mark.parametrize("kind", list(FITS))


@pytest.fixture
def encoder(tiny_model: Make) -> TextModel:
    return tiny_model(labels=None, pooling="first-last")


# whitening


@pytest.mark.parametrize("dim", [1, 7, 30])
def test_whitening_is_algorithm_1(encoder: TextModel, dim: int) -> None:
    x = encoder.encode(TRAIN).astype(np.float64)
    mean, weight = reference.whitening(x, dim)
    encoder.postprocess = fit_whitening(encoder, TRAIN, dim=dim)
    found, expected = encoder.encode(TEST), (_raw(encoder, TEST) - mean) @ weight
    signs = np.sign((found * expected).sum(0))  # an eigenvector's sign is free
    np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_whitened_training_sentences_have_mean_zero_and_covariance_one(encoder: TextModel) -> None:
    encoder.postprocess = fit_whitening(encoder, TRAIN, dim=16)
    z = encoder.encode(TRAIN).astype(np.float64)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(reference.covariance(z), np.eye(16), atol=1e-3)


def test_all_directions_are_those_in_which_embeddings_vary(tiny_model: Make) -> None:
    """What a layer norm gives lies in a hyperplane: one direction holds rounding errors alone."""
    model = tiny_model(labels=None, pooling="cls")
    assert fit_whitening(model, TRAIN).settings == {"width": 32, "dim": 31}
    assert fit_whitening(model, TRAIN[:10]).settings["dim"] == 9


@pytest.mark.parametrize(("rows", "dim"), [(120, 33), (10, 10), (1, 1)])
def test_what_cannot_be_whitened_is_refused(encoder: TextModel, rows: int, dim: int) -> None:
    with pytest.raises(UserError) as caught:
        fit_whitening(encoder, TRAIN[:rows], dim=dim)
    assert caught.value.hint


# flow


def shaken(width: int, **settings: int) -> Flow:
    """A flow of weights that no initialisation draws."""
    flow = Flow(width, **settings).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return flow


@pytest.mark.parametrize("width", [2, 3, 7, 8])
@torch.no_grad()
def test_a_flow_can_be_undone(width: int) -> None:
    flow = shaken(width)
    x = torch.randn(5, width).double()
    z = flow(x)
    assert z.shape == x.shape
    torch.testing.assert_close(flow.inverse(z), x)
    assert not torch.allclose(z, x)


@pytest.mark.parametrize("width", [5, 6])
@torch.no_grad()
def test_the_likelihood_is_exact(width: int) -> None:
    """Change of variables, with the Jacobian by differences."""
    flow = shaken(width)
    for x in torch.randn(3, width).double():
        volume = reference.log_determinant(lambda v: flow(torch.from_numpy(v)[None])[0].numpy(), x.numpy())
        expected = reference.normal_log_density(flow(x[None])[0].numpy()) + volume
        assert flow.log_likelihood(x[None]).item() == pytest.approx(expected, rel=1e-6)


def test_levels_halve_and_end_where_dimensions_do() -> None:
    assert [steps[0].shift.numel() for steps in Flow(12).levels] == [12, 6, 3]
    assert [steps[0].shift.numel() for steps in Flow(3, levels=5).levels] == [3, 2]
    assert [len(steps) for steps in Flow(12, levels=1, depth=4).levels] == [4]


@torch.no_grad()
def test_a_part_that_has_left_is_not_touched_again() -> None:
    flow = shaken(8, levels=2)
    one = Flow(8, levels=1).double()
    one.load_state_dict({name: value for name, value in flow.state_dict().items() if name.startswith("stack.0")})
    x = torch.randn(4, 8).double()
    torch.testing.assert_close(flow(x)[:, :4], one(x)[:, :4])
    assert not torch.allclose(flow(x)[:, 4:], one(x)[:, 4:])


@pytest.mark.parametrize("width", [2, 7, 12])
@torch.no_grad()
def test_dense_layers_are_the_flow(width: int) -> None:
    flow = shaken(width)
    x = torch.randn(6, width).double()
    values = x
    for weight, bias, relu in flow.dense_layers():
        values = values @ weight.double().T + bias.double()
        values = values.clamp(min=0) if relu else values
    torch.testing.assert_close(values, flow(x), rtol=1e-4, atol=1e-4)


def test_training_makes_the_embeddings_likelier_than_actnorm_alone(encoder: TextModel) -> None:
    x = torch.from_numpy(encoder.encode(TRAIN))
    before, after = (fit_flow(encoder, TRAIN, epochs=n).log_likelihood(x).mean().item() for n in (0, 30))
    assert after > before + 1
    assert abs(fit_flow(encoder, TRAIN, epochs=0)(x).std(0, correction=0).mean().item() - 1) < 1e-3


def test_a_seed_gives_the_same_flow_and_leaves_other_draws_alone(encoder: TextModel) -> None:
    state = torch.get_rng_state()
    one, same, other = (fit_flow(encoder, TRAIN, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# both


def _raw(model: TextModel, rows: list[str]) -> np.ndarray:
    after, model.postprocess = model.postprocess, None
    x = model.encode(rows)
    model.postprocess = after
    return x


@fitted
def test_sentence_transformers_and_load_give_the_same_embeddings(encoder: TextModel, tmp_path: Path, kind: str) -> None:
    """T15, with dense layers of its own: no code of others has to be trusted."""
    encoder.postprocess = FITS[kind](encoder)
    expected = encoder.encode(TEST)
    assert not np.allclose(expected, _raw(encoder, TEST)[:, : expected.shape[1]], atol=0.1)
    encoder.save(tmp_path / "model")
    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(other.encode(TEST), expected, rtol=1e-5, atol=1e-5)
    loaded = TextModel.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.encode(TEST), expected, rtol=1e-5, atol=1e-5)
    loaded.save(tmp_path / "again")
    np.testing.assert_array_equal(TextModel.load(tmp_path / "again").encode(TEST), loaded.encode(TEST))


@fitted
def test_a_sentence_is_mapped_alike_whatever_is_encoded_with_it(encoder: TextModel, kind: str) -> None:
    """Nothing is fitted at test: neither by encode nor by an evaluation."""
    encoder.postprocess = FITS[kind](encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    together = encoder.encode(TEST)
    for row, sentence in zip(together, TEST, strict=True):
        np.testing.assert_allclose(encoder.encode([sentence])[0], row, atol=1e-3)
    pairs = list(zip(TEST[:4], TEST[4:8], strict=True))
    evaluate_sts(encoder.encode, {"stsb": StsSet(pairs, [1.0, 2.0, 3.0, 4.0])}, ["stsb"])
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@fitted
def test_training_leaves_it_alone(encoder: TextModel, batch: Any, kind: str) -> None:
    plain = encoder(batch, want=("h",)).h
    encoder.postprocess = FITS[kind](encoder)
    torch.testing.assert_close(encoder(batch, want=("h",)).h, plain)
    assert not any(p.requires_grad for p in encoder.postprocess.parameters())


@fitted
def test_a_second_one_is_refused(encoder: TextModel, kind: str) -> None:
    encoder.postprocess = FITS[kind](encoder)
    for fit in FITS.values():
        with pytest.raises(UserError, match=f"has a {kind} already"):
            fit(encoder)
    encoder.postprocess = None
    FITS[kind](encoder)
