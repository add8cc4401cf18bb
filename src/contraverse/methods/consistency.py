"""Consistency under noise: the same prediction for a text and its noisy twin, as self-teaching (Zhuang and Zuccon)."""

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from contraverse.functional import kl, squared_distance, supervised_loss, symmetric_kl
from contraverse.methods._settings import Weight, settings
from contraverse.methods._views import NoisyViews
from contraverse.types import Batch, Loss


@settings
class Consistency(NoisyViews):
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

    def setup(self) -> None:
        super().setup()
        self.cost_with_noise = f"{6 + self.choice_cost}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        clean = model(batch).logits  # (B, C)

        def row_losses(draw: Batch) -> Tensor:
            logits = model(draw).logits
            ce = supervised_loss(logits, labels, reduction="none")
            return self.noisy_weight * ce + self.weight * self.divergences(clean.detach(), logits, labels)

        noisy = model(self.noisy_view(batch, row_losses)).logits  # (B, C)
        ce, ce_noisy = supervised_loss(clean, labels), supervised_loss(noisy, labels)
        teacher = clean.detach() if self.divergence == "self-teaching" else clean
        divergence = self.divergences(teacher, noisy, labels).mean()
        parts = {"ce": ce.detach(), "ce_noisy": ce_noisy.detach(), "divergence": divergence.detach()}
        yield Loss(ce + self.noisy_weight * ce_noisy + self.weight * divergence, parts)

    def divergences(self, clean: Tensor, noisy: Tensor, labels: Tensor) -> Tensor:
        """Divergence of each row's predictions (B,), from logits (B, C)."""
        if labels.is_floating_point():
            return squared_distance(clean, noisy)
        return kl(clean, noisy) if self.divergence == "self-teaching" else symmetric_kl(clean, noisy) / 2
