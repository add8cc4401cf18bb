"""From rows to batches that a model takes: its own class ids, token ids, and padding, of which there is little.

Classes of a model and of rows are matched by name, or by number where there are no names, or refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from contraverse.data.dataset import TextData
from contraverse.data.tasks import Task
from contraverse.data.tokens import encode_texts, tokenize
from contraverse.errors import UserError
from contraverse.noise import NoiseMixture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from contraverse.data import Rows

_GROUP = 50


class Collator:
    """Rows of `EncodedText` to one batch of tensors.

    ``input_ids``, ``attention_mask`` and, where the rows have them, ``token_type_ids``: (B, T) int64, padded on the
    right to the longest row. ``labels``: (B,) int64 classes or float32 scores. ``index``: (B,) int64. ``positive``
    and ``negative``: batches of ids and masks of their own. A key that the rows do not have is left out.

    Raises:
        UserError: the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if tokenizer.pad_token_id is None:
            raise UserError("the tokenizer has no padding token", hint="Set tokenizer.pad_token first.")
        self._fill = {"input_ids": int(tokenizer.pad_token_id), "token_type_ids": int(tokenizer.pad_token_type_id)}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._pad(rows)
        first = rows[0]
        if "label" in first:
            labels = [row["label"] for row in rows]
            batch["labels"] = torch.tensor(labels, dtype=torch.long if isinstance(labels[0], int) else torch.float32)
        if "index" in first:
            batch["index"] = torch.tensor([row["index"] for row in rows])
        for view in ("positive", "negative"):
            if view in first:
                batch[view] = self._pad([row[view] for row in rows])
        return batch

    def _pad(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        lengths = np.array([len(row["input_ids"]) for row in rows])
        real = np.arange(lengths.max()) < lengths[:, None]
        batch = {}
        for name, fill in self._fill.items():
            if name in rows[0]:
                padded = np.full(real.shape, fill)
                padded[real] = np.concatenate([row[name] for row in rows])
                batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = torch.from_numpy(real.astype(np.int64))
        return batch


class EncodedText(Dataset[dict[str, Any]]):
    """The tokens of every row, made once and not padded.

    ``data``: the rows. ``tokenizer``: a Hugging Face tokenizer. ``max_length``: the most tokens of a row, special
    tokens included; a longer one is cut (a pair at its longer half). The three sentences of a triplet are encoded
    apart, each up to ``max_length``.

    An item is ``{"input_ids": list[int], "index": int}``, with ``token_type_ids`` if the model takes them, ``label``
    (int or float) if the rows have one, and for triplets ``positive`` and ``negative``, each with ids of its own.
    ``lengths``: (items,) int64 tokens of each item, all its sentences together. ``collate`` makes a batch of items.
    Tokens take four bytes each (eight with type ids), in memory or in a file that processes share: see
    `contraverse.data.tokens.tokenize`.

    There are as many items as training sees in an epoch: a row with ``data.repeats[i] == r`` is r items in a row, which
    all have the same ``index`` i in [0, len(data)). A memory bank by ``index`` so holds each row once.
    """

    def __init__(self, data: TextData, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
        self.data = data
        self.max_length = max_length
        self.collate = Collator(tokenizer)
        self._tokens = tokenize(tokenizer, data.texts, max_length, data.cache)
        self._rows = range(len(data)) if data.repeats is None else np.repeat(np.arange(len(data)), data.repeats)
        self.lengths = self._tokens.lengths()[self._rows] if data.repeats is not None else self._tokens.lengths()

    @property
    def labels(self) -> np.ndarray | None:
        """(len(data),) int64 class ids or float32 scores, by ``index``; None without labels."""
        if self.data.labels is None:
            return None
        return np.asarray(self.data.labels, dtype=np.float32 if self.data.label_names is None else np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(self._rows[index])
        first, *others = self._tokens[index]
        item: dict[str, Any] = {**first, "index": index}
        if self.data.labels is not None:
            item["label"] = self.data.labels[index]
        return item | dict(zip(("positive", "negative"), others, strict=False))


class LengthGroupedSampler(Sampler[int]):
    """Row numbers in an order whose consecutive chunks of ``batch_size`` hold rows of like length.

    Every epoch the rows are shuffled, cut into groups of 50 batches or more, sorted within each group, and the batches
    of all groups are shuffled; only the last batch may be partial. The batch with the longest row comes first, so
    that memory runs out at the start or not at all. The order is a function of ``seed`` and the epoch alone.

    Measured on TREC, SST-2 sentences, CoLA and MRPC at batch 32: 2 to 4 % of the tokens are padding.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise UserError(f"a batch has at least one row, not {batch_size}")
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of that epoch (from 0) for the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        rows = random.permutation(len(self))
        batches = -(-len(rows) // self.batch_size)
        groups = np.array_split(np.arange(batches), max(1, batches // _GROUP))
        bounds = np.cumsum([len(group) * self.batch_size for group in groups])[:-1]
        # Longest first, so that what is left for the one partial batch are short rows.
        ordered = [group[np.argsort(-self.lengths[group], kind="stable")] for group in np.split(rows, bounds)]
        chunks = [group[i : i + self.batch_size] for group in ordered for i in range(0, len(group), self.batch_size)]
        for chunk in shuffled_batches(chunks, self.batch_size, random, self.lengths):
            yield from chunk.tolist()


def shuffled_batches(
    batches: Sequence[np.ndarray], batch_size: int, random: np.random.Generator, lengths: np.ndarray | None
) -> list[np.ndarray]:
    """Batches of row numbers in a random order: the one with the longest row first, a partial one last.

    Memory then runs out at the start or not at all.

    Args:
        batches: row numbers of each batch.
        batch_size: rows of a whole batch.
        random: draws the order.
        lengths: tokens of each row; None where they do not differ or are not known, and no batch comes first.
    """
    whole = [batch for batch in batches if len(batch) == batch_size]
    partial = [batch for batch in batches if len(batch) < batch_size]
    shuffled = [whole[i] for i in random.permutation(len(whole))]
    if shuffled and lengths is not None:
        longest = max(range(len(shuffled)), key=lambda i: lengths[shuffled[i]].max())
        shuffled[0], shuffled[longest] = shuffled[longest], shuffled[0]
    return shuffled + partial


def is_unnamed(labels: Sequence[str]) -> bool:
    """True of LABEL_0, LABEL_1, ..., transformers' names of classes that have none, and of 0, 1, ..."""
    numbers = range(len(labels))
    return list(labels) in ([f"LABEL_{i}" for i in numbers], [str(i) for i in numbers])


def task_for(task: Task, labels: Sequence[str]) -> Task:
    """``task`` with the classes of a model, which say what its logits mean.

    A file's names are matched with the model's. A number is the class of that id: of the task where it has classes of
    its own, else of the model.

    Raises:
        UserError: they cannot be matched.
    """
    if task.kind != "classification":
        return task
    own = task.labels or ()
    if not own:
        return replace(task, labels=tuple(labels))
    if is_unnamed(labels):
        if len(labels) == len(own) and task.numbered:
            return task
        why = "" if len(labels) != len(own) else ", and which is which cannot be told"
        raise _other(f"{len(labels)} classes without names{why}", own)
    known = {name.casefold() for name in labels}
    if not known & {name.casefold() for name in own}:
        raise _other(_listed(labels), own)
    numbers = {str(i): name for i, name in enumerate(own)} if task.numbered else {}
    return replace(task, labels=tuple(labels), numbered=False, aliases={**numbers, **task.aliases})


def match_classes(names: Sequence[str] | None, labels: Sequence[str] | None) -> np.ndarray | None:
    """For each class of the rows the place of its logit (len(names),); None where both are in the same order.

    Args:
        names: of the rows' classes, in the order of their ids; None for scores.
        labels: of the model's, in the order of its logits.

    Raises:
        UserError: a class of the rows is none of the model's.
    """
    if names is None or labels is None or list(names) == list(labels):
        return None
    if len(labels) == 1:
        if is_unnamed(names):  # whole numbers, which are scores here
            return None
        raise _other(f"nothing, and gives one score ({labels[0]}),", names)
    places = {label.casefold(): i for i, label in enumerate(labels)}
    if all(name.casefold() in places for name in names) and len(places) == len(labels):
        return np.array([places[name.casefold()] for name in names])
    numbered = is_unnamed(names) and len(names) <= len(labels)
    if numbered or (is_unnamed(labels) and len(names) == len(labels)):
        return None
    raise _other(_listed(labels), names)


def in_order_of(labels: Sequence[str], own: Sequence[str] | None) -> list[str]:
    """Classes of a classifier that starts from one of the classes ``own``, None for no classifier.

    Those of ``own``, in their order, where they are ``labels`` by name or both have numbers alone, so that the
    classifier can be kept; else ``labels``.
    """
    if own is None or len(own) != len(labels):
        return list(labels)
    names = {name.casefold() for name in own}
    same = len(names) == len(own) and names == {name.casefold() for name in labels}
    return list(own if same or (is_unnamed(own) and is_unnamed(labels)) else labels)


def matched(data: "Rows", labels: Sequence[str] | None) -> "Rows":
    """``data`` with its labels as ids of a model's classes ``labels``, matched as `match_classes` does.

    Raises:
        UserError: a class of the rows is none of the model's, tokenized rows have the classes in another order, or the
            labels are scores and the model's are classes.
    """
    rows = data.data if isinstance(data, EncodedText) else data
    scores = isinstance(rows, TextData) and any(isinstance(label, float) for label in (rows.labels or ())[:1])
    if scores and labels is not None and len(labels) > 1:
        hint = "give class ids or names, or a model of a single score: labels=['score']"
        raise UserError(f"the model tells {_listed(labels)} apart, and the rows have scores", hint=hint)
    places = match_classes(rows.label_names if rows.labels is not None else None, labels)
    if places is None or labels is None:
        return data
    if isinstance(data, EncodedText):
        raise UserError("the rows' classes are in another order than the model's", hint="give them as TextData")
    if isinstance(data, TextData):
        ids = [int(places[int(label)]) for label in data.labels or ()]
        return replace(data, labels=ids, label_names=tuple(labels))
    assert data.labels is not None
    known = data.labels >= 0  # the others have no label
    moved = torch.from_numpy(places)[data.labels.clamp(min=0)]
    return replace(data, labels=torch.where(known, moved, data.labels), label_names=tuple(labels))


def _other(classes: str, names: Sequence[str]) -> UserError:
    return UserError(
        f"the model tells {classes} apart, and the rows are of {_listed(names)}",
        hint="rows and model have to name the same classes: set id2label in the model's config.json",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


_VIEWS = ("positive", "negative")


class NoisyText(EncodedText):
    """Rows of an `EncodedText` whose batches have noise.

    ``views`` is 1: the noisy text is in the place of the clean one, in every column. It is 2: the clean text stays, and
    the batch has the noisy one under ``noisy``, tokens and mask of its own (of triplets the anchor's); of several
    ``draws`` the batch has all under ``draws``, tensors (n, B, T), and none under ``noisy``.

    Draws are those of the row's place among the items of an epoch: a row that is repeated gets others each time.
    ``lengths`` are those of the clean texts, `noisy_lengths` those of the epoch.

    Args:
        encoded: the rows; not changed.
        tokenizer: that made them.
        mixture: kinds, strengths, share and seed.
        views: see above.
        draws: number n of noisy texts of each row, of which a method chooses; with two views alone.
    """

    def __init__(
        self,
        encoded: EncodedText,
        tokenizer: "PreTrainedTokenizerBase",
        mixture: NoiseMixture,
        views: Literal[1, 2],
        draws: int = 1,
    ) -> None:
        self.__dict__.update(encoded.__dict__)
        self.mixture, self.views, self.draws = mixture, views, draws
        self.collate: NoisyCollator = NoisyCollator(tokenizer, self.max_length, mixture, views, draws)
        # In shared memory, so that workers that live on through several epochs see the number, too.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def start_epoch(self, epoch: int) -> None:
        """Choose the draws of that epoch (from 0) for the batches that are made from now on."""
        self._epoch.fill_(epoch)

    def noisy_lengths(self) -> list[int]:
        """Tokens of each item with the noise of the epoch, of several draws those of the longest.

        Noise that spaces letters out makes a text several times as long: in batches of like *clean* length, 36 % of the
        tokens of TREC under all kinds were padding, and 3 % in batches of like noisy length.
        """
        return self.collate.lengths([self[index] for index in range(len(self))])

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        draw = (self.data.texts[item["index"]], int(index), int(self._epoch))
        return {**item, "draw": draw}


class NoisyCollator(Collator):
    """Items of `NoisyText` to one batch of tensors; all texts that changed are tokenized at once."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        mixture: NoiseMixture,
        views: Literal[1, 2],
        draws: int = 1,
    ) -> None:
        super().__init__(tokenizer)
        self._tokenizer, self._max_length, self._mixture, self._views = tokenizer, max_length, mixture, views
        self._draws = draws

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if self._views == 1:
            return super().__call__(self._with_noise(rows))
        noisy = [row for draw in range(self._draws) for row in self._with_noise(rows, draw)]
        padded = self._pad(noisy)  # (n B, T) each
        if self._draws == 1:
            return {**super().__call__(rows), "noisy": padded}
        return {**super().__call__(rows), "draws": {k: v.unflatten(0, (self._draws, -1)) for k, v in padded.items()}}

    def lengths(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Tokens of each row with its noise, all its sentences together, of several draws the most."""
        every = [[_length(row) for row in self._with_noise(rows, draw)] for draw in range(self._draws)]
        return list(map(max, zip(*every, strict=True)))

    def _with_noise(self, rows: Sequence[Mapping[str, Any]], draw: int = 0) -> list[Mapping[str, Any]]:
        changed: dict[int, tuple[str, ...]] = {}
        for place, row in enumerate(rows):
            texts, number, epoch = row["draw"]
            if (drawn := self._mixture.apply(texts, number, epoch, self._views, draw)) != texts:
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


def _length(row: Mapping[str, Any]) -> int:
    return len(row["input_ids"]) + sum(len(row[view]["input_ids"]) for view in _VIEWS if view in row)
