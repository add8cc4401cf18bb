"""UAT++ (Alayrac et al., 2019) as ACL has it: adversarial training where few rows have labels, and a teacher all."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Perturbation, perturbation_inputs, pgd
from contraverse.errors import UserError
from contraverse.functional import Norm, kl
from contraverse.methods.pgd_at import ce_attack
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize
from contraverse.models.modes import attacking
from contraverse.types import UNLABELLED, Batch, ForwardCall, ForwardCalls, Loss, Method, TrainingInfo

Share = Annotated[float, Field(ge=0, le=1, description="of the true labels beside the teacher, on rows that have one")]
Softness = Annotated[float, Field(gt=0, allow_inf_nan=False, description="temperature of the teacher's predictions")]
Beta = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the divergence under attack")]
Target = Annotated[Literal["teacher", "online"], Field(description="who tells what rows without a label are")]


def distillation(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Soft cross-entropy ``-sum_c softmax(p / T)_c log softmax(z / T)_c`` of each row (B,), from logits (B, C)."""
    soft = F.softmax(targets.float() / temperature, -1)
    return -(soft * F.log_softmax(logits.float() / temperature, -1)).sum(-1)


class UAT(Method):
    """Labels where there are some, a teacher's predictions everywhere, and the same answer under attack.

        x^_l = PGD on CE(x, y_l),  x^_u = PGD on CE(x, argmax p_u)
        L    = 1/(N_l + N_u) [ sum_l alpha CE(x^_l, y_l) + (1 - alpha) T^2 distill(x^_l, p_l, T)
                             + sum_u T^2 distill(x^_u, p_u, T)
                             + 1/lambda sum KL(f(x) || f(x^)) ]                         eq. (3) of ACL

    p are the logits of a teacher that standard training made from the labels alone; distill is the soft cross-entropy
    ``-sum softmax(p / T) log softmax(f / T)``, and beta stands for 1 / lambda. The last of PGD's k iterates is
    trained on. Neither side of KL is detached.

    Whoever sets up training gives the teacher's logits of all rows (`set_targets`): each row has the same target
    in every epoch, whatever view of it is drawn. Where none are given, the teacher is the model as it is before
    training: a frozen copy, in eval mode, through its clean batch norm, predicts the view at hand.

    A row is unlabelled where its label is -100, or where `set_targets` says so: its label is then never read.

    ``target="online"`` is UAT with online targets, which has no teacher: the model's own prediction of the clean input
    stands for one, in the attack and, detached, in the loss,

        x^ = PGD on KL(f(x) || f(x'))
        L  = 1/N_l sum_l CE(f(x), y_l) + 1/lambda 1/N sum KL(sg f(x) || f(x^))

    Batch: ``labels`` and, for given targets, ``index``. Cost: k (F + b) + 2 (F + B) = 26F with given targets, and F
    more for the copy or, online, for the prediction that is attacked: 27F with the defaults. The attack and x^ go
    through a dual model's adversarial batch norms, x through its clean ones.

    Departures: the authors' code has 1 - alpha where eq. (3) has alpha (it runs alpha = .5, where they are equal), and
    puts a fixed number of labelled rows into each batch: 1 % or 10 % of it, the share that such rows have of the
    data and so have of a batch on average here. Online, ACL gives no equation: the detached side is that of Alayrac et
    al., the cross-entropy is of clean inputs, as in the virtual adversarial training that they extend.

    Args:
        target: ``"teacher"`` (with beta = 0 fixed targets, with beta > 0 UAT++), or ``"online"``.
        alpha: share of the true labels, in [0, 1]; of a teacher.
        temperature: T, > 0; of a teacher.
        beta: 1 / lambda, >= 0.
        epsilon: largest norm of a perturbation, > 0. In the units of the inputs: the default is one of pixels.
        step_size: > 0.
        steps: k, >= 1.
        norm: ``"linf"`` or ``"l2"``, over a whole input.
    """

    name = "uat"
    summary = "few labels and a teacher's predictions for all, learnt on adversarial inputs"
    paper = "UAT; ACL"
    equation = "(3) of ACL"
    requires = "labels"
    bn_branch = "adversarial"
    uses_unlabelled = True
    targets: Tensor | None
    labelled: Tensor | None

    @validate_call
    def __init__(
        self,
        *,
        target: Target = "teacher",
        alpha: Share = 0.5,
        temperature: Softness = 1.0,
        beta: Beta = 6.0,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 10,
        norm: Norm = "linf",
    ) -> None:
        super().__init__()
        self.ball, self.target = NormBall(epsilon, step_size, norm), target
        self.alpha, self.temperature, self.beta, self.steps = alpha, temperature, beta, steps
        self.register_buffer("targets", None)
        self.register_buffer("labelled", None)

    @property
    def teacher(self) -> Literal["targets"] | None:  # type: ignore[override]
        """None with online targets, which are the model's own."""
        return "targets" if self.target == "teacher" else None

    @property
    def needs_reference_model(self) -> bool:  # type: ignore[override]
        """Where a teacher is asked, and no targets were given."""
        return self.target == "teacher" and self.targets is None

    @property
    def cost(self) -> str:  # type: ignore[override]
        """2F for each step and 6F; F more for a teacher that runs along, or for the prediction that is attacked."""
        return f"{2 * self.steps + 6 + (self.targets is None)}F"

    def set_targets(self, logits: Tensor, labelled: Tensor | None = None) -> None:
        """Give the teacher's predictions, before training; they are saved with the method's state.

        Args:
            logits: (N, C), row i is that of the data's row i: of the image as it is, not of a view, through the clean
                batch norm of a dual teacher.
            labelled: (N,), bool: whose labels may be read. None: of all that have one.

        Raises:
            ValueError: other shapes, a logit that is not finite, or online targets.
        """
        if self.target == "online":
            raise ValueError("online targets are the model's own: set_targets is for target='teacher'")
        if logits.dim() != 2 or not logits.isfinite().all():
            raise ValueError(f"targets are finite logits (N, C), not {tuple(logits.shape)}")
        if labelled is not None and labelled.shape != logits.shape[:1]:
            raise ValueError(f"labelled has shape {tuple(labelled.shape)}, and there are {len(logits)} targets")
        self.targets = logits.detach().float()
        self.labelled = None if labelled is None else labelled.bool()

    def prepare(self, training_info: TrainingInfo) -> None:
        """Check that targets and data belong together, and note where the model is its own teacher.

        Raises:
            UserError: another number of targets than rows, or labels that are no classes.
        """
        if self.targets is not None and len(self.targets) != training_info.num_examples:
            raise UserError(
                f"{len(self.targets)} targets for {training_info.num_examples} rows",
                hint="let the teacher predict exactly the rows that are trained on, in their order",
            )
        if training_info.labels is not None and training_info.labels.is_floating_point():
            raise UserError("uat learns classes, and these labels are scores", hint="take pgd-at or trades")
        self.notes = ("the model as it starts is the teacher",) if self.needs_reference_model else ()

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if self.target == "online":
            yield self._online(model, batch)
            return
        targets, labels = self._targets(batch), self._labels(batch)
        known = labels != UNLABELLED
        attacked = torch.where(known, labels, targets.argmax(-1))
        attack, log = ce_attack(model, batch, attacked, self.ball, steps=self.steps)
        both = model(ForwardCalls((ForwardCall(batch), ForwardCall(batch, attack.delta, bn_branch="adversarial"))))
        clean, adversarial = (out.logits for out in both)
        ce = F.cross_entropy(adversarial.float(), labels, reduction="none", ignore_index=UNLABELLED)
        distilled = self.temperature**2 * distillation(adversarial, targets, self.temperature)
        share = self.alpha * known
        divergence = kl(clean, adversarial).mean()
        total = (share * ce + (1 - share) * distilled).mean() + self.beta * divergence
        parts = {"ce_adv": ce.sum() / known.sum().clamp(min=1), "distill": distilled.mean(), "kl": divergence}
        yield Loss(total, {name: part.detach() for name, part in parts.items()} | log)

    def _online(self, model: nn.Module, batch: Batch) -> Loss:
        labels = batch["labels"]
        attack, log = self._diverge(model, batch)
        both = model(ForwardCalls((ForwardCall(batch), ForwardCall(batch, attack.delta, bn_branch="adversarial"))))
        clean, adversarial = (out.logits for out in both)
        ce = F.cross_entropy(clean.float(), labels, reduction="sum", ignore_index=UNLABELLED)
        ce = ce / (labels != UNLABELLED).sum().clamp(min=1)
        divergence = kl(clean.detach(), adversarial).mean()
        return Loss(ce + self.beta * divergence, {"ce": ce.detach(), "kl": divergence.detach()} | log)

    def _diverge(self, model: nn.Module, batch: Batch) -> tuple[Perturbation, dict[str, Tensor]]:
        """PGD on KL from the clean prediction, from a uniform random start, where it has a gradient."""
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

    def _labels(self, batch: Batch) -> Tensor:
        """The true labels (B,), `UNLABELLED` where there is none to be read."""
        labels: Tensor = batch["labels"]
        if self.labelled is None:
            return labels
        return torch.where(self.labelled[batch["index"]], labels, UNLABELLED)

    @torch.no_grad()
    def _targets(self, batch: Batch) -> Tensor:
        """The teacher's logits (B, C)."""
        if self.targets is not None:
            return self.targets[batch["index"]]
        if not hasattr(self, "reference_model"):
            raise ValueError("call set_targets(logits), or receive(copy of the model), before the first step")
        logits = self.reference_model(batch, bn_branch="clean").logits
        assert isinstance(logits, Tensor)
        return logits
