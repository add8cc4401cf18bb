from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.tiny import VOCABULARY, tiny_tokenizer

from contraverse.data import EncodedText, Row, Splits, TextData, get_task
from contraverse.errors import UserError


def numbered(labels: list[Any]) -> TextData:
    return TextData.from_rows([f"text {i}" for i in range(len(labels))], labels)


def test_from_rows_takes_ids_names_scores_or_nothing() -> None:
    assert numbered([0, 2, 1]).label_names == ("0", "1", "2")
    assert numbered(["b", "a", "b"]).labels == [1, 0, 1]
    assert numbered(["b", "a", "b"]).label_names == ("a", "b")
    assert numbered(list(np.array([0, 1]))).labels == [0, 1]
    assert numbered([0.5, 1, 2.5]).labels == [0.5, 1.0, 2.5]
    assert numbered([0.5, 1, 2.5]).label_names is None
    named = TextData.from_rows(["x", "y"], ["no", "yes"], ["yes", "no"])
    assert (named.labels, named.label_names) == ([1, 0], ("yes", "no"))
    assert TextData.from_rows(["x", "y"]).labels is None


def test_from_rows_names_columns_by_how_many_texts_a_row_has() -> None:
    assert TextData.from_rows(["a"]).columns == ("text",)
    assert TextData.from_rows([("a", "b")]).columns == ("sentence1", "sentence2")
    assert TextData.from_rows([["a", "b", "c"]]).columns == ("anchor", "positive", "negative")


def test_a_row_is_its_texts_and_its_label() -> None:
    data = TextData.from_rows([("a", "b"), ("c", "d")], [0, 1])
    assert len(data) == 2
    assert data[1] == Row(("c", "d"), 1)
    assert TextData.from_rows(["a"])[0].label is None
    assert [row.texts for row in data] == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([],), "there are no rows"),
        (([("a", "b", "c", "d")],), "one, two or three texts"),
        ((["a", ("b", "c")],), r"row 1: expected 1 non-empty string\(s\), found \('b', 'c'\)"),
        ((["a", " "],), "row 1: expected 1 non-empty"),
        (([("a", 3)],), "row 0: expected 2 non-empty"),
        ((["a", "b"], [1]), "2 rows, but 1 labels"),
        ((["a", "b"], [0, None]), "row 1: the label is missing"),
        ((["a", "b"], [0, -1]), "row 1: label -1"),
        ((["a", "b"], [0, 2], ["x", "y"]), "row 1: label 2 is none of the 2 classes"),
        ((["a", "b"], ["x", "z"], ["x", "y"]), "row 1: label 'z'"),
        ((["a", "b"], [0, 0.5], ["x", "y"]), "row 1: label 0.5"),
        ((["a", "b"], [0.5, float("nan")]), "row 1: the label is missing"),
        ((["a", "b"], [0.5, float("inf")]), "row 1: a score is not a finite number"),
    ],
)
def test_rows_that_cannot_be_used(arguments: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        TextData.from_rows(*arguments)


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=200),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_a_split_is_stratified_and_loses_nothing(labels: list[int], fraction: float, seed: int) -> None:
    data = numbered(labels)
    rest, part = data.split(fraction, seed)
    assert sorted(rest.texts + part.texts) == sorted(data.texts)
    assert len(part) == min(max(1, round(len(data) * fraction)), len(data) - 1)
    share = len(part) / len(data)
    taken = Counter(part.labels or [])
    assert all(abs(taken[label] - share * count) <= 1 + 1e-9 for label, count in Counter(labels).items())
    assert part.texts == [text for text in data.texts if text in set(part.texts)]
    assert data.split(fraction, seed)[1].texts == part.texts


def test_another_seed_gives_another_split() -> None:
    data = numbered([0, 1] * 50)
    assert data.split(0.2, 0)[1].texts != data.split(0.2, 1)[1].texts


