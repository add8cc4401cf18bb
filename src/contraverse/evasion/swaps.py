"""Words substituted under the rules of `contraverse.evaluation.adversaries`, without a head of RAR's."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from contraverse.evaluation.adversaries.judging import Comparer
from contraverse.evaluation.adversaries.rewriting import Vocabulary, check_fast
from contraverse.evaluation.adversaries.substitutes import Substitutes
from contraverse.evasion.changes import Change, Span
from contraverse.evasion.search import Node
from contraverse.models import TextModel

CANDIDATES = 20
"""Substitutes of one word that are tried."""


class Source(Protocol):
    """Where substitutes come from."""

    tokenizer: Any
    max_length: int
    words: Substitutes

    def candidates(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """Give for each position of a text's tokens that may change the tokens to put there, the likeliest first."""
        ...


class FromEmbeddings:
    """The words whose embeddings lie nearest, in any encoder's table: the classifier's own, or another's."""

    def __init__(self, model: TextModel, count: int = CANDIDATES) -> None:
        check_fast(model.tokenizer)
        table = model.encoder.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        self.tokenizer, self.max_length, self.count = model.tokenizer, model.max_length, count
        self.words = Substitutes(Vocabulary(model.tokenizer, model.embedding_shape[0]), table)

    def candidates(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """Give the nearest; see `Source`."""
        return {at: self.words.nearest(ids[at], self.count) for at in self.words.places(list(ids))}


class FromMaskedLM:
    """The words that a masked language model thinks likeliest in a place, the word itself unmasked (Li et al., 2020).

    Args:
        model: a masked language model of transformers, in eval mode.
        tokenizer: its fast tokenizer.
        max_length: tokens of a text that it reads.
        count: likeliest tokens of a place that are looked through.
    """

    def __init__(self, model: Any, tokenizer: Any, max_length: int = 128, count: int = 2 * CANDIDATES) -> None:
        check_fast(tokenizer)
        self.model, self.tokenizer, self.max_length, self.count = model.eval(), tokenizer, max_length, count
        table = model.get_input_embeddings().weight
        self.words = Substitutes(Vocabulary(tokenizer, len(table)), table, least=-1.0)

    @torch.no_grad()
    def candidates(self, ids: Sequence[int]) -> dict[int, list[int]]:
        """Give the likeliest; see `Source`."""
        places = self.words.places(list(ids))
        if not places:
            return {}
        tokens = torch.tensor([list(ids)], device=self.model.device)
        logits = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0, places]  # (P, V)
        likeliest = logits.float().topk(min(self.count, logits.shape[-1])).indices.tolist()
        fit = {at: set(self.words.of(ids[at]).tolist()) for at in places}
        return {at: [token for token in row if token in fit[at]] for at, row in zip(places, likeliest, strict=True)}


class Swaps:
    """At most w words substituted: content words by others of the same inflection that are no forms of them.

    A text counts where it is close to its original by `Closeness`: in its sentence embedding, in each changed word in
    its context, and in the opinion of a linear classifier on the embeddings. The rules are for English.

    Args:
        source: where substitutes come from.
        comparer: what counts as close, for rows by their numbers.
    """

    name, unit, ranked = "swap-words", "words", True

    def __init__(self, source: Source, comparer: Comparer) -> None:
        self.source, self.comparer = source, comparer
        self._known: dict[str, dict[Span, list[Change]]] = {}

    def places(self, node: Node, seen: int) -> list[Span]:
        """List the words that have a substitute, but for those that are one."""
        options = self._options(node.text)
        return [span for span, changes in options.items() if span.end <= seen and changes and span not in node.locked]

    def changes(self, node: Node, place: Span) -> list[Change]:
        """List the substitutes of a word."""
        return self._options(node.text)[place]

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        """List the substitute."""
        return (Span(change.start, change.start + len(change.new)),)

    def admits(self, row: int, texts: Sequence[str]) -> list[bool]:
        """Tell which texts are close."""
        return [result.close for result in self.comparer([(row, text) for text in texts])]

    def _options(self, text: str) -> dict[Span, list[Change]]:
        """Substitutes of each word of ``text``, by its span."""
        if text not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            encoded = self.source.tokenizer(
                text, truncation=True, max_length=self.source.max_length, return_offsets_mapping=True, verbose=False
            )
            vocabulary = self.source.words.vocabulary
            options: dict[Span, list[Change]] = {}
            for at, tokens in self.source.candidates(encoded["input_ids"]).items():
                start, end = encoded["offset_mapping"][at]
                start += len(text[start:end]) - len(text[start:end].lstrip())
                spliced = (vocabulary.splice(text, {at: token}, self.source.max_length) for token in tokens)
                tail = len(text) - end
                changes = [Change(start, end, new[start : len(new) - tail]) for new in spliced if new != text]
                options[Span(start, end)] = changes
            self._known[text] = options
        return self._known[text]
