"""FreeLB (Zhu et al., 2020): adversarial training whose attack gradients come free with training."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from torch import Tensor, nn

from contraverse.attacks import (
    NormBall,
    Objective,
    SharedDropout,
    attack_step,
    input_gradient,
    perturbation_inputs,
)
from contraverse.functional import Norm, supervised_loss
from contraverse.methods._settings import Gamma, Limit, Steps, StepSize, settings
from contraverse.types import Batch, Loss, Method, Outputs, Wanted

Climb = Literal["ce", "total"]
"""Loss whose gradient the perturbation follows: the whole loss of a pass, or L_C alone."""

Masks = Callable[[], AbstractContextManager[Any]]
"""Context of a forward pass, in which the passes of one step may share their dropout masks."""


@settings
class FreeLB(Method):
    """Cross-entropy along K steps of PGD, whose gradients train the weights as well as the perturbation.

        delta_0 ~ U(-1, 1) * gamma / sqrt(T * D)
        delta_t = project(delta_{t-1} + alpha * g / ||g||),  g = grad of L_C(X + delta_{t-1}, y) at delta
        L       = 1/K sum_{t=0}^{K-1} L_C(X + delta_t, y)

    Each term is back-propagated before the next pass, so that one graph is held at a time.

    Batch: ``labels``. Cost: K forward-backwards of 3F, 9F with the defaults.

    Departures: in an Linf ball the step is ``g / max|g|``, as in the authors' code, not its sign. The start is
    projected like every other perturbation, which their code leaves out. Dropout masks are shared by all passes of a
    step in every module; in their code some modules draw new ones.
    """

    name = "freelb"
    summary = "K-step PGD whose gradients also train the weights ('free' large-batch)"
    paper = "FreeLB"
    equation = "Algorithm 1 of FreeLB; (1) of CARL/RAR"
    requires = "labels"
    test_settings = {
        "freelb-start": {"gamma": 0.3, "epsilon": 0.25, "steps": 2, "count": "ascents"},
        "freelb-linf": {"norm": "linf", "step_size": 0.01, "epsilon": 0.015},
    }

    steps: Steps = 3
    """K, passes or attack steps of a training step, see `count`; the papers try 2 to 4."""
    step_size: StepSize = 0.1
    """Length alpha of one attack step."""
    epsilon: Limit = None
    """Largest norm of a perturbation over a sequence; null is no limit, which the papers write as 0."""
    gamma: Gamma = 0.0
    """Size of the random start, whose L2 norm is about gamma / sqrt(3); 0 starts at the clean input."""
    norm: Norm = "l2"
    """Norm of the perturbation."""
    count: Literal["passes", "ascents"] = "passes"
    """Unit of `steps`: forward-backward `passes` (Algorithm 1 and the authors' Hugging Face code, with K - 1 attack
    steps), or `ascents` (their fairseq code: K attack steps and K + 1 passes)."""
    share_dropout: bool = True
    """Draw the same dropout masks in all passes of a step."""

    def setup(self) -> None:
        self.ball = NormBall(self.epsilon, self.step_size, self.norm, gamma=self.gamma, normalize_grad=True)
        self.rounds = self.steps if self.count == "passes" else self.steps + 1
        """Passes through the perturbed input: K, or K + 1 where attack steps are counted."""
        self.cost = f"{3 * self.rounds}F"
        self.stochastic = self.gamma > 0
        self.wants: tuple[Wanted, ...] = ()
        """Outputs besides logits that the extra losses of a subclass need."""
        self.climbs_total = False
        """The perturbation follows the gradient of a pass's total loss, where a subclass adds to L_C."""

    @property
    def passes(self) -> int:  # type: ignore[override]
        """K, or K + 1 where attack steps are counted."""
        return self.rounds

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        masks: Masks = SharedDropout(inputs.values.device) if self.share_dropout else nullcontext
        yield from self.first_pass(model, batch, masks)
        delta = self.ball.init(inputs, random=self.gamma > 0)
        log: dict[str, Tensor] = {}
        pending: dict[int, list[Loss]] = {}
        for k in range(self.rounds):
            with masks():
                out = self.run(model, batch, delta)
            assert out.logits is not None
            logits = out.logits.float()
            ce = supervised_loss(logits, batch["labels"])
            extra = self.extra_losses(out, batch, k)
            total = (ce + sum(weight * value for weight, value in extra.values())) / self.rounds
            clean = k == 0 and self.gamma == 0
            parts = {"ce" if clean else "ce_adv": ce.detach()} | {name: v.detach() for name, (_, v) in extra.items()}
            last, due, grad = k == self.rounds - 1, self.due(k), None
            pending.setdefault(due, []).append(Loss(total, parts | log))
            # Training needs the gradient of all terms at the weights, the attack that of L_C at delta. No single
            # backward pass gives both, so the second is one more input gradient, through L_C's part of the graph alone.
            if (due > k or (extra and not self.climbs_total)) and not last:
                objective = total if self.climbs_total else Objective(ce, logits)
                grad = input_gradient(objective, delta, keep_graph=True)
            if due == k:
                yield _sum_losses(pending.pop(k))
            if not last:
                grad = delta.grad if grad is None else grad
                assert grad is not None
                attack = attack_step(delta, self.ball, inputs, grad=grad)
                log = attack.log(inputs)
                delta = attack.delta.requires_grad_()

    def run(self, model: nn.Module, batch: Batch, delta: Tensor) -> Outputs:
        """Run one pass, with the outputs that its losses read."""
        out = model(batch, delta=delta, want=("logits", *self.wants))
        assert isinstance(out, Outputs)
        return out

    def due(self, k: int) -> int:
        """Index of the pass at which pass ``k`` is back-propagated: its own, unless its graph is needed until later."""
        return k

    def first_pass(self, model: nn.Module, batch: Batch, masks: Masks) -> Iterator[Loss]:
        """Yield losses of a subclass that come before the first perturbation is drawn."""
        yield from ()

    def extra_losses(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        """Losses that a subclass adds to pass ``k``: weight and value of each, by name."""
        return {}


def _sum_losses(losses: list[Loss]) -> Loss:
    """Sum of the losses of passes that are back-propagated together, with the log of all."""
    total, parts = losses[0]
    for loss in losses[1:]:
        total, parts = total + loss.total, parts | loss.parts
    return Loss(total, parts)