@settings(max_examples=60)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=200), n=st.integers(1, 220), seed=st.integers(0, 9))
def test_a_sample_is_stratified_and_holds_every_class(labels: list[int], n: int, seed: int) -> None:
    data = numbered(labels)
    sample = data.sample(n, seed)
    assert len(sample) == len(set(sample.texts)) == min(n, len(data))
    counts, taken = Counter(labels), Counter(sample.labels or [])
    if n >= len(counts):
        assert set(taken) == set(counts)
    assert all(taken[label] <= -(-len(sample) * count // len(data)) + 1 for label, count in counts.items())
    assert set(data.sample(max(1, n // 2), seed).texts) <= set(sample.texts)


def test_scores_and_plain_sentences_are_sampled_without_strata() -> None:
    for data in (numbered([i / 7 for i in range(50)]), TextData.from_rows([f"s {i}" for i in range(50)])):
        rest, part = data.split(0.3, 0)
        assert (len(rest), len(part), len(data.sample(7, 0))) == (35, 15, 7)


def test_impossible_splits_and_samples() -> None:
    data = numbered([0, 1])
    for fraction in (0, 1, -0.5, 1.5):
        with pytest.raises(UserError, match="between 0 and 1"):
            data.split(fraction, 0)
    with pytest.raises(UserError, match="cannot be split"):
        TextData.from_rows(["one"]).split(0.5, 0)
    with pytest.raises(UserError, match="at least one row"):
        data.sample(0, 0)


def test_a_split_that_is_needed_and_not_there() -> None:
    splits = Splits(numbered([0, 1]), None, None, get_task("text"), notes=["nothing was said of it"])
    assert splits.need("train") is splits.train
    with pytest.raises(UserError, match="there is no test split") as error:
        splits.need("test")
    assert "nothing was said of it" in str(error.value)


def words(ids: list[int]) -> str:
    return " ".join(VOCABULARY[i] for i in ids)


def test_single_texts_are_encoded_with_their_special_tokens() -> None:
    encoded = EncodedText(TextData.from_rows(["the man and", "so"], [1, 0]), tiny_tokenizer(type_ids=False), 16)
    assert len(encoded) == 2
    assert set(encoded[0]) == {"input_ids", "index", "label"}
    assert words(encoded[0]["input_ids"]) == "[CLS] the man and [SEP]"
    assert (encoded[1]["index"], encoded[1]["label"]) == (1, 0)
    assert encoded.lengths.tolist() == [5, 3]
    assert encoded.labels is not None
    assert encoded.labels.dtype == np.int64


def test_pairs_are_encoded_as_pairs() -> None:
    encoded = EncodedText(TextData.from_rows([("the man", "his work")], [2.5]), tiny_tokenizer(type_ids=True), 16)
    assert words(encoded[0]["input_ids"]) == "[CLS] the man [SEP] his work [SEP]"
    assert encoded[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert isinstance(encoded[0]["label"], float)
    assert encoded.labels is not None
    assert encoded.labels.dtype == np.float32


def test_type_ids_are_made_for_models_that_take_them() -> None:
    data = TextData.from_rows([("the", "man")])
    assert "token_type_ids" in EncodedText(data, tiny_tokenizer(type_ids=True), 16)[0]
    assert "token_type_ids" not in EncodedText(data, tiny_tokenizer(type_ids=False), 16)[0]


def test_long_rows_are_cut_and_pairs_at_their_longer_half() -> None:
    tokenizer = tiny_tokenizer(type_ids=False)
    assert EncodedText(TextData.from_rows(["the " * 50]), tokenizer, 8).lengths == [8]
    (row,) = EncodedText(TextData.from_rows([("so", "the " * 50)]), tokenizer, 8)
    assert words(row["input_ids"]) == "[CLS] so [SEP] the the the the [SEP]"


def test_triplets_are_encoded_apart() -> None:
    data = TextData.from_rows([("the man", "his work so", "no"), ("a", "b c", "their old people")])
    encoded = EncodedText(data, tiny_tokenizer(type_ids=True), 16)
    assert set(encoded[0]) == {"input_ids", "token_type_ids", "index", "positive", "negative"}
    assert words(encoded[0]["input_ids"]) == "[CLS] the man [SEP]"
    assert words(encoded[0]["positive"]["input_ids"]) == "[CLS] his work so [SEP]"
    assert words(encoded[0]["negative"]["input_ids"]) == "[CLS] no [SEP]"
    assert encoded.lengths[0] == 4 + 5 + 3
    assert encoded.labels is None


def test_the_tokens_are_the_tokenizers_own() -> None:
    tokenizer = tiny_tokenizer(type_ids=True)
    texts = [("the man and his work", "so there"), ("no", "people should get back here " * 9)]
    encoded = EncodedText(TextData.from_rows(texts), tokenizer, 20)
    for i, pair in enumerate(texts):
        expected = tokenizer(*pair, truncation=True, max_length=20)
        assert encoded[i]["input_ids"] == expected["input_ids"]
        assert encoded[i]["token_type_ids"] == expected["token_type_ids"]
