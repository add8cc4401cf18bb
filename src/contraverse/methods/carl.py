"""CARL: contrastive adversarial representation learning (Qiu, Zhang and Zhou, 2021)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.functional import class_cosines, gather, log_partition, nce, sampled_softmax
from contraverse.methods._memory_bank import MemoryBank, draw_negatives
from contraverse.methods._reconstruction import Reconstruction
from contraverse.methods._settings import Epochs, Momentum, Temperature, Weight, settings
from contraverse.methods.freelb import Climb, FreeLB, Masks
from contraverse.types import Batch, HeadSpec, Loss, Outputs, TrainingInfo

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Z_MOMENTUM = 0.99
"""Largest momentum of the running normalizer, CMC's: a mean over 100 steps."""

View = Literal["clean", "adversarial"]


def z_momentum(steps: float) -> float:
    """Momentum of the running normalizer, for epochs of ``steps`` steps: its mean covers a tenth of an epoch.

    Bank rows move once an epoch. A mean over more than that would not follow them, and would let go of the negatives as
    a fixed normalizer does.
    """
    return min(Z_MOMENTUM, 1 - 1 / max(1.0, steps / 10))


@dataclass
class _Step:
    """State of one training step."""

    index: Tensor
    """(B,), row numbers of this rank."""
    rows: Tensor
    """(ranks * B,), row numbers of all ranks."""
    fills: bool
    negatives: tuple[Tensor | None, Tensor] | None = None
    """Output of `draw_negatives`; None where the step has no L_D."""
    features: dict[View, Tensor] = field(default_factory=dict)
    """(ranks * B, H), of all ranks, without gradient."""
    clean: Tensor | None = None
    """(B, H) in its graph, where eq. (2) needs both views at once."""
    logs: dict[str, Tensor] = field(default_factory=dict)


