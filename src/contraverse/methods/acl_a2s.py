"""ACL, adversarial to standard (Jiang et al., 2020)."""

from collections.abc import Iterator

from torch import Tensor, nn

from contraverse.attacks import Objective, perturbation_inputs, pgd
from contraverse.functional import nt_xent
from contraverse.methods._settings import settings
from contraverse.methods._views import second_view, single_row_eval
from contraverse.methods.acl_a2a import AdversarialToAdversarial
from contraverse.models.modes import attacking
from contraverse.types import Batch, ForwardCall, ForwardCalls, Loss


@settings
class AdversarialToStandard(AdversarialToAdversarial):
    """NT-Xent between a clean view and one that is perturbed to be unlike it.

        d_i = argmax l_NT(x_i + d_i, x_j),  ||d_i||_inf <= epsilon
        L   = l_NT(x_i + d_i, x_j)

    The perturbed view goes through the adversarial batch-norm branch, the other through the clean one: two passes, each
    with the statistics of its own rows, with a single batch norm too. l_NT and the attack are as in ``acl-a2a``.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2F for each of the attack's ``steps``, F for
    the clean view, which is computed once for the attack, and 2F + 2B for training: 17F.

    Departure: a batch of a single row runs in eval mode, for it has no statistics of its own. The authors have
    published no code for it.
    """

    name = "acl-a2s"
    summary = "NT-Xent between an adversarial view and a clean one"
    equation = "section 2.2, A2S"

    def setup(self) -> None:
        super().setup()
        self.cost = f"{2 * self.steps + 7}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        other, inputs = second_view(batch), perturbation_inputs(model, batch)

        def dissimilarity(delta: Tensor) -> Objective:
            z = self.features(model, batch, delta, "adversarial")
            return Objective(nt_xent(z, fixed, self.temperature), z)

        with attacking(model):
            # Not under no_grad: autocast would keep casts of the weights that have no gradient.
            fixed = self.features(model, other, None, "clean").detach()  # (B, Z)
            attack = pgd(dissimilarity, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        calls = ForwardCall(other, want=("z",)), ForwardCall(batch, attack.delta, ("z",), "adversarial")
        with single_row_eval(model, len(inputs.values)):
            clean, adversarial = (out.z for out in model(ForwardCalls(calls)))
        contrast = nt_xent(adversarial, clean, self.temperature)
        yield Loss(contrast, {"contrast_adv": contrast.detach()} | attack.log(inputs))
