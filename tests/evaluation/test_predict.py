from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contraverse.data import EncodedText, TextData
from contraverse.evaluation import predict
from contraverse.models import TextModel, evaluating
from contraverse.models.predicting import length_sorted


def test_rows_come_back_in_their_order_whatever_the_batches(
    tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]
) -> None:
    model, data = tiny_model(), labelled(23)
    one_by_one = np.concatenate([predict(model, data.__class__.from_rows([texts])) for texts in data.texts])
    assert one_by_one.shape == (23, 3)
    for batch_size in (1, 5, 64):
        logits = predict(model, data, batch_size)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, one_by_one, atol=1e-5)


def test_tokenised_data_gives_the_same(tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]) -> None:
    model, data = tiny_model(), labelled(7)
    encoded = EncodedText(data, model.tokenizer, model.max_length)
    np.testing.assert_array_equal(predict(model, data), predict(model, encoded))


def test_pairs_and_a_regression(tiny_model: Callable[..., TextModel], sentences: Callable[..., list[str]]) -> None:
    model = tiny_model(labels=("score",))
    data = TextData.from_rows(list(zip(sentences(5), sentences(5, seed=1), strict=True)), labels=[0.5] * 5)
    assert predict(model, data).shape == (5, 1)


def test_dropout_is_off_and_every_mode_is_restored(
    tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]
) -> None:
    model, data = tiny_model(dropout=0.5).train(), labelled(6)
    frozen = model.encoder.get_input_embeddings().eval()
    np.testing.assert_array_equal(predict(model, data), predict(model, data))
    assert model.training
    assert model.encoder.training
    assert not frozen.training


def test_the_mode_is_restored_after_a_failure() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2)).train()

    def fail() -> None:
        with evaluating(model):
            model(torch.zeros(1, 3))

    with pytest.raises(RuntimeError, match="shapes"):
        fail()
    assert all(module.training for module in model.modules())


def test_progress_is_told_every_row(tiny_model: Callable[..., TextModel], labelled: Callable[..., TextData]) -> None:
    seen: list[int] = []
    predict(tiny_model(), labelled(10), batch_size=4, progress=seen.append)
    assert seen == [4, 4, 2]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 9))
def test_batches_hold_every_row_once_longest_first(lengths: list[int], batch_size: int) -> None:
    batches = length_sorted(lengths, batch_size)
    order = [int(row) for batch in batches for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])