@settings
class CARL(FreeLB):
    """FreeLB plus a contrastive loss between each input and its adversary, with rows of other labels as negatives.

        L_D^o = -log h(R_i, R_i^adv) / sum_j h(R_i, R_j^{n,adv})                      eq. (2)
        L_D^a = -log h(R_i^adv, R_i) / sum_j h(R_i^adv, R_j^n)                        eq. (2)
        L_D   = L_D^o + L_D^a,  h(a, b) = exp(a . b / temperature)                    eqs. (3), (4)
        B[i]  = M * B[i] + (1 - M) * R_i, of both banks, after scoring                eq. (5)
        L     = 1/K sum_t L_C(X + delta_t, y) + w * L_D                               eq. (6)

    R are sentence features of unit norm: R_i of a pass at delta = 0, R_i^adv of an adversarial one. Negatives are read
    from two memory banks. With ``positive="bank"`` so are the positives: each anchor's loss lives in its own pass, and
    one graph is held at a time. ``positive="current"`` is eq. (2) as printed: R_i and R_i^adv are of this step, and
    both terms have a gradient through both. Training goes through three phases: FreeLB alone; an epoch or more that
    fills the banks; and, ``start`` epochs after the beginning, L_D. A row that is still missing then (an epoch that
    drops its last batch may leave some out) is no negative and has no positive in a bank until it is written.

    Batch: ``labels`` (classes), ``index``. Cost: K passes of 3F and, once L_D is on, F for the attack step from a pass
    that has it, 10F with the defaults: the first pass is the clean one. With a random start (``gamma``) none is: then
    3F more for it while L_D is on, 1F while the banks are filled, and no attack step costs F but that of
    ``adversary="first"``. ``positive="current"`` costs the same, and holds the clean pass's graph until the adversarial
    pass, two graphs at a time. The log has the mean cosine of the step's clean features between classes
    (``cos_between``) and within classes (``cos_within``).

    Departures: eq. (2) leaves the positive out of its denominator; as in CRD, which the paper adapts, it is in it, or
    among the scores of the noise-contrastive estimate. With ``positive="bank"`` the positive is a bank's row, as there.
    The paper has no weight w, and states neither the pass that gives R^adv nor unit norms. ``climb="total"`` is not in
    it either: the perturbation follows the gradient of all that its pass trains on, L_D too, which is there already.

    Raises:
        UserError: no pass of a step is adversarial.
    """

    name = "carl"
    summary = "FreeLB plus a contrastive loss between inputs and their adversaries"
    paper = "CARL/RAR"
    equation = "(2)-(6)"
    test_settings = {
        "carl": {"negatives": 2},
        "carl-start": {"gamma": 0.3, "epsilon": 0.25, "steps": 2, "negatives": 2, "estimator": "softmax"},
        "carl-rar": {"negatives": 2, "positive": "current", "z": "running", "reconstruction": 0.1},
        "carl-current": {"negatives": 2, "positive": "current", "gamma": 0.3, "steps": 2},
        "carl-total": {"negatives": 2, "climb": "total"},
    }

    weight: Weight = 0.03
    """Weight w of L_D; the paper has none, which is 1 and was not tried here."""
    temperature: Temperature = 0.07
    """Temperature of h; the paper's value."""
    negatives: Annotated[int, Field(ge=1)] | None = 16000
    """Number m of negatives, rows of other labels, drawn for each anchor at each step without replacement, or as many
    as there are; null is all. The paper's value, with 20,000 for Yelp."""
    momentum: Momentum = 0.5
    """Momentum M of the banks; the paper's value."""
    start: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    """Epochs of training before L_D, whose banks are filled from the last whole epoch before it on; the paper's value
    for SST-2."""
    estimator: Literal["nce", "softmax"] = "nce"
    """Noise-contrastive estimate (CRD's), or the softmax over the positive and the negatives."""
    z: Literal["fixed", "running"] = "fixed"
    """Normalizer of `nce`: `fixed` at the first batch with L_D, or a `running` mean over a tenth of an epoch, 100 steps
    at most."""
    features: Literal["h", "pooled"] = "h"
    """Features R: `h`, the pooled tokens, or `pooled`, the output of the encoder's own pooler, which the classifiers of
    BERT and ALBERT read."""
    positive: Literal["bank", "current"] = "bank"
    """Positive: the row's feature of the other view in its `bank`, or that of the `current` step, with gradient: eq.
    (2) as printed."""
    adversary: Literal["first", "last"] = "last"
    """Perturbation that gives R^adv: the one after the `first` attack step, or after the `last`."""
    bank_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the banks."""
    reconstruction: Weight = 0.0
    """Weight w_r of RAR's loss in every pass; 0 leaves it out."""
    skip_special: bool = False
    """Leave special tokens out of RAR's loss."""
    head_warmup: Epochs = 0.0
    """Epochs in which RAR's loss trains its head alone."""
    climb: Climb = "ce"
    """Loss whose gradient the perturbation follows: `ce` is L_C alone, as in eq. (6), `total` the loss of a pass."""

    def setup(self) -> None:
        super().setup()
        if self.rounds == 1 and self.gamma == 0:
            raise UserError("steps=1 without a random start has no adversarial pass", hint="set steps=2 or a gamma > 0")
        self.stochastic = True  # negatives are drawn
        self.climbs_total = self.climb == "total"
        self.adversarial_pass = min(1, self.rounds - 1) if self.adversary == "first" else self.rounds - 1
        self.cost = self._cost()
        self.gathered = 2
        self.heads = {"reconstruction": HeadSpec(kind="mlm")} if self.reconstruction else {}
        self.wants = (self.features,)
        self.epoch_examples, self.z_momentum = 0, z_momentum(math.inf)
        self.reconstructed = Reconstruction(self.skip_special, self.head_warmup if self.reconstruction else 0.0)
        self.clean, self.adversarial = MemoryBank(0, 0), MemoryBank(0, 0)
        self.seen: Tensor = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.begun: Tensor = nn.Buffer(torch.zeros((), dtype=torch.bool))
        self.labels: Tensor = nn.Buffer(torch.zeros(0, dtype=torch.long))
        self.log_z: Tensor = nn.Buffer(torch.full((2,), math.nan))
        self.cosines: Tensor = nn.Buffer(torch.full((2,), math.nan))
        self._step: _Step | None = None

    def _cost(self) -> str:
        """3F for each pass once L_D is on, and F for each attack step on L_C alone from a pass with further terms."""
        with_more_terms = set(range(self.rounds)) if self.reconstruction else {self.adversarial_pass}
        with_more_terms |= {0} if self.gamma == 0 else set()
        waits = {0} if self.positive == "current" and self.gamma == 0 else set()
        own_gradients = len((waits if self.climbs_total else with_more_terms) - {self.rounds - 1})
        return f"{3 * (self.rounds + (self.gamma > 0)) + own_gradients}F"

    def check_data(self, training_info: TrainingInfo) -> None:
        """Check that there are at least two classes.

        Raises:
            UserError: the labels are scores, or all the same.
        """
        labels = training_info.labels
        if labels is None or labels.is_floating_point():
            raise UserError("carl needs classes: rows of other labels are its negatives", hint="use freelb or rar")
        if labels.unique().numel() < 2:
            hint = f"all {training_info.num_examples} have the same one"
            raise UserError("carl needs rows of two labels or more", hint=hint)

    def prepare(self, training_info: TrainingInfo) -> None:
        """Create the memory banks."""
        super().prepare(training_info)
        rows, dtype = training_info.num_examples, DTYPES[self.bank_dtype]
        self.clean = MemoryBank(rows, training_info.hidden_size, dtype)
        self.adversarial = MemoryBank(rows, training_info.hidden_size, dtype)
        assert training_info.labels is not None
        self.labels, self.epoch_examples = training_info.labels.clone(), training_info.epoch_examples or rows
        if training_info.epochs is not None and training_info.epochs <= self.start:
            late = f"the contrast begins after {self.start:g} epochs, and there are {training_info.epochs:g}"
            self.notes = (f"{late}: this is FreeLB alone; lower method.start",)
        self.reconstructed.prepare(training_info)
        self.seen.zero_()
        self.begun.zero_()
        self.log_z.fill_(math.nan)
        self.cosines.fill_(math.nan)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move buffers to a device, except those that every step reads: the host would have to wait for them."""
        on_host = self.seen, self.begun
        super()._apply(fn, recurse)
        self.seen, self.begun = on_host
        return self

    @property
    def fills(self) -> bool:
        """True if the next step writes into the banks: from the last whole epoch before L_D on.

        Any later, and rows that come early in an epoch would be left out.
        """
        return int(self.seen) >= (math.floor(self.start) - 1) * self.epoch_examples

    @property
    def contrasts(self) -> bool:
        """True if the next step has L_D: ``start`` epochs are over."""
        return len(self.labels) > 0 and int(self.seen) >= self.start * self.epoch_examples

    @property
    def complete(self) -> bool:  # type: ignore[override]
        """True once a step had L_D: no earlier model is CARL's."""
        return bool(self.begun)

    @property
    def passes(self) -> int:  # type: ignore[override]
        """K, but for the clean pass of L_D: one more if it is none of the K, one less if it waits for another."""
        if not self.contrasts:
            return self.rounds
        if self.positive == "current":
            return self.rounds - (self.gamma == 0)
        return self.rounds + (self.gamma > 0)

    @property
    def step(self) -> _Step:
        """State of the running step."""
        assert self._step is not None
        return self._step

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        if len(self.labels) == 0:
            raise ValueError("call prepare(training_info) before the first step (Trainer does)")
        step = self._step = _Step(batch["index"], gather(batch["index"]), self.fills)
        self.z_momentum = z_momentum(self.epoch_examples / len(step.rows))
        if self.contrasts:
            labels = self.labels[step.index]  # (B,)
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
        self._step = None

    def run(self, model: nn.Module, batch: Batch, delta: Tensor) -> Outputs:
        if not self.reconstruction:
            return super().run(model, batch, delta)
        return self.reconstructed.run(model, batch, delta, ("logits", *self.wants))

    def due(self, k: int) -> int:
        """Index of the pass that back-propagates pass ``k``: a clean one waits where eq. (2) needs both views."""
        waits = self.positive == "current" and self.step.negatives is not None
        return self.adversarial_pass if waits and k == 0 and self.gamma == 0 else k

    def first_pass(self, model: nn.Module, batch: Batch, masks: Masks) -> Iterator[Loss]:
        """With a random start, a clean pass: trained on for L_D^o, kept for eq. (2), or run for the bank alone."""
        step = self.step
        if self.gamma == 0 or not step.fills:
            return
        with masks(), torch.set_grad_enabled(step.negatives is not None):
            out = model(batch, want=(self.features,))
        for name, (weight, value) in self.contrastive_terms("clean", out).items():
            yield Loss(weight * value, {name: value.detach()})

    def extra_losses(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        extra = super().extra_losses(out, batch, k)
        if self.reconstruction:
            extra["reconstruction"] = (self.reconstruction, self.reconstructed.loss(out, batch))
        # FreeLB takes the mean of the K passes; L_D is a sum over two of them.
        is_clean = k == 0 and self.gamma == 0
        views: list[View] = ["clean"] if is_clean else ["adversarial"] if k == self.adversarial_pass else []
        for view in views:
            extra |= {name: (self.rounds * w, v) for name, (w, v) in self.contrastive_terms(view, out).items()}
        return extra

    def contrastive_terms(self, view: View, out: Outputs) -> dict[str, tuple[float, Tensor]]:
        """Store the features of a view for its bank; while L_D is on, return its losses and their weights by name."""
        step = self.step
        features = F.normalize(getattr(out, self.features).float(), dim=1)  # (B, H)
        step.features[view] = gather(features.detach())  # (ranks * B, H)
        if view == "clean":
            step.logs = self.class_spread(step.features[view], self.labels[step.rows])
        if step.negatives is None:
            return {}
        name = "contrast" if view == "clean" else "contrast_adv"
        if self.positive == "bank":
            return {name: (self.weight, self.contrast(view, features, step.index, step.negatives))}
        if view == "clean":
            step.clean = features
            return {}
        assert step.clean is not None
        positive = (step.clean * features).sum(1) / self.temperature  # (B, H) * (B, H) -> (B,)
        clean = self.contrast("clean", step.clean, step.index, step.negatives, positive)
        adversarial = self.contrast("adversarial", features, step.index, step.negatives, positive)
        return {"contrast": (self.weight, clean), "contrast_adv": (self.weight, adversarial)}

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
            view: view of the anchors.
            anchors: features of unit norm.
            index: (B,), row numbers of the anchors.
            negatives: output of `draw_negatives`.
            positive: (B,), scores of the positives; None takes the bank's rows, and leaves out anchors whose row is not
                written yet.
        """
        (chosen, valid), rows = negatives, len(self.labels)  # chosen (B, M) or None for all N; valid (B, M)
        bank = self.adversarial if view == "clean" else self.clean
        scores = bank.scores(anchors) / self.temperature  # (B, H) @ (H, N) -> (B, N)
        counted = None
        if positive is None:
            positive = scores.gather(1, index.unsqueeze(1)).squeeze(1)  # (B, N) -> (B,)
            counted = bank.filled[index]  # (B,)
        drawn = scores if chosen is None else scores.gather(1, chosen)  # (B, N) -> (B, M)
        if self.estimator == "softmax":
            return sampled_softmax(positive, drawn, valid, counted=counted)
        log_z = self.normalizer(view, log_partition(positive, drawn, valid, rows=rows, counted=counted))
        return nce(positive, drawn, valid, log_z=log_z, rows=rows, counted=counted)

    def normalizer(self, view: View, current: Tensor) -> Tensor:
        """Update and return log Z of a view, from that of this batch alone (NaN if the batch has no negatives)."""
        place = 0 if view == "clean" else 1
        old = self.log_z[place]
        moved = old
        if self.z == "running":
            keep = math.log(self.z_momentum) if self.z_momentum else -math.inf
            moved = torch.logaddexp(old + keep, current + math.log(1 - self.z_momentum))
        self.log_z[place] = torch.where(old.isnan(), current, torch.where(current.isnan(), old, moved))
        # A batch without negatives trains nothing, but its NaN would reach the weights all the same.
        return self.log_z[place].nan_to_num(0.0)

    def class_spread(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cosines of ``features`` (B, H) between classes and within; an earlier step's if there are no pairs."""
        current = torch.stack(class_cosines(features, labels))  # (2,)
        self.cosines.copy_(torch.where(current.isnan(), self.cosines, current))
        between, within = self.cosines.clone()
        return {"cos_between": between, "cos_within": within}
