"""Consistency under noise: the same prediction for a text and its noisy twin, as self-teaching (Zhuang and Zuccon)."""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from contraverse.functional import kl, squared_distance, supervised_loss, symmetric_kl
from contraverse.methods._settings import Weight, settings
from contraverse.methods._views import second_view
from contraverse.types import Batch, Loss, Method


@settings
class Consistency(Method):
    """Cross-entropy on a text and its noisy twin, plus the divergence of the two predictions.

        L = CE(x, y) + a CE(x', y) + b/2 (KL(P || P') + KL(P' || P))

    x' is the text with noise (``data.noise``), P and P' are the predictions; of a regression the divergence is the
    squared distance. ``divergence="self-teaching"`` has ``b KL(P || P')`` with P constant: the text teaches its twin;
    with a = 0 this is Self-Teaching. Without noise x' is x under another dropout mask, as in R-Drop.

    Batch: ``labels``, and ``noisy``. Cost: 2F + 2B = 6F.

    Departures: the paper's P is the distribution of a query's scores over passages, here that over classes; its noise
    are typos.
    """

    name = "consistency"
    summary = "cross-entropy plus KL between a text and its noisy twin"
    paper = "Self-Teaching"
    equation = "loss of Self-Teaching, on classes; symmetric as R-Drop's"
    modality = "text"
    requires = "labels"
    text_views = 2
    cost = "6F"
    graphs = 2
    test_settings = {"consistency-self-teaching": {"divergence": "self-teaching", "noisy_weight": 0.0}}

    weight: Weight = 1.0
    """Weight b of the divergence."""
    noisy_weight: Weight = 1.0
    """Weight a of the cross-entropy of the noisy twin; 0 in Self-Teaching."""
    divergence: Literal["symmetric", "self-teaching"] = "symmetric"
    """Divergence of the predictions: `symmetric` KL, or `self-teaching`, from the clean prediction as a constant."""

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        clean, noisy = (model(view).logits for view in (batch, second_view(batch)))  # (B, C) each
        ce, ce_noisy = supervised_loss(clean, labels), supervised_loss(noisy, labels)
        teacher = clean.detach() if self.divergence == "self-teaching" else clean
        if labels.is_floating_point():
            divergence = squared_distance(teacher, noisy).mean()
        elif self.divergence == "self-teaching":
            divergence = kl(teacher, noisy).mean()
        else:
            divergence = symmetric_kl(clean, noisy).mean() / 2
        parts = {"ce": ce.detach(), "ce_noisy": ce_noisy.detach(), "divergence": divergence.detach()}
        yield Loss(ce + self.noisy_weight * ce_noisy + self.weight * divergence, parts)
