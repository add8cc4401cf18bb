"""InfoBERT (Wang et al., 2021): FreeLB with two mutual-information regularisers."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated

from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, SharedDropout, attack_step, input_gradient, perturbation_inputs
from contraverse.errors import UserError
from contraverse.functional import Norm, anchored, club_bound, gather, info_nce_bound, norm, supervised_loss
from contraverse.methods.settings import Alpha, Gamma, Limit, Steps, StepSize
from contraverse.types import Batch, HeadCall, HeadSpec, Loss, Method

Beta = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the information bottleneck")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="share of a row's tokens")]


class InfoBERT(Method):
    """What the embeddings tell is squeezed, and of that what the steadier tokens tell of the sentence is kept.

        L     = 1/K sum_k ( L_C(X + delta_k, y) + beta I_up(X; T) - alpha I_low(T_a; Z) )
        I_up  = 1/n^2 sum_{i,j} ||t_i - t_j||^2 / 2                                     eqs. (5)-(7), as coded
        I_low = 1/N sum_i ( g(t_i, z_i) - log 1/N sum_j exp g(t_j, z_i) )               eqs. (8), (9)

    over all n real tokens of the batch, and over the N of them that are anchored features: in a row of m tokens those
    of rank ceil(low m) to ceil(high m) by the norm of the gradient of L_C + beta I_up at delta, which delta climbs as
    in FreeLB. t is what the first layer reads of a token, z the last hidden state of [CLS], g an MLP
    [t; z] -> 300 -> 1 with softplus.

    Batch: ``labels``. Cost: K passes of F + b + B, 12F with the defaults, besides the critic's N x B pairs.

    Departures: the authors' I_up takes each token with one drawn at random; here it is the mean over all pairs. Their
    I_low takes chunks of B tokens in an order drawn once; here all anchored features of the batch, of all ranks. They
    run a second backward pass for it; here one pass trains on all of it and the gradient at delta alone is taken
    before. Special tokens may be anchored features, as in their code. Dropout masks are shared in every module.

    Args:
        alpha: of I_low, >= 0.
        beta: of I_up, >= 0.
        low: c_l, the rank of the first anchored feature as a share of the row, in [0, 1], below ``high``.
        high: c_h, of the first one after them, in [0, 1].
        steps: K, forward-backwards; the last climbs no further.
        step_size: length of one ascent, > 0.
        epsilon: largest norm of a perturbation over a sequence, > 0; None is no limit.
        gamma: size of the random start, >= 0; 0 starts at the clean input.
        norm: ``"l2"`` or ``"linf"``.
        share_dropout: whether all passes of a step draw the same dropout masks.
    """

    name = "infobert"
    summary = "FreeLB, an information bottleneck, and steady tokens that tell of their sentence"
    paper = "InfoBERT"
    equation = "(5)-(9) of InfoBERT"
    modality = "text"
    requires = "labels"
    heads = {"critic": HeadSpec(kind="critic")}

    @validate_call
    def __init__(
        self,
        *,
        alpha: Alpha = 5e-3,
        beta: Beta = 5e-3,
        low: Share = 0.5,
        high: Share = 0.9,
        steps: Steps = 3,
        step_size: StepSize = 0.04,
        epsilon: Limit = None,
        gamma: Gamma = 0.08,
        norm: Norm = "l2",
        share_dropout: bool = True,
    ) -> None:
        super().__init__()
        if not low < high:
            raise UserError(f"low = {low:g} and high = {high:g} leave no anchored features", hint="low is below high")
        self.ball = NormBall(epsilon, step_size, norm, gamma=gamma, normalize_grad=True)
        self.alpha, self.beta, self.low, self.high = alpha, beta, low, high
        self.rounds, self.gamma, self.share_dropout = steps, gamma, share_dropout

    @property
    def passes(self) -> int:  # type: ignore[override]
        """K."""
        return self.rounds

    @property
    def cost(self) -> str:  # type: ignore[override]
        """4F for each pass."""
        return f"{4 * self.rounds}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs, mask = perturbation_inputs(model, batch), batch["attention_mask"]
        masks = SharedDropout(inputs.values.device) if self.share_dropout else nullcontext
        delta = self.ball.init(inputs, random=self.gamma > 0)
        log: dict[str, Tensor] = {}
        for k in range(self.rounds):
            with masks():
                out = model(batch, delta=delta, want=("logits", "embedded", "tokens"))
            logits, embedded = out.logits.float(), out.embedded.float()
            ce, bottleneck = supervised_loss(logits, batch["labels"]), club_bound(embedded, mask)
            grad = input_gradient(Objective(ce, logits), delta, keep_graph=True)
            # Of what the first layer reads, so that this part is no pass through the encoder.
            grad = grad + self.beta * input_gradient(Objective(bottleneck, embedded), delta, keep_graph=True)
            places, valid = anchored(norm(grad, scope="token").squeeze(-1), mask, self.low, self.high)
            local = out.embedded.gather(1, places.unsqueeze(-1).expand(-1, -1, out.embedded.shape[-1]))
            sentences = gather(out.tokens[:, 0])
            scores = model(HeadCall("critic", (local.flatten(0, 1), sentences), out)).heads["critic"]
            information = info_nce_bound(scores.unflatten(0, places.shape), valid)
            clean = k == 0 and self.gamma == 0
            parts = {"ce" if clean else "ce_adv": ce, "bottleneck": bottleneck, "information": information}
            total = (ce + self.beta * bottleneck - self.alpha * information) / self.rounds
            yield Loss(total, {name: value.detach() for name, value in parts.items()} | log)
            if k < self.rounds - 1:
                attack = attack_step(delta, self.ball, inputs, grad=grad)
                log, delta = attack.log(inputs), attack.delta.requires_grad_()
