"""Likeness of two words in one place of a sentence, by the hidden states of a fixed encoder (as BERTScore)."""

from collections.abc import Sequence

import numpy as np
import torch

from contraverse.evaluation.adversaries.rewriting import spans_of
from contraverse.models import TextModel, evaluating


class InContext:
    """Compares the words of texts by the last hidden states of ``encoder``, the mean over each word's tokens."""

    def __init__(self, encoder: TextModel, batch_size: int = 64) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self._known: dict[str, np.ndarray] = {}

    def least(self, originals: Sequence[str], rewritten: Sequence[str]) -> list[float]:
        """Least cosine, for each pair of texts, of a word that differs and the one in its place; 1 where none does.

        -1 where the texts do not have the same number of words and signs, so that places do not agree, or where a
        changed word lies beyond what the encoder can take.
        """
        self._remember(originals)
        cosines = []
        for first in range(0, len(rewritten), self.batch_size):  # thousands of texts, of which no states are kept
            some = slice(first, first + self.batch_size)
            after = self._words(list(rewritten[some]))
            cosines += [
                _least(old, self._known[old], new, words)
                for old, new, words in zip(originals[some], rewritten[some], after, strict=True)
            ]
        return cosines

    def _remember(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._words(new), strict=True))

    def _words(self, texts: list[str]) -> list[np.ndarray]:
        """Unit vectors (W, H) of each text's words, NaN for a word that the encoder does not see."""
        vectors = []
        tokenizer = self.encoder.tokenizer
        for first in range(0, len(texts), self.batch_size):
            chosen = texts[first : first + self.batch_size]
            batch = tokenizer(
                chosen, truncation=True, max_length=self.encoder.max_seq_length, padding=True,
                return_offsets_mapping=True,
                return_tensors="pt",
            )  # fmt: skip
            offsets = batch.pop("offset_mapping").numpy()
            with evaluating(self.encoder), torch.no_grad():
                out = self.encoder({k: v.to(self.encoder.device) for k, v in batch.items()}, want=("tokens",)).tokens
            assert out is not None
            states = out.float().cpu().numpy()
            for text, places, rows in zip(chosen, offsets, states, strict=True):
                overlap = np.array([(places[:, 0] < end) & (places[:, 1] > start) for start, end in spans_of(text)])
                sums = overlap.reshape(-1, len(places)).astype(np.float64) @ rows
                norms = np.linalg.norm(sums, axis=1, keepdims=True)
                vectors.append(np.divide(sums, norms, out=np.full_like(sums, np.nan), where=norms > 0))
        return vectors


def _least(old: str, before: np.ndarray, new: str, after: np.ndarray) -> float:
    if len(before) != len(after):
        return -1.0
    pairs = zip(spans_of(old), spans_of(new), strict=True)
    changed = [i for i, ((a, b), (c, d)) in enumerate(pairs) if old[a:b] != new[c:d]]
    cosines = (before[changed] * after[changed]).sum(1)
    return round(float(np.nan_to_num(cosines, nan=-1.0).min(initial=1.0)), 4)
