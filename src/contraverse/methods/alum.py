"""ALUM (Liu et al., 2020): virtual adversarial training, in its fine-tuning form."""

from collections.abc import Iterator
from functools import partial

from pydantic import validate_call
from torch import nn

from contraverse.attacks import NormBall
from contraverse.functional import Norm, Scope, squared_distance, supervised_loss, symmetric_kl
from contraverse.methods.settings import Limit, StepSize
from contraverse.methods.smart import Ascents, Sigma, Smoothness, virtual_attack
from contraverse.types import Batch, Loss, Method


class ALUM(Method):
    """The perturbation that changes the prediction most, whatever the label, has to change it little.

        L = l(f(x; theta), y) + alpha max_delta l(f(x + delta; theta), f(x; theta))     eq. (4)

    The second l is ``KL(P || Q) + KL(Q || P)``, for a regression the squared distance. The maximum is sought as
    Algorithm 1 does: from N(0, sigma^2), ``steps`` times ``delta <- project(delta + eta g / ||g||)``.

    Batch: ``labels``. Cost: 3F + K (F + b) + 2B, 8F with the defaults.

    Departures: Algorithm 1 writes ``eta g`` and the authors' code divides by the norm, which is done here. As in their
    code the first of each KL's two distributions is held constant, so that each prediction is drawn to the other as it
    stands. Their code adds the perturbation to what the embedding layer gives; here it is added to the word embeddings.
    All passes share their dropout masks, which theirs do not; the paper's epsilon of 1e-5 (eta 1e-3, sigma 1e-5) has an
    effect with ``share_dropout=False`` alone, and the defaults are larger, as SMART's. Pre-training is left out.

    Args:
        weight: alpha, of the adversarial term, >= 0; the paper has 1 in fine-tuning and 10 in pre-training.
        epsilon: largest norm of a perturbation per ``scope``, > 0; None is no limit.
        step_size: eta, length of one ascent, > 0.
        sigma: of the noise that it starts from, >= 0.
        steps: K, ascents, >= 0.
        norm: ``"linf"`` or ``"l2"``.
        scope: what the norm of a gradient is taken over, and of a perturbation.
        share_dropout: whether clean and perturbed passes draw the same dropout masks.
    """

    name = "alum"
    summary = "predictions stay as they are under the perturbation that changes them most"
    paper = "ALUM"
    equation = "(4), Algorithm 1 of ALUM"
    requires = "labels"

    @validate_call
    def __init__(
        self,
        *,
        weight: Smoothness = 1.0,
        epsilon: Limit = 0.02,
        step_size: StepSize = 0.02,
        sigma: Sigma = 0.005,
        steps: Ascents = 1,
        norm: Norm = "linf",
        scope: Scope = "sequence",
        share_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.ball = NormBall(epsilon, step_size, norm, scope, normalize_grad=True)
        self.weight, self.sigma, self.steps, self.share_dropout = weight, sigma, steps, share_dropout

    @property
    def cost(self) -> str:  # type: ignore[override]
        """6F, and 2F for each ascent."""
        return f"{6 + 2 * self.steps}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        clean, moved, log = virtual_attack(
            model, batch, self.ball, sigma=self.sigma, steps=self.steps, share_dropout=self.share_dropout
        )
        distance = squared_distance if labels.is_floating_point() else partial(symmetric_kl, constant_targets=True)
        ce, virtual = supervised_loss(clean, labels), distance(moved, clean).mean()
        yield Loss(ce + self.weight * virtual, {"ce": ce.detach(), "virtual": virtual.detach()} | log)
