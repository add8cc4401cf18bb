"""InfoBERT, IS-BERT and ConSERT, and the two maps of embeddings, against the loops of `reference`."""

from typing import Any

import numpy as np
import pytest
import torch
from reference import infobert_reference, sentence_reference
from reference.driving import FACTS, Watched, losses_of
from reference.freelb_reference import Array
from reference.tiny import sentences
from torch import Tensor

from contraverse.functional.jsd import jsd
from contraverse.functional.mutual_information import anchored, club_bound, info_nce_bound
from contraverse.methods import METHODS
from contraverse.models.flow import Flow
from contraverse.models.heads import NGrams
from contraverse.models.whitening import fit_whitening

MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
LENGTHS = MASK.sum(1).tolist()


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


@pytest.fixture
def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_bottleneck_is_the_mean_over_all_pairs(drawn: torch.Generator) -> None:
    features = torch.randn(4, 7, 5, generator=drawn) * 2 + 3
    expected = infobert_reference.club_bound(array(features[MASK.bool()]))
    assert club_bound(features, MASK.bool()).item() == pytest.approx(expected, rel=1e-5)
    features[MASK == 0] = 1e4
    assert club_bound(features, MASK.bool()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.9), (0.0, 1.0), (0.2, 0.3), (0.0, 0.1)])
def test_anchored_features_are_those_of_the_middle_ranks(drawn: torch.Generator, low: float, high: float) -> None:
    grad = torch.randn(4, 7, 5, generator=drawn)
    grad[MASK == 0] *= 9  # padding may not take a rank
    places, valid = anchored(grad.norm(dim=-1), MASK.bool(), low, high)
    for i in range(4):
        got = sorted(places[i][valid[i]].tolist())
        assert got == infobert_reference.anchored(array(grad[i]), MASK[i].tolist(), low, high)


def test_the_lower_bound_scores_each_token_with_every_sentence(drawn: torch.Generator) -> None:
    scores = torch.randn(4, 3, 4, generator=drawn) * 2
    valid = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()
    where = np.array([[i, k] for i in range(4) for k in range(3) if valid[i, k]])
    expected = infobert_reference.info_nce(
        where, where[:, :1], lambda t, z: float(scores[int(t[0]), int(t[1]), int(z[0])])
    )
    assert info_nce_bound(scores, valid).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_infoberts_total_is_its_parts(tiny_model: Any, batch: Any, alpha: float) -> None:
    """Eqs. (5) to (9), from the states and gradients of the passes that were made."""
    method = METHODS["infobert"](alpha=alpha, beta=0.3, steps=2, gamma=0.1)
    model = tiny_model(dropout=0.0, heads=method.heads).train()
    watched = Watched(model)
    losses = losses_of(method, watched, batch, still=False)
    mask, critic = batch["attention_mask"], model.heads["critic"]
    passes = watched.watch.passes()
    assert len(passes) == len(losses) == 2
    for call, loss in zip(passes, losses, strict=True):
        words = model.encoder.get_input_embeddings()(batch["input_ids"]).detach() + call.delta
        words.requires_grad_()
        out = model.encoder.base_model(inputs_embeds=words, attention_mask=mask, output_hidden_states=True)
        logits = model.encoder(inputs_embeds=words, attention_mask=mask).logits
        ce = torch.nn.functional.cross_entropy(logits, batch["labels"])
        first, last = out.hidden_states[0], out.last_hidden_state[:, 0]
        n = first[mask.bool()]
        # The variance, which the reference's test says the bound is: here it has to have a gradient.
        bound = (n - n.mean(0)).square().sum(1).mean()
        assert bound.item() == pytest.approx(infobert_reference.club_bound(array(n)), rel=1e-5)
        (grad,) = torch.autograd.grad(ce + 0.3 * bound, words)
        places = [
            (i, t) for i in range(4) for t in infobert_reference.anchored(array(grad[i]), mask[i].tolist())
        ]  # fmt: skip
        local = torch.stack([first[i, t] for i, t in places])
        scores = array(critic(local, last))
        at = np.arange(len(places))[:, None]
        information = infobert_reference.info_nce(
            at, np.array([[i] for i, _ in places]), lambda t, z, s=scores: float(s[int(t[0]), int(z[0])])
        )
        expected = infobert_reference.total(ce.item(), bound.item(), information, 0.3, alpha) / 2
        assert loss.total.item() == pytest.approx(expected, rel=1e-3)


