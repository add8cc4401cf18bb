"""UAT++ (Alayrac et al., 2019) in ACL's form: adversarial training on few labels and a teacher's predictions."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import NormBall, Perturbation, perturbation_inputs, pgd
from contraverse.errors import UserError
from contraverse.functional import Norm, kl, labelled_loss, supervised_loss
from contraverse.methods._settings import (
    EPSILON,
    STEP_SIZE,
    Epsilon,
    Share,
    Steps,
    StepSize,
    Temperature,
    Weight,
    settings,
)
from contraverse.methods.pgd_at import ce_attack
from contraverse.models.modes import attacking
from contraverse.types import UNLABELLED, Batch, ForwardCall, ForwardCalls, Loss, Method, TrainingInfo


def distillation(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Soft cross-entropy ``-sum_c softmax(p / T)_c log softmax(z / T)_c`` of each row (B,), from logits (B, C)."""
    soft = F.softmax(targets.float() / temperature, -1)
    return -(soft * F.log_softmax(logits.float() / temperature, -1)).sum(-1)


@settings
class UAT(Method):
    """Adversarial training on few labels, with a teacher's predictions as soft targets for all rows.

        x^_l = PGD on CE(x, y_l),  x^_u = PGD on CE(x, argmax p_u)
        L    = 1/(N_l + N_u) [ sum_l alpha CE(x^_l, y_l) + (1 - alpha) T^2 distill(x^_l, p_l, T)
                             + sum_u T^2 distill(x^_u, p_u, T)
                             + 1/lambda sum KL(f(x) || f(x^)) ]                         eq. (3) of ACL

    p are the logits of a teacher that standard training made from the labels alone; distill is the soft cross-entropy
    ``-sum softmax(p / T) log softmax(f / T)``, and beta stands for 1 / lambda. Training uses the last of PGD's k
    iterates. Neither side of KL is detached.

    The teacher's logits of all rows come from `set_targets`: each row has the same target in every epoch, whatever view
    of it is drawn. Without them the teacher is the model before training: a frozen copy, in eval mode, predicts the
    current view through its clean batch-norm branch.

    A row is unlabelled where its label is -100, or where `set_targets` says so: its label is then never read.

    ``target="online"`` is UAT with online targets, which has no teacher: the model's own prediction of the clean input
    replaces one, in the attack and, detached, in the loss,

        x^ = PGD on KL(f(x) || f(x'))
        L  = 1/N_l sum_l CE(f(x), y_l) + 1/lambda 1/N sum KL(sg f(x) || f(x^))

    Batch: ``labels`` and, for given targets, ``index``. Cost: k (F + b) + 2 (F + B) = 26F with given targets, and F
    more for the copy or, online, for the prediction that is attacked: 27F with the defaults. The attack and x^ go
    through a dual model's adversarial batch-norm branch, x through its clean one.

    Departures: the authors' code has 1 - alpha where eq. (3) has alpha (it runs alpha = .5, where they are equal), and
    puts a fixed number of labelled rows into each batch: 1 % or 10 % of it, the share that such rows have of the
    data and so have of a batch on average here. For online targets ACL gives no equation: the detached side is that of
    Alayrac et al., the cross-entropy is of clean inputs, as in the virtual adversarial training that they extend.
    """

    name = "uat"
    summary = "adversarial training on few labels and a teacher's predictions"
    paper = "UAT; ACL"
    equation = "(3) of ACL"
    requires = "labels"
    bn_branch = "adversarial"
    uses_unlabelled = True
    stochastic = True
    graphs = 2
    test_settings = {
        "uat-offline": {"alpha": 0.3, "temperature": 2.0, "steps": 3},
        "uat-online": {"target": "online"},
    }

    target: Literal["teacher", "online"] = "teacher"
    """Source of the targets: a `teacher` (beta = 0: fixed targets; beta > 0: UAT++), or the model itself (`online`)."""
    alpha: Share = 0.5
    """Share of the true label beside the teacher's target, on rows that have one."""
    temperature: Temperature = 1.0
    """Temperature T of the teacher's predictions."""
    beta: Weight = 6.0
    """Weight 1 / lambda of the divergence under attack."""
    epsilon: Epsilon = EPSILON
    """Largest norm of a perturbation, in the units of the inputs; the default is for pixels in [0, 1]."""
    step_size: StepSize = STEP_SIZE
    """Length of one attack step."""
    steps: Steps = 10
    """Number k of attack steps."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole input."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm)
        if self.target == "teacher":
            self.teacher = "targets"
        self.targets: Tensor | None
        self.labelled: Tensor | None
        self.register_buffer("targets", None)
        self.register_buffer("labelled", None)

    @property
    def needs_reference_model(self) -> bool:  # type: ignore[override]
        """True with a teacher whose predictions were not given."""
        return self.teacher == "targets" and self.targets is None

    @property
    def cost(self) -> str:  # type: ignore[override]
        """2F for each attack step and 6F; F more for a teacher that runs along, or for the prediction under attack."""
        return f"{2 * self.steps + 6 + (self.targets is None)}F"

    def set_targets(self, logits: Tensor, labelled: Tensor | None = None) -> None:
        """Set the teacher's predictions, before training; they are saved with the method's state.

        Args:
            logits: (N, C), row i for training row i: of the image itself, not of a view, through the clean batch-norm
                branch of a dual teacher.
            labelled: (N,) bool, rows whose labels may be read; None: all that have one.

        Raises:
            ValueError: wrong shapes, a logit that is not finite, or online targets.
        """
        if self.target == "online":
            raise ValueError("online targets are the model's own: set_targets is for target='teacher'")
        if logits.dim() != 2 or not logits.isfinite().all():
            raise ValueError(f"targets are finite logits (N, C), not {tuple(logits.shape)}")
        if labelled is not None and labelled.shape != logits.shape[:1]:
            raise ValueError(f"labelled has shape {tuple(labelled.shape)}, and there are {len(logits)} targets")
        self.targets = logits.detach().float()
        self.labelled = None if labelled is None else labelled.bool()

    def check_data(self, training_info: TrainingInfo) -> None:
        """Check that the labels are classes, and that there is one target for each row.

        Raises:
            UserError: the labels are scores, or the targets are of other rows.
        """
        if self.targets is not None and len(self.targets) != training_info.num_examples:
            raise UserError(
                f"{len(self.targets)} targets for {training_info.num_examples} rows",
                hint="let the teacher predict exactly the training rows, in their order",
            )
        if training_info.labels is not None and training_info.labels.is_floating_point():
            raise UserError("uat learns classes, and these labels are scores", hint="use pgd-at or trades")

    def prepare(self, training_info: TrainingInfo) -> None:
        """Check the data, and note where the model is its own teacher."""
        super().prepare(training_info)
        self.notes = ("the model before training is the teacher",) if self.needs_reference_model else ()

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if self.target == "online":
            yield self._online_loss(model, batch)
            return
        targets, labels = self._target_logits(batch), self._true_labels(batch)  # (B, C), (B,)
        known = labels != UNLABELLED  # (B,)
        attacked = torch.where(known, labels, targets.argmax(-1))  # (B,)
        attack, log = ce_attack(model, batch, attacked, self.ball, steps=self.steps)
        outputs = model(ForwardCalls((ForwardCall(batch), ForwardCall(batch, attack.delta, bn_branch="adversarial"))))
        clean, adversarial = (out.logits for out in outputs)
        ce = supervised_loss(adversarial, labels, reduction="none")  # (B,), 0 without a label
        distilled = self.temperature**2 * distillation(adversarial, targets, self.temperature)  # (B,)
        share = self.alpha * known
        divergence = kl(clean, adversarial).mean()
        total = (share * ce + (1 - share) * distilled).mean() + self.beta * divergence
        parts = {"ce_adv": ce.sum() / known.sum().clamp(min=1), "distill": distilled.mean(), "kl": divergence}
        yield Loss(total, {name: part.detach() for name, part in parts.items()} | log)

    def _online_loss(self, model: nn.Module, batch: Batch) -> Loss:
        labels = batch["labels"]
        attack, log = self._divergence_attack(model, batch)
        outputs = model(ForwardCalls((ForwardCall(batch), ForwardCall(batch, attack.delta, bn_branch="adversarial"))))
        clean, adversarial = (out.logits for out in outputs)
        ce = labelled_loss(clean, labels)
        divergence = kl(clean.detach(), adversarial).mean()
        return Loss(ce + self.beta * divergence, {"ce": ce.detach(), "kl": divergence.detach()} | log)

    def _divergence_attack(self, model: nn.Module, batch: Batch) -> tuple[Perturbation, dict[str, Tensor]]:
        """Run PGD on KL from the clean prediction, from a uniform random start, where KL has a gradient."""
        inputs = perturbation_inputs(model, batch)
        with attacking(model):
            # Not under no_grad: autocast would keep casts of the weights that have no gradient.
            clean = model(batch).logits.detach()
            attack = pgd(
                lambda delta: kl(clean, model(batch, delta=delta, bn_branch="adversarial").logits),
                self.ball,
                inputs,
                steps=self.steps,
                random_start=True,
                keep="last",
            )
        return attack, attack.log(inputs)

    def _true_labels(self, batch: Batch) -> Tensor:
        """True labels (B,), `UNLABELLED` where there is none to be read."""
        labels: Tensor = batch["labels"]
        if self.labelled is None:
            return labels
        return torch.where(self.labelled[batch["index"]], labels, UNLABELLED)

    @torch.no_grad()
    def _target_logits(self, batch: Batch) -> Tensor:
        """Logits (B, C) of the teacher."""
        if self.targets is not None:
            return self.targets[batch["index"]]
        if not hasattr(self, "reference_model"):
            raise ValueError("call set_targets(logits), or set_reference_model(copy), before the first step")
        logits: Tensor = self.reference_model(batch, bn_branch="clean").logits
        return logits
