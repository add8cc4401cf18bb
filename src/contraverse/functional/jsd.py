"""The Jensen-Shannon estimate of mutual information between tokens and sentences."""

import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.functional.gather import gather, rank


def jsd(tokens: Tensor, mask: Tensor, sentences: Tensor) -> Tensor:
    """IS-BERT eqs. (1), (2), negated: tell each token's own sentence from the others of the batch.

    ``E_own[softplus(-T)] + E_other[softplus(T)]``, where T is the dot product of a token and a sentence, E_own the mean
    over real tokens with their own sentence, and E_other that over real tokens with every other sentence. Without
    others the second term is 0.

    Args:
        tokens: (B, T, Z).
        mask: (B, T), 1 on real tokens.
        sentences: (B, Z), row i is the sentence of ``tokens[i]``.

    Sentences are gathered from all ranks with gradients, and the means are over the pairs of all ranks, so that N ranks
    equal one. Computed in fp32; always >= 0.
    """
    rows, first = len(tokens), rank() * len(tokens)
    everyone = gather(sentences.float())
    real = mask.bool()
    with torch.autocast(tokens.device.type, enabled=False):
        scores = torch.where(real.unsqueeze(-1), tokens.float() @ everyone.T, 0.0)
        columns = torch.arange(len(everyone), device=tokens.device)
        own = columns == torch.arange(first, first + rows, device=tokens.device).unsqueeze(1)  # (B, all B)
        # DDP takes the mean over ranks, whose numbers of tokens differ: a rank's share of all is its sum times ranks.
        count = gather(real.sum().reshape(1)).sum().clamp(min=1) * rows / len(everyone)
        pairs = own.unsqueeze(1) & real.unsqueeze(-1)
        alike = torch.where(pairs, F.softplus(-scores), 0.0).sum() / count
        pairs = ~own.unsqueeze(1) & real.unsqueeze(-1)
        apart = torch.where(pairs, F.softplus(scores), 0.0).sum() / (count * max(1, len(everyone) - 1))
        return alike + apart
