"""Notes on texts that a model does not read whole, or does not know."""

import numpy as np

from contraverse.data import TextData
from contraverse.models import TextModel

_LOOKED_AT = 20_000


def token_notes(model: TextModel, data: TextData, *, name: str = "", max_length: int | None = None) -> list[str]:
    """How many rows are cut and how much of them is unknown to the tokenizer, in sentences; none where all is well.

    Of more than 20,000 rows as many are looked at, evenly spread.

    Args:
        model: what reads the rows.
        data: the rows.
        name: of the rows, before each sentence.
        max_length: tokens at which a row is cut; None for the model's own.
    """
    texts = data.texts
    if len(texts) > _LOOKED_AT:
        texts = [texts[i] for i in np.linspace(0, len(texts) - 1, _LOOKED_AT).astype(int)]
        name = f"{name or 'texts'}, a sample of {len(data):,}"
    return [f"{name}: {note}" if name else note for note in model.token_report(texts, max_length).notes]
