"""Forward passes in chunks of rows: activations of one chunk at a time, whatever the batch (gradient caching).

Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983), section
3.2: embed all rows without a graph, take the gradient of the loss at the embeddings, then run each chunk again with a
graph and send its part of that gradient back. Here a forward pass of the model does so by itself: a method calls the
model and yields its loss as ever, and an attack takes its gradient through the same pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from contraverse.attacks.dropout import RandomState
from contraverse.errors import UserError
from contraverse.models.modes import keeping_statistics, modes_of, moving_statistics_once, restored, setting
from contraverse.types import Batch, BNBranch, ForwardCalls, HeadCall, Model, Outputs, Wanted

Forward = Callable[..., Outputs]
Key = tuple[str, str | None]
"""A field of `Outputs`, and in it the name of a head."""


def chunked(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a model's ``forward``: passes of more than ``Model.chunk_rows`` rows run in chunks of at most so many.

    A call of one head alone is never divided: its inputs need not be rows.
    """

    @wraps(forward)
    def run(
        model: Model,
        batch: Batch | HeadCall | ForwardCalls,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        bn_branch: BNBranch = "clean",
    ) -> Any:
        if model.chunk_rows is not None and isinstance(batch, Mapping):
            wanted = (want,) if isinstance(want, str) else tuple(want)
            rows = len(batch["input_ids" if model.modality == "text" else "pixel_values"])
            if rows > model.chunk_rows and wanted != ("inputs",):
                return _run_chunks(forward, model, batch, delta, wanted, bn_branch, rows)
        return forward(model, batch, delta=delta, want=want, bn_branch=bn_branch)

    return run


@contextmanager
def chunking(modules: Sequence[nn.Module], rows: int | None) -> Iterator[None]:
    """Run the passes of every `Model` in ``modules``, wrapped or not, in chunks of at most ``rows`` rows inside.

    Raises:
        UserError: there is no such model, or its weights are split over processes (FSDP).
    """
    models = [part for module in modules for part in module.modules() if isinstance(part, Model)] if rows else []
    if rows and not models:
        raise UserError("only a TextModel or an ImageModel runs in chunks", where="contrast_chunk")
    if any(isinstance(weight, DTensor) for model in models for weight in model.parameters()):
        raise UserError(
            "chunks and weights that are split over processes (FSDP) do not go together", where="train.contrast_chunk"
        )
    with setting(models, "chunk_rows", rows):
        yield


