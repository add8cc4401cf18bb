"""Any Hugging Face encoder that takes ``inputs_embeds``, with a perturbation added to its word embeddings."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from contraverse.errors import UserError
from contraverse.models import encoding, opening, own, predicting, storage
from contraverse.models.adapters import Adapter
from contraverse.models.chunks import chunked
from contraverse.models.encoding import Pooling, check_pooling, cutting, pool, run_encoder
from contraverse.models.heads import build_head, find_head, grown, own_pooler
from contraverse.models.inputs import TokenReport, count_tokens
from contraverse.models.loading import Origin
from contraverse.models.opening import positions_of
from contraverse.models.postprocess import Postprocess
from contraverse.models.tail import Tail
from contraverse.types import (
    NOT_REQUESTED,
    Batch,
    BNBranch,
    ForwardCalls,
    HeadCall,
    HeadSpec,
    Inputs,
    Outputs,
    Wanted,
)

Embedding = Literal["h", "z", "ngrams"]
Dtype = Literal["float32", "bfloat16", "float16"]
CHECKPOINTING = "train.gradient_checkpointing"
UNBOUNDED = 512
"""Tokens that `TextModel.encode` takes of a text where neither tokenizer nor encoder names a limit."""


class TextModel(predicting.Predictor):
    """A Hugging Face encoder, its classifier (where there are labels) and the projection head ``z``.

    The classifier is Hugging Face's own ``AutoModelForSequenceClassification`` head, so that a saved model
    gives the same logits in plain transformers. Build one with `from_pretrained` or `load`.

    Attributes:
        encoder: the Hugging Face model, classifier included.
        tokenizer: its fast tokenizer, padding on the right.
        labels: class names in the order of the logits; one name is a regression; None is a sentence encoder.
        pooling: makes ``h`` of the tokens' hidden states: see `contraverse.models.encoding.pool`.
        embedding: output that `encode` returns: ``"h"``; ``"z"`` (SimCSE's "keep the pooler at test"); or ``"ngrams"``,
            the mean over real tokens of the output of the head of that name (IS-BERT).
        max_length: tokens at which training and prediction cut an input; `encode` does not.
        postprocess: a whitening or a flow that `encode` applies to its embeddings, or None; training ignores it.
        tail: dense layers and normalisations of a sentence-transformers folder, applied by `encode` before
            ``postprocess``, or None; training ignores them.
        prompts: texts by name that `encode` sets before each sentence; ``default_prompt`` names the one that is set by
            default.
        detector: threshold by which `predict` decides for one class, or None: the most probable class is taken.
        reads_last: True for a decoder's classifier, which reads the last token that is no padding.
        adapter: adapters of peft in the encoder, which are trained in its place, or None.
        notes: decisions of loading, in sentences for a reader.
    """

    modality = "text"

    def __init__(
        self,
        encoder: PreTrainedModel,
        tokenizer: Any,
        *,
        labels: Sequence[str] | None = None,
        pooling: Pooling = "cls",
        embedding: Embedding = "h",
        max_length: int = 128,
    ) -> None:
        super().__init__()
        check_pooling(pooling)
        if embedding not in get_args(Embedding):
            raise UserError(f"no embedding is called {embedding!r}", hint=f"known: {', '.join(get_args(Embedding))}")
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.labels = list(labels) if labels is not None else None
        self.pooling: Pooling = pooling
        self.embedding: Embedding = embedding
        self.max_length = max_length
        self.postprocess: Postprocess | None = None
        self.drawn: frozenset[str] = frozenset()  # names of weights that the checkpoint did not have
        self.tail: Tail | None = None
        self.prompts: dict[str, str] = {}
        self.default_prompt: str | None = None
        self.reads_last = False
        self.adapter: Adapter | None = None
        self.trust_remote_code = False
        self.notes: list[str] = []
        self.heads = nn.ModuleDict()
        self.head_specs: dict[str, HeadSpec] = {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "minilm",
        *,
        labels: Sequence[str] | None = None,
        pooling: Pooling | None = None,
        embedding: Embedding = "h",
        max_length: int | None = None,
        keep_layers: int | None = None,
        reinit_layers: int = 0,
        peft: str | Mapping[str, Any] | None = None,
        dtype: Dtype = "float32",
        attn_implementation: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a Hub name, a folder, or ``"minilm"``: all-MiniLM-L6-v2, which arrives with the installation.

        Everything is tried on a tiny batch before it is returned: see `contraverse.models.opening`.

        Args:
            name_or_path: the encoder.
            labels: class names, for a classifier; None for a sentence encoder. A classifier of other classes that is
                there is not taken: one for ``labels`` is drawn at random, with a warning.
            pooling: see the class; None for ``"cls"``, and ``"last"`` in a decoder.
            embedding: see the class.
            max_length: see the class; None for 128. It is lowered to the positions that the encoder has.
            keep_layers: use only the lower ones.
            reinit_layers: draw this many of the last layers anew.
            peft: train adapters in place of the encoder's weights, ``"lora"`` or ``{"type": "lora", "r": 8}``: see
                `contraverse.models.adapters.add_adapter`. None trains all weights.
            dtype: of the weights.
            attn_implementation: transformers' name of an attention, for example ``"eager"``; None for its default.
            revision: branch, tag or commit on the Hub.
            token: for a private Hub repository.
            trust_remote_code: run the Python files that come with the model. Only for authors whom you trust.

        Raises:
            UserError: no such model, it is damaged or no encoder for text, it cannot be attacked, or a count of layers
                that it does not have.
        """
        model = opening.open_model(
            cls,
            Origin(str(name_or_path), trust_remote_code, revision, token, dtype, attn_implementation),
            labels,
            pooling=pooling,
            embedding=embedding,
            max_length=max_length,
            keep_layers=keep_layers,
            reinit_layers=reinit_layers,
            peft=peft,
        )
        assert isinstance(model, cls)
        for note in model.notes:
            warnings.warn(note, stacklevel=2)
        return model

    @classmethod
    def from_transformers(
        cls,
        network: PreTrainedModel,
        tokenizer: Any,
        *,
        labels: Sequence[str] | None = None,
        max_length: int | None = None,
    ) -> Self:
        """A classifier that transformers has loaded already, in eval mode; its weights are shared, not copied.

        Args:
            network: an ``...ForSequenceClassification``.
            tokenizer: its tokenizer, of which a copy is kept.
            labels: class names in the order of the logits; None for those of the network's ``config.id2label``.
            max_length: see the class; None for all tokens that the network can take.

        Raises:
            UserError: another network or no tokenizer, or one that cannot be attacked: see `from_pretrained`.
        """
        model = own.text_model(cls, network, tokenizer, labels, max_length)
        assert isinstance(model, cls)
        return model

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder.device

    @property
    def width(self) -> int:
        """H, the width of a hidden state."""
        return int(self.encoder.config.hidden_size)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """(V, D): how many tokens the encoder knows, and the width of their embeddings."""
        table = self.encoder.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        return table.shape[0], table.shape[1]

    @property
    def positions(self) -> int | None:
        """Number of position embeddings; None for relative positions."""
        return positions_of(self.encoder)

    @property
    def max_seq_length(self) -> int:
        """The most tokens that the encoder can take."""
        limits = (self.positions, getattr(self.encoder.config, "max_position_embeddings", None), UNBOUNDED)
        return int(min(self.tokenizer.model_max_length, next(limit for limit in limits if limit)))

    def add_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        for name, spec in heads.items():
            if name not in self.heads:
                std = getattr(self.encoder.config, "initializer_range", 0.02)
                if spec.kind == "pooler":
                    self._check_pooler()
                head = grown(build_head(spec, self.width, embedding_shape=self.embedding_shape, std=std), self.encoder)
                self.heads[name] = head.to(self.device, self.encoder.dtype).train(self.training)
                self.head_specs[name] = spec

    def freeze_encoder(self) -> None:
        self.encoder.base_model.requires_grad_(False)

    @chunked
    def forward(
        self,
        batch: Batch | HeadCall | ForwardCalls,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        bn_branch: BNBranch = "clean",
    ) -> Outputs | tuple[Outputs, ...]:
        """Run the encoder once.

        Args:
            batch: ``input_ids`` (B, T), ``attention_mask`` (B, T), and ``token_type_ids`` where the encoder has them;
                ``keep`` multiplies what the first layer reads, after position, type and layer norm, and broadcasts to
                (B, T, H), for views that cut some of it off; or a call of one head on a pass that was made; or several
                passes, each with arguments of its own.
            delta: (B, T, D), added to the word embeddings, before position, type and layer norm.
            want: any of ``"inputs"``, ``"embedded"``, ``"tokens"``, ``"h"``, ``"pooled"``, ``"z"``, ``"logits"``, and
                names of heads.
            bn_branch: ignored: text encoders have no batch norm.

        Raises:
            ValueError: a head is wanted that the model does not have, logits of a sentence encoder, or the pooler of
                an encoder without one.
        """
        if isinstance(batch, ForwardCalls):
            return batch.run(self)
        if isinstance(batch, HeadCall):
            return batch.outputs.with_head(batch.head, self._call(batch.head, *batch.inputs))
        want = (want,) if isinstance(want, str) else want
        ids, mask = batch["input_ids"], batch["attention_mask"]
        arguments: dict[str, Any] = {"attention_mask": mask}
        if "token_type_ids" in batch:
            arguments["token_type_ids"] = batch["token_type_ids"]
        inputs = NOT_REQUESTED
        if delta is None and "inputs" not in want:
            arguments["input_ids"] = ids
        else:
            embeddings = self.encoder.get_input_embeddings()(ids)
            inputs = Inputs(embeddings.detach(), mask.bool().unsqueeze(-1)) if "inputs" in want else NOT_REQUESTED
            if len(want) == 1 and inputs is not NOT_REQUESTED:
                return Outputs(inputs=inputs)
            arguments["inputs_embeds"] = embeddings if delta is None else embeddings + delta

        if "embedded" in want:
            arguments["output_hidden_states"] = True
        with cutting(self.encoder, batch.get("keep")):
            out, logits = run_encoder(self, ids, arguments, logits="logits" in want)
        tokens, pooled = out.last_hidden_state, out.get("pooler_output")
        if "pooled" in want and pooled is None:
            raise UserError(f"a {type(self.encoder).__name__} has no pooler", hint="take h, its pooled tokens")
        h = pool(tokens, mask, self.pooling, out.get("hidden_states"))
        return Outputs(
            logits=logits,
            z=self._project(h, pooled) if "z" in want else NOT_REQUESTED,
            h=h if "h" in want else NOT_REQUESTED,
            pooled=pooled if "pooled" in want else NOT_REQUESTED,
            tokens=tokens if "tokens" in want else NOT_REQUESTED,
            embedded=out.hidden_states[0] if "embedded" in want else NOT_REQUESTED,
            inputs=inputs,
            heads={name: self._read(name, tokens, mask, h) for name in want if name not in Outputs._fields},
        )

    def _check_pooler(self) -> None:
        """Raises UserError where the encoder has no pooler, or the checkpoint no weights for it."""
        own_pooler(self.encoder)
        if any("pooler" in name.split(".") for name in self.drawn):
            raise UserError(
                "the checkpoint has no weights for the encoder's pooler, which would be drawn at random",
                where="method.projection",
                hint="use projection=new",
            )

    def _project(self, h: Tensor, pooled: Tensor | None) -> Tensor:
        head, reads = find_head(self.heads, "z"), pooled if self.head_specs["z"].kind == "pooler" else h
        z: Tensor = head(reads)
        return z

    def _read(self, name: str, tokens: Tensor, mask: Tensor, h: Tensor) -> Tensor:
        """Output of a head other than z, on the inputs of its kind."""
        reads: dict[str, tuple[Tensor, ...]] = {"mlm": (tokens,), "ngrams": (tokens, mask)}
        find_head(self.heads, name)
        return self._call(name, *reads.get(self.head_specs[name].kind, (h,)))

    def _call(self, name: str, *inputs: Tensor) -> Tensor:
        """Run a head on its inputs; one that predicts tokens reads the word embeddings, too."""
        head = find_head(self.heads, name)
        table = [self.encoder.get_input_embeddings().weight] if self.head_specs[name].kind == "mlm" else []
        outputs: Tensor = head(*inputs, *table)
        return outputs

    def encode(self, sentences: Iterable[str], batch_size: int = 64, *, prompt: str | None = None) -> np.ndarray:
        """Sentence embeddings, (N, H) float32 in the order given, in eval mode; after ``tail`` and ``postprocess``.

        Sentences are taken whole, up to `max_seq_length`: ``max_length`` is what training cuts at (USCAL: 32 tokens).

        Args:
            sentences: a list, an array, a pandas column.
            batch_size: sentences at a time.
            prompt: name of the one of ``prompts`` that is set before each; None for ``default_prompt``.

        Raises:
            UserError: ``sentences`` is one string or a table, a sentence is no text, no prompt has this name, or an
                embedding is not finite.
        """
        return encoding.encode(self, sentences, batch_size, prompt)

    def _logits(self, inputs: Any, batch_size: int, bn_branch: BNBranch) -> np.ndarray:
        return predicting.predict_texts(self, inputs, batch_size)

    def token_report(self, texts: Sequence[str | Sequence[str]], max_length: int | None = None) -> TokenReport:
        """Count the ``texts`` that are cut, their tokens, and those that the tokenizer does not know.

        Args:
            texts: one text a row, or two or three, which are read as training reads them.
            max_length: tokens at which a row is cut; None for the model's own.
        """
        return count_tokens(self.tokenizer, texts, max_length or self.max_length)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **others: Any
    ) -> None:
        """Recompute layers in the backward pass in the place of keeping their outputs; called by the trainer.

        Never reentrant: that form gives no gradient to a perturbation.

        Raises:
            UserError: the encoder cannot, or reentrant checkpointing is asked for.
        """
        if (activation_checkpointing_kwargs or {}).get("use_reentrant"):
            raise UserError("reentrant checkpointing gives no gradients to inputs", where=CHECKPOINTING)
        try:
            self.encoder.activation_checkpointing_enable({"use_reentrant": False}, **others)
        except ValueError as error:
            what = f"a {type(self.encoder).__name__} cannot recompute its layers"
            raise UserError(what, where=CHECKPOINTING) from error

    def activation_checkpointing_disable(self) -> None:
        """Keep the outputs of all layers again."""
        self.encoder.activation_checkpointing_disable()

    def save(self, folder: str | Path) -> Path:
        """Write a folder that plain transformers loads (a classifier) or SentenceTransformer does (no labels).

        Holds the weights as safetensors, the tokenizer, and ``contraverse.json`` with ``heads.safetensors``
        for `load`. The folder appears whole or not at all; a model that is there is replaced.

        Raises:
            UserError: ``folder`` holds something else.
        """
        return storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, trust_remote_code: bool = False) -> Self:
        """Read what `save` wrote, or any plain transformers or sentence-transformers folder.

        Raises:
            UserError: the folder holds no model, a damaged one, or one that cannot be attacked.
        """
        model = storage.load(Path(folder), cls, trust_remote_code=trust_remote_code)
        assert isinstance(model, cls)
        return model
