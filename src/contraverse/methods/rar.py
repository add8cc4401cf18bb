"""RAR: reconstruction from adversarial representations (Qiu, Zhang and Zhou, 2021)."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.functional import Norm, gather
from contraverse.methods.freelb import Climb, Count, FreeLB
from contraverse.methods.reconstruction import Reconstruction, SkipSpecial, Warmup
from contraverse.methods.settings import Gamma, Limit, Steps, StepSize
from contraverse.types import Batch, HeadSpec, Loss, Outputs, TrainingInfo

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the reconstruction loss")]


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
    The head starts as the checkpoint's own masked-language head where there is one, which the paper does not say.

    Args:
        weight: w_r, of the reconstruction loss, >= 0.
        skip_special: whether special tokens ([CLS], [SEP], ...) are left out of L_R, which the paper does not say.
        head_warmup: epochs, >= 0, in which L_R trains its head alone, on hidden states that are held constant.
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
    modality = "text"
    summary = "FreeLB, and every token is to be told from its adversarial representation"
    paper = "CARL/RAR"
    equation = "(7)"
    heads = {"reconstruction": HeadSpec(kind="mlm")}

    @validate_call
    def __init__(
        self,
        *,
        weight: Weight = 0.1,
        skip_special: SkipSpecial = False,
        head_warmup: Warmup = 0.0,
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
        self.reconstruction = Reconstruction(skip_special, head_warmup)

    def prepare(self, training_info: TrainingInfo) -> None:
        """Learn which tokens are special and how long an epoch is."""
        self.reconstruction.prepare(training_info)

    @property
    def cost(self) -> str:  # type: ignore[override]
        """3F for each pass, and F for each ascent of L_C alone."""
        return f"{3 * self.rounds + (self.rounds - 1) * (self.climb == 'ce')}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        yield from super().losses(model, batch)
        self.reconstruction.count(len(gather(batch["index"])) if self.reconstruction.warmup else 0)

    def run(self, model: nn.Module, batch: Batch, delta: Tensor) -> Outputs:
        return self.reconstruction.run(model, batch, delta, ("logits",))

    def extra_losses(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        loss = self.reconstruction.loss(out, batch)
        return {**super().extra_losses(out, batch, k), "reconstruction": (self.weight, loss)}