def bounds_of(rows: int, most: int) -> list[slice]:
    """Divide ``rows`` rows into as few chunks of at most ``most`` as there can be, whose sizes differ by one at most.

    So no chunk has one row, of which batch norm takes no statistics, unless ``most`` is 1.
    """
    count = -(-rows // most)
    edges = [rows * i // count for i in range(count + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


@dataclass
class _Pass:
    """A forward pass in chunks, and all that it takes to run any chunk of it again."""

    forward: Forward
    model: Model
    tensors: dict[str, Tensor]
    """Tensors of the batch by name, and ``delta``; those of a row each are divided."""
    others: dict[str, Any]
    """Entries of the batch that are no tensors."""
    want: tuple[Wanted, ...]
    bn_branch: BNBranch
    rows: int
    chunks: list[slice]
    states: list[RandomState] = field(default_factory=list)
    """States of the generators before each chunk: the second run draws the dropout masks of the first."""
    keys: list[Key] = field(default_factory=list)
    weight_grads: list[Tensor | None] = field(default_factory=list)
    """Gradients of the weights, on their way from `_Embed` to `_Gate`."""

    def __post_init__(self) -> None:
        self.device = next(iter(self.tensors.values())).device
        kind = self.device.type
        casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if casts else None
        self.modes = modes_of(self.model)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]

        self.versions = self._versions()

    def _versions(self) -> list[int]:
        """Counts of the changes in place of all that a chunk is computed from."""
        return [tensor._version for tensor in (*self.tensors.values(), *self.weights)]

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast as it was around the pass."""
        if self.dtype is None:
            return nullcontext()
        # Without its cache: a cast of a weight that is made without a graph must not serve a pass that has one.
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)

    def part(self, tensor: Tensor, chunk: slice) -> Tensor:
        """Rows of a chunk; a tensor that is the same for all rows is not divided."""
        return tensor[chunk] if tensor.dim() and len(tensor) == self.rows else tensor

    def outputs_of(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs of one chunk, in the order of ``keys``."""
        batch: dict[str, Any] = {**self.others, **tensors}
        delta = batch.pop("delta", None)
        out = self.forward(self.model, batch, delta=delta, want=self.want, bn_branch=self.bn_branch)
        heads: Mapping[str, Tensor] = out.heads
        named: dict[Key, Tensor] = {(name, None): getattr(out, name) for name in out.requested if name not in heads}
        named |= {("heads", name): value for name, value in heads.items()}
        self.keys = list(named)
        return list(named.values())

    def first_run(self) -> list[Tensor]:
        """Outputs of all rows, without a graph; batch norm's running statistics move once."""
        parts = []
        with torch.no_grad(), self.autocast():
            for chunk in self.chunks:
                self.states.append(RandomState(self.device))
                later = (self.rows - chunk.stop) / self.rows
                with moving_statistics_once(self.model, (chunk.stop - chunk.start) / self.rows, later):
                    parts.append(
                        self.outputs_of({name: self.part(tensor, chunk) for name, tensor in self.tensors.items()})
                    )
        return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]

    def second_run(
        self, grads: Sequence[Tensor | None], names: Sequence[str], weights: Sequence[Tensor]
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Gradients of the tensors ``names`` and of ``weights``: each chunk again, with a graph of its own.

        Args:
            grads: of the loss at the outputs, in the order of ``keys``; None of one that the loss does not read.
            names: of ``tensors`` that require a gradient.
            weights: those whose gradient is asked for.

        Raises:
            RuntimeError: a tensor or a weight was changed in place since the first run, as autograd raises it.
        """
        if self.versions != self._versions():
            raise RuntimeError(
                "the weights or the inputs of a pass in chunks were changed in place before its backward"
            )
        undivided: list[Tensor | None] = [None] * len(names)
        divided: list[list[Tensor]] = [[] for _ in names]
        of_weights: list[Tensor | None] = [None] * len(weights)
        with restored(self.modes), keeping_statistics(self.model), torch.enable_grad():
            for chunk, state in zip(self.chunks, self.states, strict=True):
                tensors = {name: self.part(tensor, chunk).detach() for name, tensor in self.tensors.items()}
                leaves = [tensors[name].requires_grad_() for name in names]
                with state.again(), self.autocast():
                    outputs = self.outputs_of(tensors)
                pairs = [
                    (out, grad[chunk])
                    for out, grad in zip(outputs, grads, strict=True)
                    if grad is not None and out.requires_grad
                ]
                if not pairs:
                    continue
                outs, seeds = zip(*pairs, strict=True)
                of_chunk = torch.autograd.grad(outs, [*leaves, *weights], seeds, allow_unused=True)
                for i, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
                    if self.part(self.tensors[name], chunk) is self.tensors[name]:
                        undivided[i] = _sum(undivided[i], of_chunk[i])
                    else:
                        divided[i].append(torch.zeros_like(leaf) if of_chunk[i] is None else of_chunk[i])
                of_weights = list(map(_sum, of_weights, of_chunk[len(leaves) :]))
        of_names = [torch.cat(parts) if parts else total for parts, total in zip(divided, undivided, strict=True)]
        return of_names, of_weights


def _sum(total: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if total is None or grad is None:
        return grad if total is None else total
    return total + grad


class _Gate(torch.autograd.Function):
    """Puts the weights into the graph before `_Embed`.

    A node of its own, so that `_Embed` can see whether the gradient of the weights is asked for: an attack takes that
    of a perturbation alone. The weights get their gradients once a pass, as DDP expects it.
    """

    @staticmethod
    def forward(ctx: Any, run: _Pass, *weights: Tensor) -> Tensor:
        ctx.run = run
        return torch.zeros((), device=run.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.run.weight_grads = ctx.run.weight_grads, []
        return (None, *grads)


class _Embed(torch.autograd.Function):
    """The outputs of a pass; its backward pass runs each chunk again."""

    @staticmethod
    def forward(
        ctx: Any, run: _Pass, names: Sequence[str], gate: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.run, ctx.names = run, names
        ctx.set_materialize_grads(False)
        return tuple(run.first_run())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        run: _Pass = ctx.run
        # An attack asks for the gradient of its perturbation alone: then the gate is not on the way.
        reaches_gate = bool(run.weights) and torch._C._will_engine_execute_node(ctx.next_functions[0][0])
        of_names, run.weight_grads = run.second_run(grads, ctx.names, run.weights if reaches_gate else [])
        return None, None, torch.zeros((), device=run.device) if reaches_gate else None, *of_names


def _run_chunks(
    forward: Forward,
    model: Model,
    batch: Mapping[str, Any],
    delta: Tensor | None,
    want: tuple[Wanted, ...],
    bn_branch: BNBranch,
    rows: int,
) -> Outputs:
    assert model.chunk_rows is not None
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    others = {name: value for name, value in batch.items() if name not in tensors and not isinstance(value, Mapping)}
    if delta is not None:
        tensors["delta"] = delta
    # The place of a perturbation has no graph, and no size of a row's where it is the same for all of them.
    embedded = tuple(name for name in want if name != "inputs")
    run = _Pass(forward, model, tensors, others, embedded, bn_branch, rows, bounds_of(rows, model.chunk_rows))
    names = [name for name, tensor in tensors.items() if tensor.requires_grad]
    if torch.is_grad_enabled() and (names or run.weights):
        gate = _Gate.apply(run, *run.weights) if run.weights else None
        values = _Embed.apply(run, names, gate, *map(tensors.get, names))
    else:
        values = run.first_run()
    fields: dict[str, Any] = {name: value for (name, head), value in zip(run.keys, values, strict=True) if head is None}
    heads = {head: value for (_, head), value in zip(run.keys, values, strict=True) if head is not None}
    if "inputs" in want:
        fields["inputs"] = forward(model, batch, delta=None, want=("inputs",), bn_branch=bn_branch).inputs
    return Outputs(**fields, heads=heads)
