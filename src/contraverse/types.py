"""The few types that everything else is written against.

Letters in shapes: ``B`` rows of a batch, ``T`` tokens, ``D`` width of the perturbed input (a word embedding), ``H``
width of a hidden state, ``C`` classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

from torch import Tensor, nn

from contraverse.errors import UserError

Batch = Mapping[str, Any]
"""Batch of a collator: ``input_ids`` (B, T) and ``attention_mask`` (B, T), or ``pixel_values`` (B, C, H, W) in
[0, 1]; ``labels`` (B,), ``index`` (B,) (the row's number in its data set); ``positive`` and ``negative`` hold batches
of their own: of images ``positive`` is a second random view, of sentences what the data pairs with them."""

UNLABELLED = -100
"""The label of a row that has none: the one that torch's cross-entropy leaves out."""

BNBranch = Literal["clean", "adversarial"]
"""Batch-norm set of a dual model. Models without batch norm ignore it."""

Wanted = str
"""``"inputs"``, ``"embedded"``, ``"tokens"``, ``"h"``, ``"pooled"``, ``"z"``, ``"logits"``, or the name of a head."""


class Loss(NamedTuple):
    """One loss of a method: ``total`` is back-propagated by the driver, ``parts`` (detached) go to the log."""

    total: Tensor
    parts: dict[str, Tensor] = {}


class Inputs(NamedTuple):
    """Inputs that a perturbation is added to.

    ``values``: word embeddings (B, T, D) before position, type and layer norm, or pixels (B, C, H, W) before the
    normalisation. ``mask``, bool, broadcasts against them: True where a perturbation may live (False on padding).
    ``low`` and ``high``: bounds of the perturbed values, [0, 1] for pixels, none for embeddings.
    """

    values: Tensor
    mask: Tensor
    low: float | None = None
    high: float | None = None


NOT_REQUESTED: Any = None
"""Value of a field of `Outputs` that ``want`` does not name."""


class Outputs(NamedTuple):
    """Outputs of one forward pass: the fields that ``want`` names. Reading another one raises `UserError`.

    Attributes:
        logits: (B, C), of the classifier.
        z: (B, Z), of the projection head, for contrastive losses.
        h: (B, H), features: the hidden states of the tokens, pooled.
        pooled: (B, H), of the encoder's own pooler, which BERT's and ALBERT's classifiers read.
        tokens: (B, T, H), last hidden states.
        embedded: (B, T, H), input of the first layer, after position, type and layer norm.
        inputs: where a perturbation is added.
        heads: outputs of other heads by name.
    """

    logits: Tensor = NOT_REQUESTED
    z: Tensor = NOT_REQUESTED
    h: Tensor = NOT_REQUESTED
    pooled: Tensor = NOT_REQUESTED
    tokens: Tensor = NOT_REQUESTED
    embedded: Tensor = NOT_REQUESTED
    inputs: Inputs = NOT_REQUESTED
    heads: Mapping[str, Tensor] = {}

    def with_head(self, name: str, output: Tensor) -> "Outputs":
        """The same outputs and that of one more head."""
        return self._replace(heads={**self.heads, name: output})

    @property
    def requested(self) -> tuple[str, ...]:
        """Names of the fields and heads that there are."""
        fields = (name for name, value in zip(self._fields[:-1], self, strict=False) if value is not None)
        return (*fields, *self[-1])


class _Heads(dict[str, Tensor]):
    """Outputs of heads, with a helpful error for one that is not there."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__(outputs[-1])
        self.requested = outputs.requested

    def __missing__(self, name: str) -> Tensor:
        raise _not_requested(name, self.requested)


def _not_requested(name: str, requested: Sequence[str]) -> UserError:
    want = ", ".join(f'"{wanted}"' for wanted in (*requested, name))
    return UserError(f'"{name}" was not requested', hint=f"pass want=({want}{',' * (not requested)}) to the model")


def _field(place: int, name: str) -> property:
    def read(outputs: Outputs) -> Any:
        value = outputs[place]
        if value is None:
            raise _not_requested(name, outputs.requested)
        return value

    return property(read)


# In the place of the fields' own accessors. As a subclass or a dataclass, DDP and autocast would no longer find the
# tensors inside: they know named tuples.
for _place, _name in enumerate(Outputs._fields[:-1]):
    setattr(Outputs, _name, _field(_place, _name))
Outputs.heads = property(_Heads)  # type: ignore[assignment]


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
    """Forward passes of one loss, made in one call: ``clean, other = model(ForwardCalls((ForwardCall(x), ...)))``.

    After each call of the model DDP notes which parameters the next backward pass will reach: one call, one answer.
    """

    calls: tuple[ForwardCall, ...]

    def run(self, model: nn.Module) -> tuple[Outputs, ...]:
        """Outputs of ``model`` for each call."""
        # The class's own forward: a trainer wraps the model's into autocast, which entered twice is never left.
        forward = type(model).forward
        return tuple(
            forward(model, call.batch, delta=call.delta, want=call.want, bn_branch=call.bn_branch)
            for call in self.calls
        )


@dataclass(frozen=True)
class TrainingInfo:
    """Facts about the data and the model that a method may need before training, to shape its buffers."""

    num_examples: int
    """N, number of training rows; ``batch["index"]`` numbers them."""
    hidden_size: int = 0
    """H, width of the features; 0 before a model is built."""
    labels: Tensor | None = None
    """(N,), classes (integers) or scores (floats) of the rows; None without."""
    epochs: float | None = None
    """Length of training."""
    epoch_examples: int = 0
    """Rows of an epoch; 0 means N. Fewer where the last batch is dropped, more where processes pad their shares."""
    vocab_size: int | None = None
    """Tokens of the encoder; None for images, as the next two."""
    mask_id: int | None = None
    """Id of the mask token; None where the tokenizer has none."""
    special_ids: tuple[int, ...] = ()
    """Ids of the tokens that stand for no text."""


class Model(nn.Module):
    """Encoder and all heads: the one thing that is wrapped, optimised and saved."""

    dual: bool = False
    """True where every batch norm has two sets of statistics, one of which a forward pass names."""
    modality: ClassVar[Literal["text", "images"]]
    """Kind of data that the model reads."""
    labels: list[str] | None
    """Class names in the order of the logits; one name is a regression; None is an encoder without a classifier."""
    chunk_rows: int | None = None
    """Most rows whose activations a forward pass holds at once; None is all. See `contraverse.models.chunks`."""

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
        """Freeze everything below the classifier."""
        raise NotImplementedError


class Method(nn.Module):
    """A training method: settings and buffers only; it receives the model and never holds it, at most a frozen copy.

    ``losses`` yields each loss; the driver (`contraverse.training.step`) back-propagates before resuming. Rules, each
    held by a test over every method: no ``yield`` inside a ``with``; exactly ``passes`` yields; after a yield a
    perturbation's ``.grad`` is read only scale-free; no earlier loss's graph is kept; only the engine zeroes, clips and
    steps.

    Settings are annotated attributes of a class decorated with `contraverse.methods.settings`. All other attributes
    below have defaults: a method without any of them can be trained.
    """

    name: ClassVar[str]
    """Name on the command line and in files; by default the name of the class in lower case."""
    summary: ClassVar[str] = ""
    """One line for tables, at most 70 characters."""
    paper: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    requires: ClassVar[Literal["labels", "inputs", "pairs"]] = "labels"
    """Batches must hold labels; inputs alone; or inputs with a ``positive``."""
    modality: ClassVar[Literal["both", "text", "images"]] = "both"
    """Kinds of inputs that the method trains on."""
    trainable: ClassVar[Literal["all", "classifier"]] = "all"
    """Trainable part: everything, or only the classifier (linear probing; the trainer calls `Model.freeze_encoder`)."""
    image_views: ClassVar[Literal[1, 2]] = 1
    """Random views of each image in a batch; the second is ``positive``."""
    text_views: ClassVar[Literal[1, 2]] = 1
    """Views of each text with noise: 1, the noisy text in place of the clean one; 2, both, and ``noisy`` is a batch."""
    noisy_draws: int = 1
    """Noisy texts of each row in a batch, of which the method chooses one: more than 1 are in ``draws``, (n, B, T)."""
    uses_unlabelled: ClassVar[bool] = False
    """Rows without a label (`UNLABELLED`) are trained on too; other methods leave them out."""
    in_batch_negatives: ClassVar[bool] = False
    """Negatives of a row are other rows of its batch: of a batch of one row `step` raises, and `Trainer` makes none."""
    test_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Further settings for the shared tests, by the name of the test case: those that change the computation."""

    teacher: Literal["targets", "copy"] | None = None
    """Teacher that the method learns from.

    ``"targets"``: logits of all training rows given by `set_targets`, or without them the predictions of the model
    before training (UAT); ``"copy"``: that model itself, whatever it is (DeACL)."""
    stochastic: bool = False
    """A step draws random numbers even without dropout, for a random start or random negatives for example."""
    bn_branch: BNBranch = "clean"
    """Batch-norm branch that a dual model is measured by: the adversarial one where the method trains it."""
    cost: str = ""
    """Forward-units of one step, for example ``"7F"``."""
    cost_with_noise: str = ""
    """Forward-units of a step on batches with a ``noisy`` view; empty where they are those of ``cost``."""
    graphs: int = 1
    """Forward passes whose activations a step holds at once, at most; 0 of a frozen encoder that is not attacked."""
    gathered: int = 0
    """Tensors of features (B, width of z or h) that a step gathers from all processes, those of attacks included."""
    passes: int = 1
    """Number of losses that the next step yields; read once a step, so it may be a property of the buffers."""
    heads: Mapping[str, HeadSpec] = {}
    """Heads that the model must have, by name."""
    needs_reference_model: bool = False
    """A frozen copy of the model is needed, as a momentum average or as a teacher: see `set_reference_model`."""
    reference_mode: ClassVar[Literal["eval", "train"]] = "eval"
    """Mode of that copy. In training mode batch norm uses the statistics of each batch, and dropout is on."""
    augmentation_strength: float | None = None
    """Strength of the next step's image views, in [0, 1]; None keeps the views as configured. May be a property."""

    complete: bool = True
    """True once a step has had every term of the loss; may be a property of the buffers.

    For a method with a term that starts late, no model from before it is kept as the best, and early stopping counts
    from there."""

    notes: tuple[str, ...] = ()
    """Notes for the user about this method on this data; set by `prepare`, printed and kept with the run."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()

    def setup(self) -> None:
        """Build balls, heads and buffers from the settings; called once they are set and checked.

        For classes decorated with `contraverse.methods.settings`, in the place of ``__init__``. A subclass calls
        ``super().setup()`` first.

        Raises:
            UserError: the settings do not go together.
        """

    def check_data(self, training_info: TrainingInfo) -> None:
        """Refuse rows that the method cannot train on; called by `prepare`, and before that without a model.

        Raises:
            UserError: for example, the labels are scores where the method needs classes.
        """

    def check_image_size(self, height: int, width: int) -> None:
        """Refuse images of a size that the method cannot train on; called before the model is loaded.

        Raises:
            UserError: the size in pixels does not fit.
        """

    def prepare(self, training_info: TrainingInfo) -> None:
        """Create the buffers that depend on the data or the model. Called once before training, on the CPU.

        A subclass calls ``super().prepare(training_info)`` first, which is `check_data`.
        """
        self.check_data(training_info)

    def set_targets(self, logits: Tensor, labelled: Tensor | None = None) -> None:
        """Set the predictions of a teacher before training, for a method whose ``teacher`` is ``"targets"``.

        Args:
            logits: (N, C), row i for training row i.
            labelled: (N,) bool, rows whose labels may be read; None: all that have one.
        """
        raise NotImplementedError(f"{self.name} learns from no teacher's predictions")

    def set_reference_model(self, copy: nn.Module) -> None:
        """Keep ``copy`` as the frozen ``reference_model``. Called once before training if `needs_reference_model`.

        Args:
            copy: a copy of the model, owned by the method from here on. Its gradients are switched off, it stays in
                `reference_mode`, and it is saved with the method's state.
        """
        self.reference_model = copy.requires_grad_(False).train(self.reference_mode == "train")

    def train(self, mode: bool = True) -> Self:
        """Switch modes as any module does; the reference model stays in its own."""
        super().train(mode)
        if "reference_model" in self._modules:
            self.reference_model.train(self.reference_mode == "train")
        return self

    def kept_model(self, model: nn.Module) -> nn.Module:
        """Network to measure, select, save and export: ``model``, unless the paper keeps an average, of the same type.

        Called at each evaluation and after training.
        """
        return model

    def after_step(self, model: nn.Module) -> None:
        """Update averages after each step of the optimizer; ``model`` is the model itself, without wrappers."""

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        """Yield the losses of one step; each is back-propagated before the next is computed."""
        raise NotImplementedError


class Ball(Protocol):
    """Set of allowed perturbations, and steps within it."""

    @property
    def per_example(self) -> bool:
        """True where each row of a batch has a ball of its own, so that rows may come from different attacks."""
        ...

    def init(self, inputs: Inputs, *, random: bool = False) -> Tensor:
        """A first perturbation: a fresh leaf that requires grad, zero unless ``random``."""
        ...

    def step(self, delta: Tensor, grad: Tensor, inputs: Inputs) -> Tensor:
        """One step up ``grad``, projected back: a fresh leaf that requires grad."""
        ...


Evaluator = Callable[[Any], dict[str, float]]
"""``evaluator(model) -> {metric: value}``: holds its data, knows no trainer and no globals."""
