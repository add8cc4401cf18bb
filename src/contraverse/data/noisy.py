"""Training rows with noise, drawn and tokenized when a batch is made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from contraverse.data.encoding import Collator, EncodedText, encode_texts
from contraverse.noise import NoiseMixture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VIEWS = ("positive", "negative")


class NoisyText(EncodedText):
    """Rows of an `EncodedText` whose batches have noise.

    ``views`` is 1: the noisy text is in the place of the clean one, in every column. It is 2: the clean text stays, and
    the batch has the noisy one under ``noisy``, tokens and mask of its own (of triplets the anchor's).

    Draws are those of the row's place among the items of an epoch: a row that is repeated gets others each time.
    ``lengths`` are those of the clean texts.

    Args:
        encoded: the rows; not changed.
        tokenizer: that made them.
        mixture: kinds, strengths, share and seed.
        views: see above.
    """

    def __init__(
        self, encoded: EncodedText, tokenizer: "PreTrainedTokenizerBase", mixture: NoiseMixture, views: Literal[1, 2]
    ) -> None:
        self.__dict__.update(encoded.__dict__)
        self.mixture, self.views = mixture, views
        self.collate = NoisyCollator(tokenizer, self.max_length, mixture, views)
        # In shared memory, so that workers that live on through several epochs see the number, too.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def start_epoch(self, epoch: int) -> None:
        """Choose the draws of that epoch (from 0) for the batches that are made from now on."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        draw = (self.data.texts[item["index"]], int(index), int(self._epoch))
        return {**item, "draw": draw}


class NoisyCollator(Collator):
    """Items of `NoisyText` to one batch of tensors; all texts that changed are tokenized at once."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", max_length: int, mixture: NoiseMixture, views: Literal[1, 2]
    ) -> None:
        super().__init__(tokenizer)
        self._tokenizer, self._max_length, self._mixture, self._views = tokenizer, max_length, mixture, views

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        noisy = self._with_noise(rows)
        if self._views == 1:
            return super().__call__(noisy)
        return {**super().__call__(rows), "noisy": self._pad(noisy)}

    def _with_noise(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        changed: dict[int, tuple[str, ...]] = {}
        for place, row in enumerate(rows):
            texts, number, epoch = row["draw"]
            if (drawn := self._mixture.apply(texts, number, epoch, self._views)) != texts:
                changed[place] = drawn
        results = list(rows)
        if changed:
            first, *others = encode_texts(self._tokenizer, list(changed.values()), self._max_length)
            for i, place in enumerate(changed):
                row = {**rows[place], **{name: ids[i] for name, ids in first.items()}}
                for view, tokens in zip(_VIEWS, others, strict=False):
                    row[view] = {name: ids[i] for name, ids in tokens.items()}
                results[place] = row
        return results
