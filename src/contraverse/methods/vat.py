"""VAT (Miyato et al., 2018): virtual adversarial training."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from contraverse.attacks import (
    NormBall,
    Objective,
    Perturbation,
    SharedDropout,
    count_zero_grad_rows,
    input_gradient,
    perturbation_inputs,
)
from contraverse.functional import kl, labelled_loss, squared_distance
from contraverse.methods._settings import Epsilon, VirtualSteps, Weight, settings
from contraverse.models.modes import keeping_statistics
from contraverse.types import Batch, Loss, Method


@settings
class VAT(Method):
    """Cross-entropy plus the KL divergence to the prediction in the direction that changes it most, label-free.

        L      = CE(f(x_l), y_l) + alpha 1/(N_l + N_ul) sum_x LDS(x)                       eqs. (7), (8)
        LDS(x) = KL(p(. | x; theta^) || p(. | x + r; theta))                               eq. (5)
        r      = argmax_{||r||_2 <= epsilon} KL(p(. | x; theta^) || p(. | x + r; theta^))  eq. (6)

    theta^ are the present weights, held constant: the clean prediction is a target, and no gradient passes through r.
    At r = 0 the divergence and its gradient are zero, so that r points along the first eigenvector of its Hessian H,
    eqs. (9), (10). Power iteration from a random unit vector d finds it, H d by a finite difference:

        d <- H d / ||H d||_2,  H d = g / xi,  g = grad_r KL at r = xi d                    eqs. (11) to (13)
        r  = epsilon g / ||g||_2  after K gradients                                        eqs. (14), (15)

    ``steps=0`` is random perturbation training, K = 0 in eq. (16): r = epsilon d.

    Batch: ``labels``, -100 where a row has none: such rows have no cross-entropy, and an LDS. Cost: 3F + K (F + b) +
    F + B, 8F with the defaults.

    All passes are of one function: they share their dropout masks, and batch norm takes the statistics of the batch.
    Only the clean pass moves its running statistics, as in the authors' code.

    Departures: labelled and unlabelled rows come in one batch, mixed as in the data, and all have an LDS; the authors
    draw 32 labelled rows for the first term and 128 of all for the second. The paper's xi of 1e-6 is lost in fp32's
    rounding: 1e-2 here. Pixels are in [0, 1] and stay there, those of xi d too; the paper whitens CIFAR-10, where
    its epsilon is 8 or 10. Of text, r is added to the word embeddings. For a regression the squared distance of the
    scores replaces KL. The entropy term of VAT+EntMin is left out.
    """

    name = "vat"
    summary = "cross-entropy plus KL along the direction that power iteration finds"
    paper = "VAT"
    equation = "(5)-(15) of VAT"
    requires = "labels"
    uses_unlabelled = True
    stochastic = True
    test_settings = {"vat-far": {"epsilon": 1.0, "xi": 0.1, "steps": 2}, "vat-random": {"steps": 0}}

    weight: Weight = 1.0
    """Weight alpha of the divergence; the paper's value."""
    epsilon: Epsilon = 0.3
    """L2 norm of the perturbation of a whole input, in the units of the word embeddings or pixels."""
    xi: Epsilon = 1e-2
    """L2 norm of the perturbation at which the power iteration takes its gradients; the paper's is 1e-6."""
    steps: VirtualSteps = 1
    """Number K of power iterations; 0 perturbs at random."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, step_size=self.epsilon)
        self.small_ball = NormBall(self.xi, step_size=self.xi)
        self.cost = f"{6 + 2 * self.steps}F"
        self.graphs = 2

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels, inputs = batch["labels"], perturbation_inputs(model, batch)
        distance = squared_distance if labels.is_floating_point() else kl
        masks = SharedDropout(inputs.values.device)

        with masks():
            clean = model(batch).logits.float()  # (B, C)
        target = clean.detach()

        def predict(delta: Tensor) -> Tensor:
            with masks(), keeping_statistics(model):
                logits: Tensor = model(batch, delta=delta).logits
            return logits.float()  # (B, C)

        zero, zero_grad_rows = torch.zeros_like(inputs.values), torch.zeros((), dtype=torch.long, device=target.device)
        gradient = torch.randn_like(inputs.values)
        for _ in range(self.steps):
            delta = self.small_ball.step(zero, gradient, inputs)  # xi d
            logits = predict(delta)
            # Batch norm in training mode mixes the rows of a batch.
            gradient = input_gradient(Objective(distance(target, logits), logits, per_example=False), delta)
            zero_grad_rows = zero_grad_rows + count_zero_grad_rows(gradient, inputs)
        attack = Perturbation(self.ball.step(zero, gradient, inputs).detach(), zero_grad_rows)

        ce, lds = labelled_loss(clean, labels), distance(target, predict(attack.delta)).mean()
        yield Loss(ce + self.weight * lds, {"ce": ce.detach(), "lds": lds.detach()} | attack.log(inputs))
