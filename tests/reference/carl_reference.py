"""CARL's eq. (2) as printed, on both views of this step at once, in plain loops over float64 tensors with gradients.

Written from the paper: R_i and R_i^adv are both what the network makes of the input (S_adv and S_orig of eq. (2)
list them with the negatives), so the score of a positive has a gradient through both. Negatives are read from memory.
Probabilities are written out: nothing is in log space.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SideLoss = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""Of one anchor, from the score of its positive and those of its negatives."""


def by_softmax(positive: Tensor, negatives: Sequence[Tensor]) -> Tensor:
    total = positive.exp()
    for negative in negatives:
        total = total + negative.exp()
    return -(positive.exp() / total).log()


def by_nce(z: float, n: int) -> SideLoss:
    """CRD's estimate with the normaliser ``z``, the noise uniform over ``n`` rows."""

    def loss(positive: Tensor, negatives: Sequence[Tensor]) -> Tensor:
        noise = len(negatives) / n
        total = -(positive.exp() / z / (positive.exp() / z + noise)).log()
        for negative in negatives:
            total = total - (noise / (negative.exp() / z + noise)).log()
        return total

    return loss


def pairs(
    anchors: Tensor, others: Tensor | None, index: Sequence[int], bank: Tensor, labels: Sequence[int], t: float
) -> list[tuple[Tensor, list[Tensor]]]:
    """Scores of each anchor with its positive (``others`` of this step, or None: the bank's row) and its negatives."""
    result = []
    for place, i in enumerate(index):
        positive = bank[i] if others is None else others[place]
        negatives = [(anchors[place] * bank[j]).sum() / t for j in range(len(bank)) if labels[j] != labels[i]]
        result.append(((anchors[place] * positive).sum() / t, negatives))
    return result


def contrast(
    clean: Tensor,
    adversarial: Tensor,
    index: Sequence[int],
    banks: tuple[Tensor, Tensor],
    labels: Sequence[int],
    t: float,
    losses: tuple[SideLoss, SideLoss],
) -> Tensor:
    """L_D = L_D^o + L_D^a, each the mean over the batch.

    Args:
        clean, adversarial: R and R^adv (B, d), of norm 1, with their graphs.
        banks: of clean and of adversarial features.
        losses: of L_D^o and of L_D^a.
    """
    total = torch.zeros((), dtype=torch.float64)
    for anchors, others, bank, loss in (
        (clean, adversarial, banks[1], losses[0]),
        (adversarial, clean, banks[0], losses[1]),
    ):
        for positive, negatives in pairs(anchors, others, index, bank, labels, t):
            total = total + loss(positive, negatives) / len(anchors)
    return total


def constant(scored: list[tuple[Tensor, list[Tensor]]], n: int) -> float:
    """CRD's Z: ``n`` times the mean of exp over all scores at hand."""
    everything = [s.item() for positive, negatives in scored for s in (positive, *negatives)]
    return n * sum(math.exp(s) for s in everything) / len(everything)
