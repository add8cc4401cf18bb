"""CARL: contrastive adversarial representation learning (Qiu, Zhang and Zhou, 2021)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import Norm, class_cosines, gather, log_partition, nce, sampled_softmax
from contraverse.methods.freelb import Climb, Count, FreeLB, Masks
from contraverse.methods.memory_bank import MemoryBank, draw_negatives
from contraverse.methods.reconstruction import Reconstruction, SkipSpecial, Warmup
from contraverse.methods.settings import Gamma, Limit, Steps, StepSize, Temperature
from contraverse.types import Batch, HeadSpec, Loss, Outputs, TrainingInfo

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the contrastive loss")]
Negatives = Annotated[int, Field(ge=1, description="rows of other labels that an anchor is told from")] | None
Momentum = Annotated[float, Field(ge=0, lt=1, description="how much of a bank's row is kept at an update")]
Start = Annotated[float, Field(ge=1, allow_inf_nan=False, description="epochs before the contrastive loss")]
ReconstructionWeight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of RAR's loss")]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def kept_of(steps: float) -> float:
    """How much of the running normaliser a step keeps, of so many steps an epoch: its mean is over a tenth of them.

    Bank rows move once an epoch. CMC keeps .99, a mean over 100 steps, which is the most here. Longer than an epoch it
    would not follow the rows, and would let go of the negatives as a fixed normaliser does.
    """
    return min(0.99, 1 - 1 / max(1.0, steps / 10))


View = Literal["clean", "adversarial"]


@dataclass
class _Step:
    """What one step knows, and collects on its way."""

    index: Tensor
    """(B,), of this rank."""
    rows: Tensor
    """(ranks * B,), of all ranks."""
    fills: bool
    negatives: tuple[Tensor | None, Tensor] | None = None
    """As `draw_negatives` gives them; None where the step has no L_D."""
    features: dict[View, Tensor] = field(default_factory=dict)
    """(ranks * B, H), of all ranks, without gradient."""
    clean: Tensor | None = None
    """(B, H) in its graph, where eq. (2) wants both views at once."""
    logs: dict[str, Tensor] = field(default_factory=dict)


class CARL(FreeLB):
    """FreeLB, and each input and its adversary have to find each other among the rows of other labels.

        L_D^o = -log h(R_i, R_i^adv) / sum_j h(R_i, R_j^{n,adv})                      eq. (2)
        L_D^a = -log h(R_i^adv, R_i) / sum_j h(R_i^adv, R_j^n)                        eq. (2)
        L_D   = L_D^o + L_D^a,  h(a, b) = exp(a . b / temperature)                    eqs. (3), (4)
        B[i]  = M * B[i] + (1 - M) * R_i, of both banks, after scoring                eq. (5)
        L     = 1/K sum_t L_C(X + delta_t, y) + w * L_D                               eq. (6)

    R are sentence features of unit norm: R_i of a pass at delta = 0, R_i^adv of an adversarial one. Negatives are read
    from two memory banks. With ``positive="bank"`` so are the positives: each anchor's loss lives in its own pass, and
    one graph is held at a time. ``positive="current"`` is eq. (2) as printed: R_i and R_i^adv are of this step, and
    both terms have a gradient through both. Training goes through three phases: FreeLB alone; an epoch or more that
    fills the banks; and, ``start`` epochs after the beginning, L_D. A row that is not written by then, as an epoch that
    leaves out its last batch may miss some, is no negative, and has no positive in a bank, until it is.

    Batch: ``labels`` (classes), ``index``. Cost: K passes of 3F and, once L_D is on, F for the ascent from a pass that
    has it, 10F with the defaults: the first pass is the clean one. With a random start (``gamma``) none is: then 3F
    more for it while L_D is on, 1F while the banks are filled, and no ascent but from ``adversary="first"`` costs F.
    ``positive="current"`` costs no more than that: it holds the clean pass's graph until the adversarial pass's, two at
    a time. The log has the mean cosine of the step's clean features between classes (``cos_between``) and within.

    Departures: eq. (2) leaves the positive out of its denominator; as in CRD, which the paper adapts, it is in it, or
    among what the estimate tells from noise. With ``positive="bank"`` that is a bank's row, as there. The weight w, the
    pass that gives R^adv and unit norms are not in the paper. ``climb="total"`` is not in it either: its perturbation
    climbs all that its pass trains on, L_D too, whose gradient is there already.

    Args:
        weight: w, of L_D, >= 0; the paper has none, which is 1.
        temperature: of h, > 0.
        negatives: m, how many rows of other labels each anchor is told from, drawn at each step; None is all.
        momentum: M, in [0, 1).
        start: epochs of training before L_D, >= 1; banks are filled from the last whole epoch before it on.
        estimator: ``"nce"`` (CRD's estimate) or ``"softmax"`` (over the positive and the negatives).
        z: of ``"nce"``: the normaliser is ``"fixed"`` at the first batch of L_D, or its ``"running"`` mean over a tenth
            of an epoch, a hundred steps at most.
        features: ``"h"`` (pooled tokens) or ``"pooled"`` (the encoder's own pooler, which BERT's classifier reads).
        positive: ``"bank"``: the row's features of the other view as a bank has them; or ``"current"``: those of this
            step, with gradient.
        adversary: which perturbation gives R^adv: the ``"first"`` or the ``"last"`` one that was climbed to.
        bank_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``: what the banks are held in.
        reconstruction: w_r, of RAR's loss in every pass, >= 0; 0 leaves it out.
        skip_special: whether special tokens are left out of RAR's loss.
        head_warmup: epochs, >= 0, in which RAR's loss trains its head alone.
        climb: what the perturbation climbs: ``"ce"``, L_C alone, as eq. (6), or the ``"total"`` loss of a pass.
        steps: K, passes or ascents of a step, see ``count``.
        step_size: length of one ascent, > 0.
        epsilon: largest norm of a perturbation over a sequence, > 0; None is no limit.
        gamma: size of the random start, >= 0; 0 starts at the clean input.
        norm: ``"l2"`` or ``"linf"``.
        count: whether ``steps`` are "passes" or "ascents", see `FreeLB`.
        share_dropout: whether all passes of a step draw the same dropout masks.

    Raises:
        UserError: no pass of a step is adversarial.
    """

    name = "carl"
    summary = "FreeLB, and each input and its adversary find each other among rows of other labels"
    paper = "CARL/RAR"
    equation = "(2)-(6)"

    seen: Tensor
    begun: Tensor
    labels: Tensor
    log_z: Tensor
    cosines: Tensor
    _step: _Step

    @validate_call
    def __init__(
        self,
        *,
        weight: Weight = 0.03,
        temperature: Temperature = 0.07,
        negatives: Negatives = 16000,
        momentum: Momentum = 0.5,
        start: Start = 3.0,
        estimator: Literal["nce", "softmax"] = "nce",
        z: Literal["fixed", "running"] = "fixed",
        features: Literal["h", "pooled"] = "h",
        positive: Literal["bank", "current"] = "bank",
        adversary: Literal["first", "last"] = "last",
        bank_dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        reconstruction: ReconstructionWeight = 0.0,
        skip_special: SkipSpecial = False,
        head_warmup: Warmup = 0.0,
        climb: Climb = "ce",
        steps: Steps = 3,
        step_size: StepSize = 0.1,
        epsilon: Limit = None,
        gamma: Gamma = 0.0,
        norm: Norm = "l2",
        count: Count = "passes",
        share_dropout: bool = True,
    ) -> None:
        super().__init__(
            steps=steps,
            step_size=step_size,
            epsilon=epsilon,
            gamma=gamma,
            norm=norm,
            count=count,
            share_dropout=share_dropout,
        )
        if self.rounds == 1 and gamma == 0:
            raise UserError("steps=1 without a random start has no adversarial pass", hint="set steps=2 or a gamma > 0")
        self.weight, self.temperature, self.negatives, self.momentum = weight, temperature, negatives, momentum
        self.epoch_rows, self.kept = 0, kept_of(math.inf)
        self.start, self.estimator, self.z, self.features = start, estimator, z, features
        self.climb = climb
        self.positive, self.reconstruction, self.bank_dtype = positive, reconstruction, DTYPES[bank_dtype]
        self.adversary = min(1, self.rounds - 1) if adversary == "first" else self.rounds - 1
        self.heads = {"reconstruction": HeadSpec(kind="mlm")} if reconstruction else {}
        self.wants = (features,)
        self.reconstructed = Reconstruction(skip_special, head_warmup if reconstruction else 0.0)
        self.clean, self.adversarial = MemoryBank(0, 0), MemoryBank(0, 0)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("log_z", torch.full((2,), math.nan))
        self.register_buffer("cosines", torch.full((2,), math.nan))

    def prepare(self, training_info: TrainingInfo) -> None:
        """Make the banks.

        Raises:
            UserError: the labels are no classes, or all the same.
        """
        labels = training_info.labels
        if labels is None or labels.is_floating_point():
            raise UserError("carl needs classes, to tell an input from those of other labels", hint="use freelb or rar")
        if labels.unique().numel() < 2:
            raise UserError(
                "carl needs rows of two labels or more", hint=f"all {training_info.num_examples} have the same one"
            )
        self.clean = MemoryBank(training_info.num_examples, training_info.hidden_size, self.bank_dtype)
        self.adversarial = MemoryBank(training_info.num_examples, training_info.hidden_size, self.bank_dtype)
        self.labels, self.epoch_rows = labels.clone(), training_info.epoch_examples or training_info.num_examples
        if training_info.epochs is not None and training_info.epochs <= self.start:
            never = f"the contrast begins after {self.start:g} epochs, and there are {training_info.epochs:g}"
            self.notes = (f"{never}: this is FreeLB alone; lower method.start",)
        self.reconstructed.prepare(training_info)
        self.seen.zero_()
        self.begun.zero_()
        self.log_z.fill_(math.nan)
        self.cosines.fill_(math.nan)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Buffers move to a device, but for those that are read in every step, which would have to wait for it."""
        on_host = self.seen, self.begun
        super()._apply(fn, recurse)
        self.seen, self.begun = on_host
        return self

    @property
    def fills(self) -> bool:
        """Whether the next step writes into the banks: from the last whole epoch before L_D on.

        Any later, and rows that come early in an epoch would be left out.
        """
        return int(self.seen) >= (math.floor(self.start) - 1) * self.epoch_rows

    @property
    def contrasts(self) -> bool:
        """Whether the next step has L_D: ``start`` epochs are over."""
        return len(self.labels) > 0 and int(self.seen) >= self.start * self.epoch_rows

    @property
    def complete(self) -> bool:  # type: ignore[override]
        """Whether a step had L_D: no model from before is CARL's."""
        return bool(self.begun)

    @property
    def passes(self) -> int:  # type: ignore[override]
        """K, but for the clean pass of L_D: one more where it is none of the K, one less where it waits for another."""
        if not self.contrasts:
            return self.rounds
        if self.positive == "current":
            return self.rounds - (self.gamma == 0)
        return self.rounds + (self.gamma > 0)

    @property
    def cost(self) -> str:  # type: ignore[override]
        """3F for each pass once L_D is on, and F for each ascent of L_C alone off a pass with further terms."""
        further = set(range(self.rounds)) if self.reconstruction else {self.adversary}
        further |= {0} if self.gamma == 0 else set()
        waits = {0} if self.positive == "current" and self.gamma == 0 else set()
        alone = len((further if self.climb == "ce" else waits) - {self.rounds - 1})
        return f"{3 * (self.rounds + (self.gamma > 0)) + alone}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if len(self.labels) == 0:
            raise ValueError("call prepare(facts) before the first step (Trainer does)")
        step = self._step = _Step(batch["index"], gather(batch["index"]), self.fills)
        self.kept = kept_of(self.epoch_rows / len(step.rows))
        if self.contrasts:
            labels = self.labels[step.index]
            step.negatives = draw_negatives(labels, self.labels, self.negatives, self.clean.filled)
        for loss in super().losses(model, batch):
            logs, step.logs = step.logs, {}
            yield Loss(loss.total, loss.parts | logs)
        if step.fills:
            self.clean.update(step.rows, step.features["clean"], self.momentum)
            self.adversarial.update(step.rows, step.features["adversarial"], self.momentum)
        self.seen += len(step.rows)
        self.reconstructed.count(len(step.rows))
        self.begun |= step.negatives is not None
        del self._step

    def run(self, model: nn.Module, batch: Batch, delta: Tensor) -> Outputs:
        if not self.reconstruction:
            return super().run(model, batch, delta)
        return self.reconstructed.run(model, batch, delta, ("logits", *self.wants))

    def due(self, k: int) -> int:
        """The clean pass waits for the adversarial one where eq. (2) needs both views at once."""
        waits = self.positive == "current" and self._step.negatives is not None
        return self.adversary if waits and k == 0 and self.gamma == 0 else k

    def first_pass(self, model: nn.Module, batch: Batch, masks: Masks) -> Iterator[Loss]:
        """With a random start, a clean pass: trained on for L_D^o, kept for eq. (2), or run for the bank alone."""
        step = self._step
        if self.gamma == 0 or not step.fills:
            return
        with masks(), torch.set_grad_enabled(step.negatives is not None):
            out = model(batch, want=(self.features,))
        for name, (weight, value) in self.contrastive_terms("clean", out).items():
            yield Loss(weight * value, {name: value.detach()})

    def extra_losses(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        terms = super().extra_losses(out, batch, k)
        if self.reconstruction:
            terms["reconstruction"] = (self.reconstruction, self.reconstructed.loss(out, batch))
        # Of the K passes FreeLB takes the mean; L_D is a sum over two of them.
        views: list[View] = ["clean"] if k == 0 and self.gamma == 0 else ["adversarial"] if k == self.adversary else []
        for view in views:
            terms |= {name: (self.rounds * w, v) for name, (w, v) in self.contrastive_terms(view, out).items()}
        return terms

    def contrastive_terms(self, view: View, out: Outputs) -> dict[str, tuple[float, Tensor]]:
        """Keep the features of a view for its bank; where L_D is on, also its losses and their weight by name."""
        step = self._step
        features = F.normalize(getattr(out, self.features).float(), dim=1)  # (B, H)
        step.features[view] = gather(features.detach())
        if view == "clean":
            step.logs = self.spread(step.features[view], self.labels[step.rows])
        if step.negatives is None:
            return {}
        name = "contrast" if view == "clean" else "contrast_adv"
        if self.positive == "bank":
            return {name: (self.weight, self.contrast(view, features, step.index, step.negatives))}
        if view == "clean":
            step.clean = features
            return {}
        assert step.clean is not None
        positive, of_step = (step.clean * features).sum(1) / self.temperature, (step.index, step.negatives)  # (B,)
        return {
            "contrast": (self.weight, self.contrast("clean", step.clean, *of_step, positive)),
            "contrast_adv": (self.weight, self.contrast("adversarial", features, *of_step, positive)),
        }

    def contrast(
        self,
        view: View,
        anchors: Tensor,
        index: Tensor,
        negatives: tuple[Tensor | None, Tensor],
        positive: Tensor | None = None,
    ) -> Tensor:
        """L_D^o (``"clean"``) or L_D^a of ``anchors`` (B, H) against the other view's bank.

        Args:
            view: that of the anchors.
            anchors: of unit norm.
            index: (B,), their rows.
            negatives: as `draw_negatives` gives them.
            positive: (B,), scores of the positives; None takes the bank's rows, and leaves out the anchors whose row
                is not written.
        """
        (chosen, valid), rows = negatives, len(self.labels)
        others = self.adversarial if view == "clean" else self.clean
        scores = others.scores(anchors) / self.temperature  # (B, N)
        counted = None
        if positive is None:
            positive, counted = scores.gather(1, index.unsqueeze(1)).squeeze(1), others.filled[index]
        drawn = scores if chosen is None else scores.gather(1, chosen)  # (B, M)
        if self.estimator == "softmax":
            return sampled_softmax(positive, drawn, valid, counted=counted)
        log_z = self.normaliser(view, log_partition(positive, drawn, valid, rows=rows, counted=counted))
        return nce(positive, drawn, valid, log_z=log_z, rows=rows, counted=counted)

    def normaliser(self, view: View, current: Tensor) -> Tensor:
        """log Z of a view, given that of this batch alone; NaN there where the batch has no negatives."""
        place = 0 if view == "clean" else 1
        old = self.log_z[place]
        moved = old
        if self.z == "running":
            kept = math.log(self.kept) if self.kept else -math.inf
            moved = torch.logaddexp(old + kept, current + math.log(1 - self.kept))
        self.log_z[place] = torch.where(old.isnan(), current, torch.where(current.isnan(), old, moved))
        # Of a batch without negatives nothing is trained, and NaN would reach the weights all the same.
        return self.log_z[place].nan_to_num(0.0)

    def spread(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cosines of ``features`` (B, H) between classes and within; an earlier step's for want of pairs."""
        current = torch.stack(class_cosines(features, labels))
        self.cosines.copy_(torch.where(current.isnan(), self.cosines, current))
        between, within = self.cosines.clone()
        return {"cos_between": between, "cos_within": within}
