"""IS-BERT's estimator against the printed equations."""

import pytest
import torch
from reference.sentence_reference import isbert_loss
from torch import Tensor

from contraverse.functional import jsd

LENGTHS = [5, 3, 1, 4]


def drawn(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    tokens, sentences = torch.randn(4, 5, 6) * scale, torch.randn(4, 6)
    mask = (torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    return tokens, mask, sentences


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_it_is_the_printed_estimate(scale: float) -> None:
    tokens, mask, sentences = drawn(scale)
    expected = isbert_loss(tokens.double().numpy(), LENGTHS, sentences.double().numpy())
    assert jsd(tokens, mask, sentences).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_agree_with_differences_of_the_loop() -> None:
    tokens, mask, sentences = drawn()
    leaf = sentences.clone().requires_grad_()
    jsd(tokens, mask, leaf).backward()
    assert leaf.grad is not None
    for i, j in ((0, 0), (2, 3), (3, 5)):
        ends = []
        for sign in (1, -1):
            moved = sentences.double().numpy().copy()
            moved[i, j] += sign * 1e-4
            ends.append(isbert_loss(tokens.double().numpy(), LENGTHS, moved))
        assert leaf.grad[i, j].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3, abs=1e-5)


def test_padding_is_not_seen() -> None:
    tokens, mask, sentences = drawn()
    changed = torch.where(mask.bool().unsqueeze(-1), tokens, 1e4)
    torch.testing.assert_close(jsd(changed, mask, sentences), jsd(tokens, mask, sentences))


def test_one_row_has_nothing_to_be_told_from() -> None:
    tokens, mask, sentences = (x[:1] for x in drawn())
    expected = torch.nn.functional.softplus(-(tokens[0] @ sentences[0])).mean()
    torch.testing.assert_close(jsd(tokens, mask, sentences), expected)


def test_half_precision_is_scored_in_fp32() -> None:
    tokens, mask, sentences = drawn(30.0)
    halves = (x.bfloat16() for x in (tokens, sentences))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = jsd(next(halves), mask, next(halves))
    assert found.dtype == torch.float32
    exact = jsd(tokens.bfloat16().float(), mask, sentences.bfloat16().float())
    torch.testing.assert_close(found, exact)
