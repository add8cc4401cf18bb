"""ALUM (Liu et al., 2020): virtual adversarial training, in its fine-tuning form."""

from collections.abc import Iterator
from functools import partial

from torch import nn

from contraverse.attacks import NormBall
from contraverse.functional import Norm, Scope, squared_distance, supervised_loss, symmetric_kl
from contraverse.methods._settings import Limit, Sigma, StepSize, Weight, settings
from contraverse.methods.smart import AttackSteps, virtual_attack
from contraverse.types import Batch, Loss, Method


@settings
class ALUM(Method):
    """Virtual adversarial training: penalize the largest change of the prediction within epsilon, label-free.

        L = l(f(x; theta), y) + alpha max_delta l(f(x + delta; theta), f(x; theta))     eq. (4)

    The second l is ``KL(P || Q) + KL(Q || P)``, for a regression the squared distance. The maximum is searched as in
    Algorithm 1: from N(0, sigma^2), ``steps`` times ``delta <- project(delta + eta g / ||g||)``.

    Batch: ``labels``. Cost: 3F + K (F + b) + 2B, 8F with the defaults.

    Departures: Algorithm 1 writes ``eta g`` and the authors' code divides by the norm, which is done here. As in their
    code the first of each KL's two distributions is held constant, so that each prediction is pulled to the other as it
    is. Their code adds the perturbation to the output of the embedding layer; here it is added to the word embeddings.
    All passes share their dropout masks, which theirs do not; the paper's epsilon of 1e-5 (eta 1e-3, sigma 1e-5) has an
    effect with ``share_dropout=False`` alone, and the defaults are larger, as SMART's. Pre-training is left out.
    """

    name = "alum"
    summary = "cross-entropy plus KL to the most different prediction nearby (VAT)"
    paper = "ALUM"
    equation = "(4), Algorithm 1 of ALUM"
    requires = "labels"
    stochastic = True
    test_settings = {
        "alum-far": {"epsilon": 0.1, "step_size": 0.1, "sigma": 0.02, "norm": "l2", "scope": "token"},
    }

    weight: Weight = 1.0
    """Weight alpha of the adversarial term; the paper's for fine-tuning (10 in pre-training)."""
    epsilon: Limit = 0.02
    """Largest norm of a perturbation per `scope`; the paper's is 1e-5. null is no limit."""
    step_size: StepSize = 0.02
    """Length eta of one attack step; the paper's is 1e-3."""
    sigma: Sigma = 0.005
    """Standard deviation of the noise that the attack starts from; the paper's is 1e-5."""
    steps: AttackSteps = 1
    """Number K of attack steps; 0 keeps the noise as it is."""
    norm: Norm = "linf"
    """Norm of perturbations and gradients."""
    scope: Scope = "sequence"
    """Extent of a gradient's norm (and of an L2 perturbation's): a whole sequence, a token, or the batch."""
    share_dropout: bool = True
    """Draw the same dropout masks in the clean and the perturbed passes."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm, self.scope, normalize_grad=True)
        self.cost = f"{6 + 2 * self.steps}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        clean, perturbed, log = virtual_attack(
            model, batch, self.ball, sigma=self.sigma, steps=self.steps, share_dropout=self.share_dropout
        )
        distance = squared_distance if labels.is_floating_point() else partial(symmetric_kl, constant_targets=True)
        ce, virtual = supervised_loss(clean, labels), distance(perturbed, clean).mean()
        yield Loss(ce + self.weight * virtual, {"ce": ce.detach(), "virtual": virtual.detach()} | log)
