"""Virtual adversarial attacks: the settings and the search that SMART and ALUM share."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, Perturbation, SharedDropout, attack_step, perturbation_inputs
from contraverse.functional import Norm, Scope, squared_distance, symmetric_kl
from contraverse.methods._settings import Limit, Sigma, StepSize, VirtualSteps, settings
from contraverse.models.modes import keeping_statistics
from contraverse.types import Batch, Method

Distance = Callable[[Tensor, Tensor], Tensor]


class Virtual(NamedTuple):
    """Logits (B, C) of the clean and of the perturbed input, and the log of the attack."""

    clean: Tensor
    perturbed: Tensor
    log: dict[str, Tensor]


def prediction_distance(labels: Tensor) -> Distance:
    """Distance l_s of two predictions, (B,): symmetrized KL of class logits, squared distance of scores."""
    return squared_distance if labels.is_floating_point() else symmetric_kl


@settings
class VirtualAdversarial(Method):
    """Base of the methods that penalize how far the worst perturbation moves a prediction."""

    epsilon: Limit = 0.02
    """Largest norm of a perturbation per `scope`; the paper's is 1e-5. null is no limit."""
    step_size: StepSize = 0.02
    """Length eta of one attack step; the paper's is 1e-3."""
    sigma: Sigma = 0.005
    """Standard deviation of the noise that the attack starts from; the paper's is 1e-5."""
    steps: VirtualSteps = 1
    """Number K of attack steps; 0 keeps the noise as it is."""
    norm: Norm = "linf"
    """Norm of perturbations and gradients."""
    scope: Scope = "sequence"
    """Extent of a gradient's norm (and of an L2 perturbation's): a whole sequence, a token, or the batch."""
    share_dropout: bool = True
    """Draw the same dropout masks in the clean and the perturbed passes."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm, self.scope, normalize_grad=True)

    def attack(self, model: nn.Module, batch: Batch) -> Virtual:
        """Search the perturbation that changes the prediction most, by ``steps`` steps from noise of N(0, sigma^2).

        Without noise the distance is at its minimum and has no gradient. Costs 2 forward-units a step, and two forwards
        that can be trained on. Batch norm's running statistics are those of clean inputs, as in the code of VAT, whose
        form this is: a search that moved them would leave traces of inputs that nobody sees.
        """
        inputs, distance = perturbation_inputs(model, batch), prediction_distance(batch["labels"])
        masks = SharedDropout(inputs.values.device) if self.share_dropout else nullcontext

        def predict(delta: Tensor) -> Tensor:
            with masks(), keeping_statistics(model):
                logits: Tensor = model(batch, delta=delta).logits
            return logits.float()

        with masks():
            clean = model(batch).logits.float()
        delta = torch.where(inputs.mask, self.sigma * torch.randn_like(inputs.values), 0.0)
        zero_grad_rows = torch.zeros((), dtype=torch.long, device=delta.device)
        for _ in range(self.steps):
            delta.requires_grad_()
            perturbed = predict(delta)
            loss = Objective(distance(perturbed, clean.detach()), perturbed)
            delta, zero_rows = attack_step(delta, self.ball, inputs, loss=loss)
            zero_grad_rows = zero_grad_rows + zero_rows
        return Virtual(clean, predict(delta), Perturbation(delta, zero_grad_rows).log(inputs))
