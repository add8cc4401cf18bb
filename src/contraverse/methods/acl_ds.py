"""ACL, dual stream (Jiang et al., 2020): SimCLR on clean views and on adversarial ones."""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from contraverse.methods._settings import Weight, settings
from contraverse.methods._views import both_views
from contraverse.methods.acl_a2a import AdversarialToAdversarial
from contraverse.types import Batch, Loss


@settings
class TwoStreams(AdversarialToAdversarial):
    """Weighted sum of NT-Xent on clean and on adversarial views: the base of ``acl-ds`` and ``dynacl``."""

    passes = 2

    reduction: Literal["sum", "mean"] = "sum"
    """Sum of the two streams' losses (Algorithm 1), or half of it, as in the authors' code."""

    def setup(self) -> None:
        super().setup()
        self.cost = f"{4 * self.steps + 12}F"
        self.gathered = 2 * (self.steps + 2)

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the clean and of the adversarial stream in the next step."""
        return 1.0, 1.0

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        views, weights = both_views(batch), self.weights
        share = 1.0 if self.reduction == "sum" else 0.5
        attack, inputs = self.attack(model, views)
        clean = self.contrast(self.features(model, views, None, "clean"))
        yield Loss(share * weights[0] * clean, {"contrast": clean.detach()})
        adversarial = self.contrast(self.features(model, views, attack.delta, "adversarial"))
        parts = {"contrast_adv": adversarial.detach()} | attack.log(inputs)
        yield Loss(share * weights[1] * adversarial, parts)


@settings
class DualStream(TwoStreams):
    """NT-Xent on clean views plus NT-Xent on the same views perturbed, each with its own batch-norm branch.

        (d_i, d_j) = argmax l_NT(x_i + d_i, x_j + d_j; theta, theta_bn^adv),  ||d||_inf <= epsilon
        L          = l_NT(x_i, x_j; theta, theta_bn) + alpha * l_NT(x_i + d_i, x_j + d_j; theta, theta_bn^adv)

    Each stream is back-propagated before the next one runs: one graph is held at a time. l_NT and the attack, which
    comes before both, are as in ``acl-a2a``.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2 * 2F for each of the attack's ``steps``,
    and 2F + 2B for each stream: 32F.

    Departure: the start of the attack is clipped to [0, 1]; the authors' code clips only after the first step. It
    halves the loss: ``reduction="mean"``.
    """

    name = "acl-ds"
    summary = "NT-Xent on clean and on adversarial views, with dual batch norm"
    equation = "Algorithm 1 of ACL"
    test_settings = {
        "acl-ds-mean": {"alpha": 0.5, "reduction": "mean", "norm": "l2", "epsilon": 0.5, "step_size": 0.2},
    }

    alpha: Weight = 1.0
    """Weight of the adversarial stream; the paper's value."""

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the clean and of the adversarial stream in the next step."""
        return 1.0, self.alpha
