"""RAR: reconstruction from adversarial representations (Qiu, Zhang and Zhou, 2021)."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor

from contraverse.functional import Norm
from contraverse.methods.freelb import Climb, Count, FreeLB
from contraverse.methods.settings import Gamma, Limit, Steps, StepSize
from contraverse.types import Batch, HeadSpec, Outputs

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the reconstruction loss")]


def reconstruction_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of every real token: the mean over a row's tokens, then over rows.

    So that a row weighs the same in whatever batch it stands.

    Args:
        logits: (B, T, V).
        ids: (B, T), the tokens that were there.
        mask: (B, T), 1 for real tokens, 0 for padding.
    """
    # In rows: over (B, V, T) the kernels stride, and take 1.6 times as long.
    each = F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), reduction="none").view_as(ids)
    return ((each * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


class RAR(FreeLB):
    """FreeLB, and every token has to be told from its adversarial representation.

        L   = 1/K sum_t ( L_C(X + delta_t, y) + w_r * L_R(X + delta_t, x) )        eq. (7)
        L_R = - 1/T sum_j log p(x_j | R_j^{adv,tok})

    R^{adv,tok} are the last hidden states of a pass; p is a masked-language head whose decoder is the word embeddings.

    Batch: ``labels``. Cost: K passes of 3F and K - 1 input gradients of L_C, 11F with the defaults, where F is a pass
    of the encoder with that head. The head is V x D products a token: a twentieth of ALBERT-base, but as much as the
    whole of a six-layer MiniLM. L_C's gradient does not pass through it.

    Departures: the paper lists "a Layer Normalization, GeLU Activation Function and two Feed Forward Layers"; its count
    of parameters (Table 7) is that of dense, GELU, layer norm and tied decoder, the order of ALBERT's own head.
    ``climb="total"`` climbs L_C + w_r * L_R, whose gradient the pass leaves behind (9F): most of it is L_R's, so that
    it trains on inputs whose words are hard to tell rather than on those that are hard to classify.

    Args:
        weight: w_r, of the reconstruction loss, >= 0.
        climb: what the perturbation climbs: ``"ce"``, L_C alone, as eq. (7), or the ``"total"`` loss of a pass.
        steps: K, passes or ascents of a step, see ``count``.
        step_size: length of one ascent, > 0.
        epsilon: largest norm of a perturbation over a sequence, > 0; None is no limit.
        gamma: size of the random start, >= 0; 0 starts at the clean input.
        norm: ``"l2"`` or ``"linf"``.
        count: whether ``steps`` are "passes" or "ascents", see `FreeLB`.
        share_dropout: whether all passes of a step draw the same dropout masks.
    """

    name = "rar"
    summary = "FreeLB, and every token is to be told from its adversarial representation"
    paper = "CARL/RAR"
    equation = "(7)"
    heads = {"reconstruction": HeadSpec(kind="mlm")}
    wants = ("reconstruction",)

    @validate_call
    def __init__(
        self,
        *,
        weight: Weight = 0.1,
        climb: Climb = "ce",
        steps: Steps = 3,
        step_size: StepSize = 0.1,
        epsilon: Limit = None,
        gamma: Gamma = 0.0,
        norm: Norm = "l2",
        count: Count = "passes",
        share_dropout: bool = True,
    ) -> None:
        super().__init__(
            steps=steps,
            step_size=step_size,
            epsilon=epsilon,
            gamma=gamma,
            norm=norm,
            count=count,
            share_dropout=share_dropout,
        )
        self.weight, self.climb = weight, climb

    @property
    def cost(self) -> str:  # type: ignore[override]
        """3F for each pass, and F for each ascent of L_C alone."""
        return f"{3 * self.rounds + (self.rounds - 1) * (self.climb == 'ce')}F"

    def terms(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        loss = reconstruction_loss(out.heads["reconstruction"], batch["input_ids"], batch["attention_mask"])
        return {**super().terms(out, batch, k), "reconstruction": (self.weight, loss)}
