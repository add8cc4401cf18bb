"""The few types that everything else is written against.

Letters used in shapes throughout: ``B`` rows of a batch, ``T`` tokens, ``D`` width of the perturbed
input (a word embedding), ``H`` width of a hidden state, ``C`` classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

Batch = Mapping[str, Any]
"""What the collator makes: ``input_ids`` (B, T), ``attention_mask`` (B, T), ``labels`` (B,), ``index`` (B,)
(the row's number in its data set); ``positive`` and ``negative`` hold batches of their own."""

Route = Literal["clean", "adversarial"]
"""Which set of batch-norm statistics a dual-BN model uses. Models without batch norm ignore it."""

Wanted = Literal["inputs", "tokens", "h", "z", "logits"]


class Loss(NamedTuple):
    """One loss of a method: ``total`` is back-propagated by the driver, ``parts`` (detached) go to the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Inputs(NamedTuple):
    """Where a perturbation is added.

    ``values`` (B, T, D): word embeddings before position, type and layer norm. ``mask`` (B, T, 1), bool:
    True where a perturbation may live (False on padding).
    """

    values: Tensor
    mask: Tensor


class Outputs(NamedTuple):
    """What one forward pass gives; a field is None unless it was asked for in ``want``.

    ``inputs``: what is perturbed. ``tokens`` (B, T, H): last hidden states. ``h`` (B, H): pooled features.
    ``z`` (B, Z): the projection head's output, for contrastive losses. ``logits`` (B, C).
    """

    logits: Tensor | None = None
    z: Tensor | None = None
    h: Tensor | None = None
    tokens: Tensor | None = None
    inputs: Inputs | None = None


@dataclass(frozen=True)
class HeadSpec:
    """A head that a method needs on the model: ``Linear(H, dim)`` then ``activation``.

    ``dim`` None means the encoder's own width.
    """

    dim: int | None = None
    activation: Literal["tanh", "none"] = "tanh"


class Model(nn.Module):
    """Encoder and all heads: the one thing that is wrapped, optimised and saved."""

    def forward(
        self,
        batch: Batch,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        route: Route = "clean",
    ) -> Outputs:
        """Run the network once on ``batch``, with ``delta`` (shape of ``inputs.values``) added to its inputs."""
        raise NotImplementedError

    def add_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        """Add the heads that a method names and the model does not have yet."""
        raise NotImplementedError


class Method(nn.Module):
    """A training method: settings and buffers only; it is given the model and never holds it.

    ``losses`` yields each loss; whoever drives it (`contraverse.training.step`) back-propagates before
    resuming. Rules, each held by a test over every method: no ``yield`` inside a ``with``; exactly
    ``passes`` yields; after a yield a perturbation's ``.grad`` is read only scale-free; no earlier pass's
    graph is kept; only the engine zeroes, clips and steps.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    equation: ClassVar[str]
    needs: ClassVar[Literal["labels", "sentences", "pairs"]]
    """What a batch must hold: labels; sentences alone; or sentences with a ``positive``."""
    cost: str
    """Forward-units of one step, for example ``"7F"``."""
    passes: int = 1
    heads: Mapping[str, HeadSpec] = {}

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        raise NotImplementedError


class Ball(Protocol):
    """Where a perturbation may live, and how it climbs."""

    @property
    def rows_apart(self) -> bool:
        """Whether each row of a batch has a ball of its own, so that rows may come from different attacks."""
        ...

    def start(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """A first perturbation: a fresh leaf that requires grad, zero unless ``random``."""
        ...

    def ascend(self, delta: Tensor, grad: Tensor, inputs: Inputs) -> Tensor:
        """One step up ``grad``, projected back: a fresh leaf that requires grad."""
        ...


Evaluator = Callable[[Any], dict[str, float]]
"""``evaluator(model) -> {metric: value}``: holds its data, knows no trainer and no globals."""
