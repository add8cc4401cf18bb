"""IS-BERT: sentence embeddings by mutual information (Zhang et al., 2020)."""

from collections.abc import Iterator

from torch import nn

from contraverse.functional import jsd
from contraverse.models.encoding import mean_pool
from contraverse.types import Batch, HeadSpec, Loss, Method


class ISBERT(Method):
    """Mutual information between a sentence's embedding and its own n-grams, by a Jensen-Shannon estimator.

        c_i = [ReLU(conv_1), ReLU(conv_3), ReLU(conv_5)] of the last hidden states at token i
        E   = mean of c_i over real tokens
        L   = E_own[softplus(-c_i . E)] + E_other[softplus(c_i . E')]                   eqs. (1), (2), negated

    E_own is the mean over all tokens of the batch, E_other that over all pairs of a token and another sentence E'.

    Batch: sentences. Cost: F + B = 3F, with the convolutions as a part of F: they add 256 * 9 * 768 = 1.8 M to the 85 M
    multiplications a token of BERT-base's layers, and .9 M to the 10.6 M of MiniLM's. At test the embedding is E
    (``model.embedding="ngrams"``).

    Departures: padding is kept out of the convolutions, through which the authors' code lets it reach the last tokens
    of a sentence. A batch of one row has no other sentence: its second term is 0.
    """

    name = "isbert"
    summary = "mutual information between a sentence's embedding and its n-grams"
    paper = "IS-BERT"
    equation = "(1), (2) of IS-BERT"
    modality = "text"
    requires = "inputs"
    in_batch_negatives = True
    cost = "3F"
    gathered = 1
    heads = {"ngrams": HeadSpec(dim=768, kind="ngrams")}

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        tokens, mask = model(batch, want=("ngrams",)).heads["ngrams"], batch["attention_mask"]  # (B, T, 768), (B, T)
        loss = jsd(tokens, mask, mean_pool(tokens, mask))
        yield Loss(loss, {"jsd": loss.detach()})
