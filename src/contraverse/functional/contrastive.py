"""Contrastive losses on projected features ``z`` (B, Z).

All are computed in fp32 through logsumexp: the exponential form overflows at temperature .05 in half
precision and loses digits in single.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.functional.gather import gather, rank

SameClass = Literal["negatives", "masked", "positives"]
"""Role of the other rows of an anchor's class: further negatives, left out of the denominator, or positives."""


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1, eps=1e-8)


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    temperature: float,
    *,
    negatives: Tensor | None = None,
    labels: Tensor | None = None,
    same_class: SameClass = "negatives",
) -> Tensor:
    """InfoNCE, SCAL eq. (4): pick each anchor's own positive among those of the whole batch.

    ``-log( exp(sim(a_i, p_i)/t) / sum_k exp(sim(a_i, c_k)/t) )``, mean over i, with ``sim`` the cosine and the
    candidates ``c`` all positives, then ``negatives`` (M, Z) if given (SimCSE's hard negatives).

    Args:
        anchor: (B, Z).
        positive: (B, Z), row i belongs to anchor i.
        temperature: > 0.
        negatives: further candidates, never the right answer.
        labels: (B,), classes of the rows, which ``same_class`` other than ``"negatives"`` needs.
        same_class: positives of other rows of the anchor's class are ``"negatives"``; ``"masked"`` out of the
            denominator; or ``"positives"`` too, over which the loss is averaged: L_out^sup of supervised contrastive
            learning (Khosla et al. 2020, eq. 2), with the other view of all rows as its A(i).

    Candidates are gathered from all ranks with gradients, so that N ranks equal one. Always >= 0.
    """
    candidates = [gather(_unit(positive))]
    if negatives is not None:
        candidates.append(gather(_unit(negatives)))
    with torch.autocast(anchor.device.type, enabled=False):
        logits = _unit(anchor) @ torch.cat(candidates).T / temperature  # (B, N + M)
        first = rank() * len(anchor)
        mine = torch.arange(first, first + len(anchor), device=anchor.device)
        if same_class == "negatives":
            return F.cross_entropy(logits, mine)
        same = _same_class(labels)  # (B, N)
        if same_class == "positives":
            log_p = logits.log_softmax(1)[:, : same.shape[1]]
            return -(log_p.masked_fill(~same, 0.0).sum(1) / same.sum(1)).mean()
        others = F.pad(same.scatter(1, mine.unsqueeze(1), False), (0, logits.shape[1] - same.shape[1]))
        return F.cross_entropy(logits.masked_fill(others, -torch.inf), mine)


def _same_class(labels: Tensor | None) -> Tensor:
    """(B, N): which of the rows of all ranks are of an anchor's class; the anchor itself is.

    Raises:
        ValueError: no labels.
    """
    if labels is None:
        raise ValueError("labels are missing, by which rows of the same class are recognised")
    return labels.unsqueeze(1) == gather(labels)


def scal_literal(
    z: Tensor,
    z_adv: Tensor,
    temperature: float,
    *,
    labels: Tensor | None = None,
    same_class: SameClass = "negatives",
) -> Tensor:
    """SCAL eq. (7) exactly as printed: ``-log( exp(sim(z_i, z_i^adv)/t) / sum_k exp(sim(z_i, z_k)/t) )``.

    The denominator runs over the *clean* features, k = i included, and leaves the positive out. Because
    ``sim(z_i, z_i) = 1`` is the largest similarity there is, that term keeps the loss >= 0, and makes the
    gradient that spreads the anchors nearly vanish at small temperatures.

    Args:
        z: (B, Z) of the clean inputs.
        z_adv: (B, Z) of the adversarial ones.
        temperature: > 0.
        labels: (B,), classes of the rows, which ``same_class`` other than ``"negatives"`` needs.
        same_class: as in `info_nce`; masked are other clean rows of the class, positives its adversarial ones.
    """
    z, z_adv = _unit(z), _unit(z_adv)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ gather(z).T / temperature  # (B, N)
        positive = (z * z_adv).sum(-1) / temperature
        if same_class == "positives":
            same = _same_class(labels)
            scores = z @ gather(z_adv).T / temperature  # (B, N)
            positive = scores.masked_fill(~same, 0.0).sum(1) / same.sum(1)
        elif same_class == "masked":
            first = rank() * len(z)
            mine = torch.arange(first, first + len(z), device=z.device)
            logits = logits.masked_fill(_same_class(labels).scatter(1, mine.unsqueeze(1), False), -torch.inf)
        return (torch.logsumexp(logits, dim=-1) - positive).mean()


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR's NT-Xent, ConSERT eq. (1): each of 2B views picks its partner among the other 2B - 1.

    ``-log( exp(sim(v_i, v_j)/t) / sum_{k != i} exp(sim(v_i, v_k)/t) )``, mean over all views v, ``j`` the other view of
    the same row, ``sim`` the cosine. Unlike `info_nce` it is symmetric, and the views of the same kind are negatives.

    Args:
        first: (B, Z).
        second: (B, Z), row i is the other view of ``first[i]``.
        temperature: > 0.

    Candidates are gathered from all ranks with gradients, so that N ranks equal one. Always >= 0; 0 for one row.
    """
    views = torch.cat([_unit(first), _unit(second)])
    candidates = torch.cat([gather(_unit(first)), gather(_unit(second))])
    half = len(candidates) // 2
    mine = torch.arange(len(first), device=first.device) + rank() * len(first)
    itself, partner = torch.cat([mine, mine + half]), torch.cat([mine + half, mine])
    with torch.autocast(first.device.type, enabled=False):
        logits = views @ candidates.T / temperature
        return F.cross_entropy(logits.scatter(1, itself.unsqueeze(1), -torch.inf), partner)


@torch.no_grad()
def class_cosines(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of two rows of different classes, and of two rows of one class.

    Args:
        features: (B, d).
        labels: (B,), classes.

    Returns:
        Two scalars; NaN where there are no such pairs.
    """
    unit = _unit(features)
    with torch.autocast(features.device.type, enabled=False):
        cosines = unit @ unit.T  # (B, B)
    same = labels.unsqueeze(1) == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    between, within = ((cosines * pairs).sum() / pairs.sum() for pairs in (~same, same & ~itself))
    return between, within
