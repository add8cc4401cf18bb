"""InfoBERT (Wang et al., 2021): FreeLB with two mutual-information regularizers."""

from collections.abc import Iterator
from contextlib import nullcontext

from torch import Tensor, nn

from contraverse.attacks import (
    NormBall,
    Objective,
    SharedDropout,
    attack_step,
    input_gradient,
    perturbation_inputs,
)
from contraverse.errors import UserError
from contraverse.functional import Norm, anchored, club_bound, gather, info_nce_bound, norm, supervised_loss
from contraverse.methods._settings import Gamma, Limit, Share, Steps, StepSize, Weight, settings
from contraverse.types import Batch, HeadCall, HeadSpec, Loss, Method


@settings
class InfoBERT(Method):
    """FreeLB with an information bottleneck on the embeddings and a local-global mutual-information term.

        L     = 1/K sum_k ( L_C(X + delta_k, y) + beta I_up(X; T) - alpha I_low(T_a; Z) )
        I_up  = 1/n^2 sum_{i,j} ||t_i - t_j||^2 / 2                                     eqs. (5)-(7), as coded
        I_low = 1/N sum_i ( g(t_i, z_i) - log 1/N sum_j exp g(t_j, z_i) )               eqs. (8), (9)

    over all n real tokens of the batch, and over the N of them that are anchored features: in a row of m tokens those
    of rank ceil(low m) to ceil(high m) by the norm of the gradient of L_C + beta I_up at delta, which delta follows as
    in FreeLB. t is the first layer's input at a token, z the last hidden state of [CLS], g an MLP
    [t; z] -> 300 -> 1 with softplus.

    Batch: ``labels``. Cost: K passes of F + b + B, 12F with the defaults, besides the critic's N x B pairs.

    Departures: the authors' I_up takes each token with one drawn at random; here it is the mean over all pairs. Their
    I_low takes chunks of B tokens in an order drawn once; here all anchored features of the batch, of all ranks. They
    run a second backward pass for it; here one pass trains on all of it and the gradient at delta alone is taken
    before. Special tokens may be anchored features, as in their code. Dropout masks are shared in every module.
    """

    name = "infobert"
    summary = "FreeLB plus an information bottleneck and a mutual-information term"
    paper = "InfoBERT"
    equation = "(5)-(9) of InfoBERT"
    modality = "text"
    requires = "labels"
    heads = {"critic": HeadSpec(kind="critic")}
    test_settings = {"infobert-far": {"gamma": 0.0, "step_size": 0.3, "alpha": 0.1, "beta": 0.1}}

    alpha: Weight = 5e-3
    """Weight of I_low; the authors' value."""
    beta: Weight = 5e-3
    """Weight of I_up; the authors' value."""
    low: Share = 0.5
    """Rank c_l of the first anchored feature, as a share of the row; below `high`."""
    high: Share = 0.9
    """Rank c_h of the first feature after them, as a share of the row."""
    steps: Steps = 3
    """Number K of forward-backward passes; the last is followed by no attack step."""
    step_size: StepSize = 0.04
    """Length of one attack step."""
    epsilon: Limit = None
    """Largest norm of a perturbation over a sequence; null is no limit."""
    gamma: Gamma = 0.08
    """Size of the random start, as in FreeLB; 0 starts at the clean input."""
    norm: Norm = "l2"
    """Norm of the perturbation."""
    share_dropout: bool = True
    """Draw the same dropout masks in all passes of a step."""

    def setup(self) -> None:
        if not self.low < self.high:
            shares = f"low = {self.low:g} and high = {self.high:g}"
            raise UserError(f"{shares} leave no anchored features", hint="low is below high")
        self.ball = NormBall(self.epsilon, self.step_size, self.norm, gamma=self.gamma, normalize_grad=True)
        self.passes = self.steps
        self.cost = f"{4 * self.steps}F"
        self.gathered = self.steps
        self.stochastic = self.gamma > 0

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs, mask = perturbation_inputs(model, batch), batch["attention_mask"]
        masks = SharedDropout(inputs.values.device) if self.share_dropout else nullcontext
        delta = self.ball.init(inputs, random=self.gamma > 0)
        log: dict[str, Tensor] = {}
        for k in range(self.steps):
            with masks():
                out = model(batch, delta=delta, want=("logits", "embedded", "tokens"))
            logits, embedded = out.logits.float(), out.embedded.float()  # (B, C), (B, T, H)
            ce, bottleneck = supervised_loss(logits, batch["labels"]), club_bound(embedded, mask)
            grad = input_gradient(Objective(ce, logits), delta, keep_graph=True)  # (B, T, D)
            # At the first layer's input, so that this part is no pass through the encoder.
            grad = grad + self.beta * input_gradient(Objective(bottleneck, embedded), delta, keep_graph=True)
            sizes = norm(grad, scope="token").squeeze(-1)  # (B, T, D) -> (B, T)
            places, valid = anchored(sizes, mask, self.low, self.high)  # (B, A), A anchored tokens at most a row
            local = out.embedded.gather(1, places.unsqueeze(-1).expand(-1, -1, out.embedded.shape[-1]))  # (B, A, H)
            sentences = gather(out.tokens[:, 0])  # (ranks * B, H), of [CLS]
            scores = model(HeadCall("critic", (local.flatten(0, 1), sentences), out)).heads["critic"]
            scores = scores.unflatten(0, places.shape)  # (B * A, ranks * B) -> (B, A, ranks * B)
            information = info_nce_bound(scores, valid)
            clean = k == 0 and self.gamma == 0
            parts = {"ce" if clean else "ce_adv": ce, "bottleneck": bottleneck, "information": information}
            total = (ce + self.beta * bottleneck - self.alpha * information) / self.steps
            yield Loss(total, {name: value.detach() for name, value in parts.items()} | log)
            if k < self.steps - 1:
                attack = attack_step(delta, self.ball, inputs, grad=grad)
                log, delta = attack.log(inputs), attack.delta.requires_grad_()
