"""USCAL: unsupervised contrastive adversarial learning (Miao et al., 2021)."""

from collections.abc import Iterator

from torch import nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import Scope, info_nce
from contraverse.methods._settings import (
    PROJECTION,
    Epsilon,
    OneStep,
    Projection,
    Temperature,
    Weight,
    one_step_ball,
    projection_head,
    settings,
)
from contraverse.methods._views import NoisyViews, contrast_of_rows
from contraverse.types import Batch, Loss


@settings
class USCAL(NoisyViews):
    """SimCSE plus an adversarial third view, perturbed to increase SimCSE's own loss.

        delta = epsilon * g / ||g||_2,  g = grad of InfoNCE(z1, z2) at x^emb1           eq. (9)
        L     = InfoNCE(z1, z2) + alpha * InfoNCE(z1, z^adv)                            eq. (10)

    z1 and z2 are two dropout views; z^adv is x^emb1 + delta under a third mask. With noise
    (``data.noise``) z2 is of the noisy text.

    Batch: sentences. Cost: 3F + b + 3B = 10F (SimCSE: 6F). The model must be in training mode.
    """

    name = "uscal"
    summary = "InfoNCE between dropout views, and with an adversarial third view"
    paper = "SCAL/USCAL"
    equation = "(9), (10)"
    modality = "text"
    requires = "inputs"
    in_batch_negatives = True
    text_views = 2
    cost = "10F"
    graphs = 3
    gathered = 2
    heads = PROJECTION
    test_settings = {"uscal-pooler": {"projection": "pooler"}, "uscal-fgsm": {"attack": "fgsm", "epsilon": 0.01}}

    epsilon: Epsilon = 0.3
    """Norm of the perturbation per `scope`, in the units of the word embeddings."""
    alpha: Weight = 0.1
    """Weight of the adversarial term."""
    temperature: Temperature = 0.05
    """Temperature of InfoNCE; the paper's value."""
    attack: OneStep = "fgm"
    """Direction of the attack step: `fgm` the gradient (L2), `fgsm` its sign (Linf)."""
    scope: Scope = "sequence"
    """Extent of one norm (`fgm` only): a whole sequence, a token, or the batch."""
    projection: Projection = "new"
    """Layer that gives z: a `new` linear layer with tanh on the pooled features, or the encoder's own `pooler`."""

    def setup(self) -> None:
        super().setup()
        self.heads = projection_head(self.projection)
        self.cost_with_noise = f"{10 + self.choice_cost}F"
        self.ball = one_step_ball(self.attack, self.epsilon, self.scope)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        delta = self.ball.init(inputs)
        first = model(batch, delta=delta, want=("z",)).z.float()
        view = self.noisy_view(
            batch, lambda draw: contrast_of_rows(first, model(draw, want=("z",)).z, self.temperature)
        )
        second = model(view, want=("z",)).z
        contrast = info_nce(first, second, self.temperature)
        attack = attack_step(delta, self.ball, inputs, loss=Objective(contrast, first), keep_graph=True)
        third = model(batch, delta=attack.delta, want=("z",)).z
        contrast_adv = info_nce(first, third, self.temperature)
        parts = {"contrast": contrast.detach(), "contrast_adv": contrast_adv.detach()} | attack.log(inputs)
        yield Loss(contrast + self.alpha * contrast_adv, parts)
