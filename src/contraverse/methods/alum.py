"""ALUM (Liu et al., 2020): virtual adversarial training, in its fine-tuning form."""

from collections.abc import Iterator
from functools import partial

from torch import nn

from contraverse.functional import squared_distance, supervised_loss, symmetric_kl
from contraverse.methods._settings import Weight, settings
from contraverse.methods._virtual import VirtualAdversarial
from contraverse.types import Batch, Loss


@settings
class ALUM(VirtualAdversarial):
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

    def setup(self) -> None:
        super().setup()
        self.cost = f"{6 + 2 * self.steps}F"
        self.graphs = 2

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        clean, perturbed, log = self.attack(model, batch)
        distance = squared_distance if labels.is_floating_point() else partial(symmetric_kl, constant_targets=True)
        ce, virtual = supervised_loss(clean, labels), distance(perturbed, clean).mean()
        yield Loss(ce + self.weight * virtual, {"ce": ce.detach(), "virtual": virtual.detach()} | log)
