"""A classifier of texts that costs nothing, and that every character moves."""

import zlib
from typing import Any

import numpy as np


def by_letters(texts: list[Any]) -> np.ndarray:
    """Two logits of each text: sums of fixed weights of its runs of one, two and three characters, by hashing."""

    def score(text: Any) -> float:
        text = text if isinstance(text, str) else " | ".join(text)
        padded = f"^{text}$"
        grams = [padded[i : i + n] for n in (1, 2, 3) for i in range(len(padded) - n + 1)]
        weights = [(zlib.crc32(gram.encode("utf-8", "surrogatepass")) % 2001 - 1000) / 1000 for gram in grams]
        return float(sum(weights)) / np.sqrt(len(grams))

    first = np.array([score(text) for text in texts])
    return np.stack([first, -first], 1).astype(np.float32)
