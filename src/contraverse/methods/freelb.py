"""FreeLB (Zhu et al., 2020): adversarial training whose ascent is free."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, SharedDropout, attack_step, input_gradient, perturbation_inputs
from contraverse.functional import Norm, supervised_loss
from contraverse.methods.settings import Gamma, Limit, Steps, StepSize
from contraverse.types import Batch, Loss, Method, Outputs, Wanted

Climb = Annotated[
    Literal["total", "ce"], Field(description="what the perturbation climbs: the whole loss of a pass, or L_C alone")
]
Count = Annotated[
    Literal["passes", "ascents"], Field(description="what steps counts: passes (HF) or ascents (fairseq)")
]

Masks = Callable[[], AbstractContextManager[Any]]
"""What a forward pass of a step runs in, so that it may share its dropout masks."""


class FreeLB(Method):
    """Every pass that trains the weights also leaves the gradient that the next perturbation climbs.

        delta_0 ~ U(-1, 1) * gamma / sqrt(T * D)
        delta_t = project(delta_{t-1} + alpha * g / ||g||),  g = grad of L_C(X + delta_{t-1}, y) at delta
        L       = 1/K sum_{t=0}^{K-1} L_C(X + delta_t, y)

    Each term is back-propagated before the next pass, so that one graph is held at a time.

    Batch: ``labels``. Cost: K forward-backwards of 3F, 9F with the defaults.

    Departures: in an Linf ball the step is ``g / max|g|``, as in the authors' code, not its sign. The start is
    projected like every other perturbation, which their code leaves out. Dropout masks are shared by all passes of a
    step in every module, where their code reaches some.

    Args:
        steps: K, passes or ascents of a step.
        step_size: alpha, length of one ascent, > 0.
        epsilon: largest norm of a perturbation over a sequence, > 0; None is no limit (the papers write 0).
        gamma: size of the random start, >= 0; 0 starts at the clean input.
        norm: ``"l2"`` or ``"linf"``.
        count: whether ``steps`` are forward-backwards ("passes": Algorithm 1 and the authors' Hugging Face code, with
            K - 1 ascents that are trained on) or "ascents" (their fairseq code: K + 1 forward-backwards).
        share_dropout: whether all passes of a step draw the same dropout masks.
    """

    name = "freelb"
    summary = "cross-entropy along a climbing perturbation, whose gradient is training's own"
    paper = "FreeLB"
    equation = "Algorithm 1 of FreeLB; (1) of CARL/RAR"
    requires = "labels"
    wants: tuple[Wanted, ...] = ()
    """What the further terms of a subclass need of a pass besides logits."""
    climb: Climb = "ce"
    """What the perturbation climbs where a subclass has further terms."""

    @validate_call
    def __init__(
        self,
        *,
        steps: Steps = 3,
        step_size: StepSize = 0.1,
        epsilon: Limit = None,
        gamma: Gamma = 0.0,
        norm: Norm = "l2",
        count: Count = "passes",
        share_dropout: bool = True,
    ) -> None:
        super().__init__()
        self.ball = NormBall(epsilon, step_size, norm, gamma=gamma, normalize_grad=True)
        self.gamma, self.share_dropout = gamma, share_dropout
        self.rounds = steps if count == "passes" else steps + 1

    @property
    def passes(self) -> int:  # type: ignore[override]
        """K, or K + 1 where ascents are counted."""
        return self.rounds

    @property
    def cost(self) -> str:  # type: ignore[override]
        """3F for each pass."""
        return f"{3 * self.rounds}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        masks: Masks = SharedDropout(inputs.values.device) if self.share_dropout else nullcontext
        yield from self.first_pass(model, batch, masks)
        delta = self.ball.init(inputs, random=self.gamma > 0)
        found: dict[str, Tensor] = {}
        waiting: dict[int, list[Loss]] = {}
        for k in range(self.rounds):
            with masks():
                out = self.run(model, batch, delta)
            assert out.logits is not None
            logits = out.logits.float()
            ce = supervised_loss(logits, batch["labels"])
            terms = self.extra_losses(out, batch, k)
            total = (ce + sum(weight * value for weight, value in terms.values())) / self.rounds
            clean = k == 0 and self.gamma == 0
            parts = {"ce" if clean else "ce_adv": ce.detach()} | {name: v.detach() for name, (_, v) in terms.items()}
            last, due, grad = k == self.rounds - 1, self.due(k), None
            waiting.setdefault(due, []).append(Loss(total, parts | found))
            # Training wants the gradient of all terms at the weights and the attack that of L_C at delta: no one
            # backward gives both, so the second is an input gradient more, but through L_C's part of the graph alone.
            if (due > k or (terms and self.climb == "ce")) and not last:
                objective = Objective(ce, logits) if self.climb == "ce" else total
                grad = input_gradient(objective, delta, keep_graph=True)
            if due == k:
                yield _together(waiting.pop(k))
            if not last:
                grad = delta.grad if grad is None else grad
                assert grad is not None
                attack = attack_step(delta, self.ball, inputs, grad=grad)
                found = attack.log(inputs)
                delta = attack.delta.requires_grad_()

    def run(self, model: nn.Module, batch: Batch, delta: Tensor) -> Outputs:
        """One pass, with what its terms read."""
        out = model(batch, delta=delta, want=("logits", *self.wants))
        assert isinstance(out, Outputs)
        return out

    def due(self, k: int) -> int:
        """In which pass's loss pass ``k`` is back-propagated: its own, unless a subclass needs its graph until then."""
        return k

    def first_pass(self, model: nn.Module, batch: Batch, masks: Masks) -> Iterator[Loss]:
        """What a subclass trains on before the first perturbation is drawn."""
        yield from ()

    def extra_losses(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        """What a subclass adds to pass ``k``: the weight and the value of each term, by name."""
        return {}


def _together(losses: list[Loss]) -> Loss:
    """Passes that are back-propagated at once: their sum, and the parts of all."""
    total, parts = losses[0]
    for loss in losses[1:]:
        total, parts = total + loss.total, parts | loss.parts
    return Loss(total, parts)