# sentence embeddings


def test_isberts_estimate_is_the_loop(drawn: torch.Generator) -> None:
    tokens, own = torch.randn(4, 7, 5, generator=drawn), torch.randn(4, 5, generator=drawn)
    expected = sentence_reference.isbert_loss(array(tokens), LENGTHS, array(own))
    assert jsd(tokens, MASK, own).item() == pytest.approx(expected, rel=1e-5)


def test_ngrams_are_convolutions_that_end_with_the_sentence(drawn: torch.Generator) -> None:
    head, tokens = NGrams(6, 9), torch.randn(4, 7, 6, generator=drawn)
    got = array(head(tokens, MASK))
    for i in range(4):
        parts = [
            sentence_reference.ngrams(array(tokens[i]), LENGTHS[i], array(conv.weight), array(conv.bias))
            for conv in head.convs
        ]
        np.testing.assert_allclose(got[i], np.concatenate(parts, 1), atol=1e-5)


def test_isberts_sentence_is_the_mean_of_its_own_ngrams(tiny_model: Any, batch: Any) -> None:
    method = METHODS["isbert"]()
    model = tiny_model(dropout=0.0, heads=method.heads).train()
    (loss,) = losses_of(method, model, batch)
    mask = batch["attention_mask"]
    features = array(model.heads["ngrams"](model(batch, want=("tokens",)).tokens, mask))
    means = np.stack([row[:n].mean(0) for row, n in zip(features, mask.sum(1).tolist(), strict=True)])
    expected = sentence_reference.isbert_loss(features, mask.sum(1).tolist(), means)
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("views", [("feature-cutoff", "shuffle"), ("token-cutoff", "dropout"), ("none", "shuffle")])
def test_consert_is_nt_xent_of_the_mean_tokens(tiny_model: Any, batch: Any, views: tuple[str, str]) -> None:
    method = METHODS["consert"](first=views[0], second=views[1], temperature=0.3)
    method.prepare(FACTS)
    watched = Watched(tiny_model(labels=None, dropout=0.1).train())
    (loss,) = losses_of(method, watched, batch, still=False)
    mask = batch["attention_mask"].unsqueeze(-1)
    first, second = ((call.out.tokens * mask).sum(1) / mask.sum(1) for call in watched.watch.passes())
    expected = sentence_reference.nt_xent(array(first), array(second), 0.3)
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)
    assert expected > 0.01


# maps of embeddings


def test_whitened_embeddings_are_algorithm_1(tiny_model: Any) -> None:
    """Up to the sign of each column, which no decomposition fixes."""
    model, text = tiny_model(labels=None), sentences(120)
    x = model.encode(text).astype(np.float64)
    model.postprocess = fit_whitening(model, text, dim=8)
    got = model.encode(text).astype(np.float64)
    mean, w = sentence_reference.whitening(x, 8)
    expected = (x - mean) @ w
    signs = np.sign((got * expected).sum(0))
    np.testing.assert_allclose(got, expected * signs, atol=2e-3)
    np.testing.assert_allclose(sentence_reference.covariance(got), np.eye(8), atol=1e-2)


@pytest.mark.parametrize("width", [2, 5, 8])
def test_the_flow_inverts_and_knows_its_determinant(width: int) -> None:
    torch.manual_seed(0)
    flow = Flow(width).double()
    x = torch.randn(40, width, dtype=torch.float64) * 3 + 1
    with torch.no_grad():
        flow.centre(x)
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        z = flow(x)
        torch.testing.assert_close(flow.inverse(z), x)
        for i in range(2):
            expected = sentence_reference.normal_log_density(array(z[i])) + sentence_reference.log_determinant(
                lambda v: array(flow(torch.tensor(v)[None])[0]), array(x[i])
            )
            assert flow.log_likelihood(x)[i].item() == pytest.approx(expected, rel=1e-6)
