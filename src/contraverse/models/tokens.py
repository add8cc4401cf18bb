"""Counts of the tokens of texts: rows that are cut, lengths, and unknown tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contraverse.errors import UserError

_AT_ONCE = 4096


class TokenReport(NamedTuple):
    """Counts of the tokens of texts.

    ``rows``: how many. ``max_length``: tokens at which a row is cut; ``cut``: rows that are longer. ``median`` and
    ``longest``: tokens of a row before it is cut, special ones included. ``unknown``: the share in [0, 1] of
    unknown tokens among those that are not special.
    """

    rows: int
    max_length: int
    cut: int
    median: int
    longest: int
    unknown: float

    @property
    def notes(self) -> list[str]:
        """Notes for a reader, in sentences; none where no row is cut and almost all tokens are known."""
        notes = []
        if self.cut:
            lengths = f"median {self.median}, longest {self.longest}"
            notes.append(f"{self.cut:,} of {self.rows:,} rows are cut at {self.max_length} tokens ({lengths})")
        if self.unknown >= 0.05:
            notes.append(f"{100 * self.unknown:.0f} % of the tokens are unknown to the tokenizer")
        return notes


def count_tokens(tokenizer: Any, texts: Sequence[str | Sequence[str]], max_length: int) -> TokenReport:
    """See `TokenReport`; rows of two texts are read as a pair, of three each text by itself."""
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in texts]
    if rows and len(rows[0]) == 3:
        rows = [(text,) for row in rows for text in row]
    lengths, unknown, words = list[int](), 0, 0
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for first in range(0, len(rows), _AT_ONCE):
        columns = list(zip(*rows[first : first + _AT_ONCE], strict=True))
        # verbose=False: transformers warns of texts that are longer than the model's own limit.
        tokens = tokenizer(*map(list, columns), return_attention_mask=False, verbose=False)["input_ids"]
        lengths += map(len, tokens)
        ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in tokens])
        ordinary = ids[~np.isin(ids, list(special))]
        words += len(ordinary)
        unknown += int((ordinary == tokenizer.unk_token_id).sum()) if tokenizer.unk_token_id is not None else 0
    counts = np.asarray(lengths or [0])
    return TokenReport(
        rows=len(rows),
        max_length=max_length,
        cut=int((counts > max_length).sum()),
        median=int(np.median(counts)),
        longest=int(counts.max()),
        unknown=unknown / max(1, words),
    )


def prompted(sentences: Sequence[str], prompts: Mapping[str, str], name: str | None) -> list[str]:
    """``sentences`` with the prompt of this name before each; None is no prompt.

    Raises:
        UserError: a sentence is no text, or no prompt has this name.
    """
    for i, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise UserError(f"expected a text, got {sentence!r}", where=f"row {i}")
    if name is None:
        return list(sentences)
    if name not in prompts:
        raise UserError(f"no prompt is called {name!r}", hint=f"known: {', '.join(prompts) or 'the model has none'}")
    return [prompts[name] + sentence for sentence in sentences]
