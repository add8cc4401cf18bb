"""How much of the texts a tokenizer reads; arrays and columns; classifiers of other classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from reference.foreign import foreign_folder
from reference.tiny import LABELS, sentences

from contraverse.errors import UserError
from contraverse.models import TextModel

Make = Callable[..., TextModel]


def test_tokens_are_counted(tiny_model: Make) -> None:
    model = tiny_model(max_length=6)
    report = model.token_report(["the state", "the state of the world", "so 日本 zebra", "the " * 80])
    assert (report.rows, report.max_length, report.cut) == (4, 6, 2)  # with [CLS] and [SEP]: 4, 7, 5, 82 tokens
    assert (report.median, report.longest) == (6, 82)
    assert report.unknown == pytest.approx(2 / (2 + 5 + 3 + 80))
    assert report.notes == ["2 of 4 rows are cut at 6 tokens (median 6, longest 82)"]
    assert model.token_report(["zebra"], 4).notes == ["100 % of the tokens are unknown to the tokenizer"]
    assert model.token_report(["the state"], 4) == (1, 4, 0, 4, 4, 0.0)


def test_pairs_are_counted_as_one_row_and_triplets_as_three(tiny_model: Make) -> None:
    model = tiny_model()
    pair = model.token_report([("the state", "so")], 5)
    assert (pair.rows, pair.cut, pair.longest) == (1, 1, 6)
    triplet = model.token_report([("the state", "so", "the")], 3)
    assert (triplet.cut, triplet.longest) == (1, 4)


def test_encode_takes_arrays_and_columns(tiny_model: Make) -> None:
    model, texts = tiny_model(labels=None), sentences(5)
    expected = model.encode(texts)
    given = (np.array(texts), np.array(texts, dtype=object), pandas.Series(texts, index=range(7, 12)), tuple(texts))
    for rows in (*given, iter(texts)):
        np.testing.assert_array_equal(model.encode(rows), expected)
    assert len(model.encode(np.array([]))) == 0
    for wrong in ([*texts, None], [*texts, float("nan")], [*texts, 3]):
        with pytest.raises(UserError, match="row 5"):
            model.encode(wrong)


@pytest.mark.parametrize("labels", [["a", "b"], ["LABEL_1", "LABEL_0", "LABEL_2"], ["score"], list(LABELS)])
def test_a_classifier_of_other_classes_is_drawn_anew_with_a_warning(tmp_path: Path, labels: list[str]) -> None:
    folder = foreign_folder(tmp_path, "bert", classes=3)
    torch.manual_seed(7)  # not that of the folder, which would draw the same weights
    with pytest.warns(UserWarning, match="LABEL_0, LABEL_1, LABEL_2 apart: the classifier is drawn anew"):
        model = TextModel.from_pretrained(folder, labels=labels)
    same = TextModel.from_pretrained(folder, labels=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert model.labels == labels
    assert model.encoder.classifier.weight.shape[0] == len(labels)
    if len(labels) == 3:
        assert not torch.allclose(model.encoder.classifier.weight, same.encoder.classifier.weight)
    one, other = (m.encoder.base_model.state_dict() for m in (model, same))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(("architecture", "positions"), [("bert", 66), ("roberta", 65), ("mpnet", 64), ("gpt2", 66)])
def test_texts_are_cut_at_the_positions_of_the_encoder(tmp_path: Path, architecture: str, positions: int) -> None:
    """A table that begins after the padding's place has fewer."""
    folder = foreign_folder(tmp_path, architecture, pad_token_id=1 if architecture == "mpnet" else 0)
    with pytest.warns(UserWarning, match=f"{positions} positions"):
        model = TextModel.from_pretrained(folder, max_length=500)
    assert (model.max_length, model.positions, model.max_seq_length) == (positions, positions, positions)
    assert np.isfinite(model.encode(["the " * 300])).all()
    assert TextModel.from_pretrained(folder).max_length == positions
    assert TextModel.from_pretrained(folder, max_length=9).max_length == 9


def test_weights_have_the_dtype_that_was_asked_for(tiny_folder: Callable[..., Path]) -> None:
    model = TextModel.from_pretrained(tiny_folder(), labels=LABELS, dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.encode(sentences(3)).dtype == np.float32
