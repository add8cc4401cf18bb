"""The few types that everything else is written against.

Letters used in shapes throughout: ``B`` rows of a batch, ``T`` tokens, ``D`` width of the perturbed
input (a word embedding), ``H`` width of a hidden state, ``C`` classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

from torch import Tensor, nn

Batch = Mapping[str, Any]
"""What the collator makes: ``input_ids`` (B, T) and ``attention_mask`` (B, T), or ``pixel_values`` (B, C, H, W) in
[0, 1]; ``labels`` (B,), ``index`` (B,) (the row's number in its data set); ``positive`` and ``negative`` hold batches
of their own: of images ``positive`` is a second random view, of sentences what the data pairs with them."""

UNLABELLED = -100
"""The label of a row that has none: the one that torch's cross-entropy leaves out."""

BNBranch = Literal["clean", "adversarial"]
"""Which set of batch-norm statistics a dual-BN model uses. Models without batch norm ignore it."""

Wanted = str
"""``"inputs"``, ``"embedded"``, ``"tokens"``, ``"h"``, ``"pooled"``, ``"z"``, ``"logits"``, or the name of a head."""


class Loss(NamedTuple):
    """One loss of a method: ``total`` is back-propagated by the driver, ``parts`` (detached) go to the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Inputs(NamedTuple):
    """Where a perturbation is added.

    ``values``: word embeddings (B, T, D) before position, type and layer norm, or pixels (B, C, H, W) before the
    normalisation. ``mask``, bool, broadcasts against them: True where a perturbation may live (False on padding).
    ``low`` and ``high``: bounds of the perturbed values, [0, 1] for pixels, none for embeddings.
    """

    values: Tensor
    mask: Tensor
    low: float | None = None
    high: float | None = None


class Outputs(NamedTuple):
    """What one forward pass gives; a field is None unless it was asked for in ``want``.

    ``inputs``: what is perturbed. ``embedded`` (B, T, H): what the first layer reads, after position, type and layer
    norm. ``tokens`` (B, T, H): last hidden states. ``h`` (B, H): features, pooled over the
    tokens. ``pooled`` (B, H): what the encoder's own pooler makes of them, which BERT's and ALBERT's classifiers read.
    ``z`` (B, Z): the projection head's output, for contrastive losses. ``logits`` (B, C). ``heads``: what other heads
    gave, by name.
    """

    logits: Tensor | None = None
    z: Tensor | None = None
    h: Tensor | None = None
    pooled: Tensor | None = None
    tokens: Tensor | None = None
    embedded: Tensor | None = None
    inputs: Inputs | None = None
    heads: Mapping[str, Tensor] = {}

    def with_head(self, name: str, output: Tensor) -> "Outputs":
        """The same outputs and that of one more head."""
        return self._replace(heads={**self.heads, name: output})


@dataclass(frozen=True)
class HeadSpec:
    """A head that a method needs on the model; `contraverse.models.heads` says what each ``kind`` reads and gives.

    ``dim``: width of what it gives, None for the encoder's own. ``activation``: of a projection. ``layers``: of an mlp
    or of the attention over patches.
    """

    dim: int | None = None
    activation: Literal["tanh", "none"] = "tanh"
    kind: Literal["projection", "pooler", "mlp", "mlm", "critic", "ngrams", "patches"] = "projection"
    layers: int = 3


class HeadCall(NamedTuple):
    """Run one head on a pass that was made already, in its graph: ``model(HeadCall("critic", (a, b), out))``.

    The pass comes back with ``heads[head]`` added. It goes through the model's forward, so that a wrapper (DDP)
    sees which parameters a step uses.
    """

    head: str
    inputs: tuple[Tensor, ...]
    outputs: Outputs


class ForwardCall(NamedTuple):
    """One forward pass: what `Model.forward` takes."""

    batch: Batch | HeadCall
    delta: Tensor | None = None
    want: Sequence[Wanted] = ("logits",)
    bn_branch: BNBranch = "clean"


class ForwardCalls(NamedTuple):
    """ForwardCalls that one loss needs, made in one call: ``clean, adversarial = model(ForwardCalls((Pass(x), Pass(x,
    delta))))``.

    DDP asks after each call of the model which parameters the next backward pass will reach. Two calls by different
    routes would be one question too many.
    """

    calls: tuple[ForwardCall, ...]

    def run(self, model: nn.Module) -> tuple[Outputs, ...]:
        """What ``model`` gives in each."""
        # The class's own forward: a trainer wraps the model's into autocast, which entered twice is never left.
        forward = type(model).forward
        return tuple(
            forward(model, one.batch, delta=one.delta, want=one.want, bn_branch=one.bn_branch) for one in self.calls
        )


@dataclass(frozen=True)
class TrainingInfo:
    """What a method may need to know before training, to give its buffers their shape.

    ``num_examples``: N, how many training rows there are, numbered by ``batch["index"]``. ``hidden_size``: H.
    ``labels`` (N,): their classes or scores, None without. ``epochs``: how many training has. ``epoch_examples``: rows
    of an epoch, 0 for N: fewer where the last batch is left out, more where several processes fill it up.
    ``vocab_size``: how many tokens the encoder knows, of which ``mask_id`` stands for a hidden one and ``special_ids``
    for no text at all; these are left out by models that read none.
    """

    num_examples: int
    hidden_size: int
    labels: Tensor | None = None
    epochs: float | None = None
    epoch_examples: int = 0
    vocab_size: int | None = None
    mask_id: int | None = None
    special_ids: tuple[int, ...] = ()


class Model(nn.Module):
    """Encoder and all heads: the one thing that is wrapped, optimised and saved."""

    dual: bool = False
    """True where every batch norm has two sets of statistics, one of which a forward pass names."""

    def forward(
        self,
        batch: Batch | HeadCall | ForwardCalls,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        bn_branch: BNBranch = "clean",
    ) -> Outputs | tuple[Outputs, ...]:
        """Run the network once on ``batch``, with ``delta`` (shape of ``inputs.values``) added to its inputs.

        Of `ForwardCalls` it gives the outputs of each, in their order.
        """
        raise NotImplementedError

    def add_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        """Add the heads that a method names and the model does not have yet."""
        raise NotImplementedError

    def freeze_encoder(self) -> None:
        """What lies below the classifier is not trained any more."""
        raise NotImplementedError


class Method(nn.Module):
    """A training method: settings and buffers only; it is given the model and never holds it, at most a frozen copy.

    ``losses`` yields each loss; whoever drives it (`contraverse.training.step`) back-propagates before
    resuming. Rules, each held by a test over every method: no ``yield`` inside a ``with``; exactly
    ``passes`` yields; after a yield a perturbation's ``.grad`` is read only scale-free; no earlier loss's
    graph is kept; only the engine zeroes, clips and steps.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    equation: ClassVar[str]
    requires: ClassVar[Literal["labels", "inputs", "pairs"]]
    """What a batch must hold: labels; inputs alone; or inputs with a ``positive``."""
    modality: ClassVar[Literal["both", "text", "images"]] = "both"
    """What it trains on."""
    trainable: ClassVar[Literal["all", "classifier"]] = "all"
    """What of the model is trained; with ``"classifier"``, whoever sets up training calls `Model.freeze_encoder`."""
    uses_unlabelled: ClassVar[bool] = False
    """True where rows without a label are trained on beside labelled ones; otherwise they are left out."""
    teacher: Literal["targets", "copy"] | None = None
    """Teacher that it learns from: logits of all training rows (`set_targets`), or of the model as it starts where none
    are given; or a frozen copy of the model as it starts, whatever that is."""
    image_views: ClassVar[Literal[1, 2]] = 1
    """How many random views of an image a batch holds; the second one is ``positive``."""
    bn_branch: BNBranch = "clean"
    """Which set of a dual model's batch norms it is measured by: the adversarial one where the method trains that."""
    cost: str
    """Forward-units of one step, for example ``"7F"``."""
    passes: int = 1
    """How many losses the next step yields; read once a step, so it may be a property of the buffers."""
    heads: Mapping[str, HeadSpec] = {}
    needs_reference_model: bool = False
    """Whether it needs a frozen copy of the model, for a momentum average or as a teacher: see
    `set_reference_model`."""
    reference_mode: ClassVar[Literal["eval", "train"]] = "eval"
    """Mode of that copy. In training mode batch norm takes the statistics of each batch, and dropout is on."""
    augmentation_strength: float | None = None
    """How strong the next step's views of images are, in [0, 1]; None: as the views were set up. May be a property."""

    complete: bool = True
    """Whether a step up to now had every term of the loss; may be a property of the buffers. Of a method with a term
    that starts late, no model from before it is kept as the best, and patience counts from there."""

    notes: tuple[str, ...] = ()
    """What a user should know of this method on these data; set by `prepare`, shown and kept with the run."""

    def check_image_size(self, height: int, width: int) -> None:
        """Called before the model is loaded; refuse images of a size that the method cannot train on.

        Raises:
            UserError: so it is.
        """

    def set_targets(self, logits: Tensor, labelled: Tensor | None = None) -> None:
        """Called once before training where ``teacher`` is ``"targets"`` and a trained teacher is at hand.

        Args:
            logits: (N, C), of all training rows.
            labelled: (N,) bool, rows whose labels may be read.
        """
        raise NotImplementedError

    def prepare(self, training_info: TrainingInfo) -> None:
        """Called once before training, on the CPU; buffers that depend on the data or the model are made here."""

    def set_reference_model(self, copy: nn.Module) -> None:
        """Called once before training where `needs_reference_model` says so, with a copy of the model that is the
        method's own.

        It is kept as ``reference_model``: in the mode that `reference_mode` names, without gradients, saved with the
        method's state.
        """
        self.reference_model = copy.requires_grad_(False).train(self.reference_mode == "train")

    def train(self, mode: bool = True) -> Self:
        """As of any module; the copy stays in its own mode."""
        super().train(mode)
        if "reference_model" in self._modules:
            self.reference_model.train(self.reference_mode == "train")
        return self

    def kept_model(self, model: nn.Module) -> nn.Module:
        """The network that training is for, which is measured, chosen by, saved and exported: ``model`` itself, the one
        that is trained, unless the method averages it into a copy that its paper keeps in its place.

        Whoever sets up training asks for it at each evaluation and in the end. It has the type of ``model``.
        """
        return model

    def after_step(self, model: nn.Module) -> None:
        """Called after each step of the optimizer, with the model itself and not what wraps it."""

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        raise NotImplementedError


class Ball(Protocol):
    """Where a perturbation may live, and how it climbs."""

    @property
    def per_example(self) -> bool:
        """Whether each row of a batch has a ball of its own, so that rows may come from different attacks."""
        ...

    def init(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """A first perturbation: a fresh leaf that requires grad, zero unless ``random``."""
        ...

    def step(self, delta: Tensor, grad: Tensor, inputs: Inputs) -> Tensor:
        """One step up ``grad``, projected back: a fresh leaf that requires grad."""
        ...


Evaluator = Callable[[Any], dict[str, float]]
"""``evaluator(model) -> {metric: value}``: holds its data, knows no trainer and no globals."""
