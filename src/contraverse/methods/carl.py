"""CARL: contrastive adversarial representation learning (Qiu, Zhang and Zhou, 2021)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import Norm, gather, log_partition, nce, sampled_softmax
from contraverse.methods.freelb import Climb, Count, FreeLB, Masks
from contraverse.methods.memory_bank import MemoryBank, draw_negatives
from contraverse.methods.rar import reconstruction_loss
from contraverse.methods.settings import Gamma, Limit, Steps, StepSize, Temperature
from contraverse.types import Batch, Facts, HeadSpec, Loss, Outputs

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the contrastive loss")]
Negatives = Annotated[int, Field(ge=1, description="rows of other labels that an anchor is told from")] | None
Momentum = Annotated[float, Field(ge=0, lt=1, description="how much of a bank's row is kept at an update")]
Start = Annotated[float, Field(ge=1, allow_inf_nan=False, description="epochs before the contrastive loss")]
Reconstruction = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of RAR's loss")]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
KEPT = 0.99
"""Of the running normaliser, at each step."""


View = Literal["clean", "adversarial"]


@dataclass
class _Step:
    """What one step knows, and collects on its way."""

    index: Tensor
    fills: bool
    negatives: tuple[Tensor | None, Tensor] | None = None
    """As `draw_negatives` gives them; None where the step has no L_D."""
    features: dict[View, Tensor] = field(default_factory=dict)


class CARL(FreeLB):
    """FreeLB, and each input and its adversary have to find each other among the rows of other labels.

        L_D^o = -log h(R_i, R_i^adv) / sum_j h(R_i, R_j^{n,adv})                      eq. (2)
        L_D^a = -log h(R_i^adv, R_i) / sum_j h(R_i^adv, R_j^n)                        eq. (2)
        L_D   = L_D^o + L_D^a,  h(a, b) = exp(a . b / temperature)                    eqs. (3), (4)
        B[i]  = M * B[i] + (1 - M) * R_i, of both banks, after scoring                eq. (5)
        L     = 1/K sum_t L_C(X + delta_t, y) + w * L_D                               eq. (6)

    R are sentence features of unit norm: R_i of a pass at delta = 0, R_i^adv of an adversarial one. What an anchor is
    scored against is read from two memory banks, so each anchor's loss lives in its own pass and one graph is held at
    a time. Training goes through three phases: FreeLB alone; an epoch or more that fills the banks; and, ``start``
    epochs after the beginning and once every row is written, L_D.

    Batch: ``labels`` (classes), ``index``. Cost: K passes of 3F and, once L_D is on, F for the ascent from a pass that
    has it, 10F with the defaults: the first pass is the clean one. With a random start (``gamma``) none is: then 3F
    more for it while L_D is on, 1F while the banks are filled, and no ascent but from ``adversary="first"`` costs F.

    Departures: eq. (2) leaves the positive out of its denominator; as in CRD, which the paper adapts, it is in it, or
    among what the estimate tells from noise. The positive is a bank's row, as there. The weight w, the pass that
    gives R^adv and unit norms are not in the paper. ``climb="total"`` is not in it either: its perturbation climbs
    all that its pass trains on, L_D too, whose gradient is there already.

    Args:
        weight: w, of L_D, >= 0; the paper has none, which is 1.
        temperature: of h, > 0.
        negatives: m, how many rows of other labels each anchor is told from, drawn at each step; None is all.
        momentum: M, in [0, 1).
        start: epochs of training before L_D, >= 1; banks are filled from the last whole epoch before it on.
        estimator: ``"nce"`` (CRD's estimate) or ``"softmax"`` (over the positive and the negatives).
        z: of ``"nce"``: the normaliser is ``"fixed"`` at the first batch of L_D, or its ``"running"`` mean.
        features: ``"h"`` (pooled tokens) or ``"pooled"`` (the encoder's own pooler, which BERT's classifier reads).
        positive: of L_D^a: ``"bank"``, or ``"current"``, the clean features of this step.
        adversary: which perturbation gives R^adv: the ``"first"`` or the ``"last"`` one that was climbed to.
        bank_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``: what the banks are held in.
        reconstruction: w_r, of RAR's loss in every pass, >= 0; 0 leaves it out.
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
    labels: Tensor
    log_z: Tensor
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
        reconstruction: Reconstruction = 0.0,
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
        self.epoch_rows = 0
        self.start, self.estimator, self.z, self.features = start, estimator, z, features
        self.climb = climb
        self.positive, self.reconstruction, self.bank_dtype = positive, reconstruction, DTYPES[bank_dtype]
        self.adversary = min(1, self.rounds - 1) if adversary == "first" else self.rounds - 1
        self.heads = {"reconstruction": HeadSpec(kind="mlm")} if reconstruction else {}
        self.wants = (features, *self.heads)
        self.clean, self.adversarial = MemoryBank(0, 0), MemoryBank(0, 0)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("log_z", torch.full((2,), math.nan))

    def prepare(self, facts: Facts) -> None:
        """Make the banks.

        Raises:
            UserError: the labels are no classes, or all the same.
        """
        labels = facts.labels
        if labels is None or labels.is_floating_point():
            raise UserError("carl needs classes, to tell an input from those of other labels", hint="use freelb or rar")
        if labels.unique().numel() < 2:
            raise UserError("carl needs rows of two labels or more", hint=f"all {facts.rows} have the same one")
        self.clean = MemoryBank(facts.rows, facts.width, self.bank_dtype)
        self.adversarial = MemoryBank(facts.rows, facts.width, self.bank_dtype)
        self.labels, self.epoch_rows = labels.clone(), facts.epoch_rows or facts.rows
        if facts.epochs is not None and facts.epochs <= self.start:
            never = f"the contrast begins after {self.start:g} epochs, and there are {facts.epochs:g}"
            self.notes = (f"{never}: this is FreeLB alone; lower method.start",)
        self.seen.zero_()
        self.log_z.fill_(math.nan)

    @property
    def fills(self) -> bool:
        """Whether the next step writes into the banks: from the last whole epoch before L_D on.

        Any later, and rows that come early in an epoch would be left out.
        """
        return int(self.seen) >= (math.floor(self.start) - 1) * self.epoch_rows

    @property
    def contrasts(self) -> bool:
        """Whether the next step has L_D: ``start`` epochs are over, and every row was written."""
        begun = len(self.labels) > 0 and int(self.seen) >= self.start * self.epoch_rows
        return begun and bool(self.clean.filled.all())

    @property
    def passes(self) -> int:  # type: ignore[override]
        """K, and one more where L_D needs a clean pass of its own."""
        return self.rounds + (self.gamma > 0 and self.contrasts)

    @property
    def cost(self) -> str:  # type: ignore[override]
        """3F for each pass once L_D is on, and F for each ascent of L_C alone off a pass with further terms."""
        further = set(range(self.rounds)) if self.reconstruction else {self.adversary}
        further |= {0} if self.gamma == 0 else set()
        alone = len(further - {self.rounds - 1}) if self.climb == "ce" else 0
        return f"{3 * (self.rounds + (self.gamma > 0)) + alone}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if len(self.labels) == 0:
            raise ValueError("call prepare(facts) before the first step (Trainer does)")
        step = self._step = _Step(batch["index"], self.fills)
        if self.contrasts:
            step.negatives = draw_negatives(self.labels[step.index], self.labels, self.negatives)
        yield from super().losses(model, batch)
        index = gather(step.index)
        if step.fills:
            self.clean.update(index, gather(step.features["clean"]), self.momentum)
            self.adversarial.update(index, gather(step.features["adversarial"]), self.momentum)
        self.seen += len(index)
        del self._step

    def opening(self, model: nn.Module, batch: Batch, masks: Masks) -> Iterator[Loss]:
        """With a random start, a clean pass: it is trained on for L_D^o, or run for the bank alone."""
        step = self._step
        if self.gamma == 0 or not step.fills:
            return
        with masks(), torch.set_grad_enabled(step.negatives is not None):
            out = model(batch, want=(self.features,))
        for name, (weight, value) in self.look("clean", out).items():
            yield Loss(weight * value, {name: value.detach()})

    def terms(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        terms = super().terms(out, batch, k)
        if self.reconstruction:
            loss = reconstruction_loss(out.heads["reconstruction"], batch["input_ids"], batch["attention_mask"])
            terms["reconstruction"] = (self.reconstruction, loss)
        # Of the K passes FreeLB takes the mean; L_D is a sum over two of them.
        views: list[View] = ["clean"] if k == 0 and self.gamma == 0 else ["adversarial"] if k == self.adversary else []
        for view in views:
            terms |= {name: (self.rounds * w, v) for name, (w, v) in self.look(view, out).items()}
        return terms

    def look(self, view: View, out: Outputs) -> dict[str, tuple[float, Tensor]]:
        """Keep the features of a view for its bank; where L_D is on, also its loss and weight by name."""
        step = self._step
        features = F.normalize(getattr(out, self.features).float(), dim=1)
        step.features[view] = features.detach()
        if step.negatives is None:
            return {}
        loss = self.contrast(view, features, step.index, step.negatives)
        return {"contrast" if view == "clean" else "contrast_adv": (self.weight, loss)}

    def contrast(self, view: View, anchors: Tensor, index: Tensor, negatives: tuple[Tensor | None, Tensor]) -> Tensor:
        """L_D^o (``"clean"``) or L_D^a of the ``anchors`` (B, H) of rows ``index``, against the other view's bank."""
        (chosen, valid), rows = negatives, len(self.labels)
        others = self.adversarial if view == "clean" else self.clean
        scores = others.scores(anchors) / self.temperature
        positive = scores.gather(1, index.unsqueeze(1)).squeeze(1)
        if view == "adversarial" and self.positive == "current":
            positive = (anchors * self._step.features["clean"]).sum(1) / self.temperature
        drawn = scores if chosen is None else scores.gather(1, chosen)
        if self.estimator == "softmax":
            return sampled_softmax(positive, drawn, valid)
        log_z = self.normaliser(view, log_partition(positive, drawn, valid, rows=rows))
        return nce(positive, drawn, valid, log_z=log_z, rows=rows)

    def normaliser(self, view: View, found: Tensor) -> Tensor:
        """log Z of a view, given what this batch alone would make of it."""
        place = 0 if view == "clean" else 1
        old = self.log_z[place]
        moved = torch.logaddexp(old + math.log(KEPT), found + math.log(1 - KEPT))
        self.log_z[place] = torch.where(old.isnan(), found, moved if self.z == "running" else old)
        return self.log_z[place].clone()
