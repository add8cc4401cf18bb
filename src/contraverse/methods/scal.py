"""SCAL: supervised contrastive adversarial learning (Miao et al., 2021)."""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import SameClass, Scope, info_nce, scal_literal, supervised_loss
from contraverse.methods._settings import (
    PROJECTION,
    Epsilon,
    OneStep,
    Projection,
    Temperature,
    Weight,
    one_step_ball,
    projection_head,
    require_classes,
    settings,
)
from contraverse.methods._views import NoisyViews
from contraverse.types import Batch, Loss, TrainingInfo


@settings
class SCAL(NoisyViews):
    """Cross-entropy on clean and adversarial inputs, plus a contrastive loss that pairs each input with its adversary.

        delta = epsilon * g / ||g||_2,  g = grad of CE(x, y) at the word embeddings     eq. (6)
        L_ct  = -log exp(sim(z_i, z_i^adv)/t) / sum_k exp(sim(z_i, z_k^adv)/t)          eq. (7), as InfoNCE
        L     = 1/2 (CE(x, y) + CE(x^adv, y)) + alpha * L_ct(x, x^adv)                  eq. (8)

    With noise (``data.noise``) x^adv is the noisy text x' with a perturbation, for which delta is of CE(x', y).

    Batch: ``labels``. Cost: 2F + b + 2B = 7F; the attack uses the clean pass's graph. With noise it has a pass of its
    own: 3F + b + 2B = 8F.

    Departure: eq. (7) is printed with ``z_k`` in the denominator, which leaves the positive out of it;
    ``contrast="literal"`` follows the print, the default is InfoNCE (eq. 4). The paper states neither the extent of a
    norm nor the value of alpha.
    """

    name = "scal"
    summary = "cross-entropy and InfoNCE on clean and one-step adversarial inputs"
    paper = "SCAL/USCAL"
    equation = "(5)-(8)"
    requires = "labels"
    in_batch_negatives = True
    text_views = 2
    cost = "7F"
    graphs = 2
    gathered = 1
    cost_with_noise = "8F"
    heads = PROJECTION
    test_settings = {
        "scal-fgsm": {"attack": "fgsm", "epsilon": 0.01},
        "scal-literal": {"contrast": "literal"},
        "scal-masked": {"same_class": "masked"},
        "scal-positives": {"same_class": "positives", "contrast": "literal", "projection": "pooler"},
        "scal-alpha-0": {"alpha": 0.0},
    }

    epsilon: Epsilon = 0.3
    """Norm of the perturbation per `scope`; the paper searches .1, .2, .3, .4, .5."""
    alpha: Weight = 0.1
    """Weight of the contrastive loss; the paper only says below one."""
    temperature: Temperature = 0.05
    """Temperature t of the contrastive loss; the paper's value."""
    attack: OneStep = "fgm"
    """Direction of the attack step: `fgm` the gradient (L2, eq. 3), `fgsm` its sign (Linf, eq. 2)."""
    contrast: Literal["infonce", "literal"] = "infonce"
    """Contrastive loss: InfoNCE (eq. 4), or eq. (7) as printed."""
    scope: Scope = "sequence"
    """Extent of one norm (`fgm` only): a whole sequence or image, a token, or the batch."""
    same_class: SameClass = "negatives"
    """Other rows of the anchor's class: `negatives` as printed, `masked` out of the denominator, or `positives` too."""
    projection: Projection = "new"
    """Layer that gives z: a `new` linear layer with tanh on the pooled features, or the encoder's own `pooler`."""

    def setup(self) -> None:
        super().setup()
        self.heads = projection_head(self.projection)
        self.cost_with_noise = f"{8 + self.choice_cost}F"
        self.ball = one_step_ball(self.attack, self.epsilon, self.scope)

    def check_data(self, training_info: TrainingInfo) -> None:
        """Check that the labels are classes where ``same_class`` compares them.

        Raises:
            UserError: they are scores.
        """
        require_classes(self.name, self.same_class, training_info)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        labels = batch["labels"]
        view = batch
        if "noisy" in batch or "draws" in batch:
            view = self.noisy_view(batch, lambda draw: supervised_loss(model(draw).logits, labels, reduction="none"))
        inputs = perturbation_inputs(model, view)
        contrastive_loss = info_nce if self.contrast == "infonce" else scal_literal
        delta = self.ball.init(inputs)
        attacked = model(view, delta=delta, want=("logits", "z"))
        logits = attacked.logits.float()
        of_view = supervised_loss(logits, labels)
        attack = attack_step(delta, self.ball, inputs, loss=Objective(of_view, logits), keep_graph=view is batch)
        clean = attacked if view is batch else model(batch, want=("logits", "z"))
        ce = of_view if view is batch else supervised_loss(clean.logits, labels)
        adversarial = model(view, delta=attack.delta, want=("logits", "z"))
        ce_adv = supervised_loss(adversarial.logits, labels)
        contrast = contrastive_loss(clean.z, adversarial.z, self.temperature, labels=labels, same_class=self.same_class)
        parts = {"ce": ce.detach(), "ce_adv": ce_adv.detach(), "contrast": contrast.detach()} | attack.log(inputs)
        yield Loss((ce + ce_adv) / 2 + self.alpha * contrast, parts)
