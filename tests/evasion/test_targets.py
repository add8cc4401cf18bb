"""Classifiers under attack: models with gradients, functions without."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import WORDS

from contraverse import TextModel
from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation import predict as predict_rows
from contraverse.evasion import Append, Asker, Edits, FunctionTarget, Goal, ModelTarget, SearchSettings, believe, evade
from contraverse.evasion.changes import Change

QUICK = SearchSettings(beam=2, width=8, rounds=2)
TinyModel = Callable[..., TextModel]


def rows_of(model: TextModel, count: int = 8, words: int = 6) -> TextData:
    """Rows of words that the tiny tokenizer knows, labelled as the model has them."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, words)) for _ in range(count)]
    logits = predict_rows(model, TextData.from_rows(texts))
    with torch.no_grad():  # untrained, it would give all rows one class
        model.encoder.classifier.bias -= torch.from_numpy(logits.mean(0))
    labels = predict_rows(model, TextData.from_rows(texts)).argmax(1).tolist()
    return TextData.from_rows(texts, labels, model.labels)


def test_scores_are_the_models_logits(tiny_model: TinyModel) -> None:
    model = tiny_model()
    texts = [("the a of",), ("to and in is was",), ("THE  A OF",), ("the a of",)]
    expected = predict_rows(model, TextData.from_rows(texts))
    np.testing.assert_allclose(ModelTarget(model, batch_size=2).scores(texts), expected, atol=1e-5)
    assert ModelTarget(model, "labels").scores(texts).tolist() == np.eye(3)[expected.argmax(1)].tolist()


def test_gradients_are_those_of_the_margin(tiny_model: TinyModel) -> None:
    model = tiny_model(dropout=0)
    target, goal, texts, labels = ModelTarget(model), Goal(), [("the a of to and",), ("in is",)], np.array([0, 2])
    results = target.gradients(texts, 0, goal.tensor_margins, labels)
    for (text,), label, at in zip(texts, labels, results, strict=True):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        table = model.encoder.get_input_embeddings()
        embeddings = table(ids).detach().double().float().requires_grad_()
        logits = model.encoder(inputs_embeds=embeddings).logits
        others = torch.cat([logits[0, :label], logits[0, label + 1 :]])
        (expected,) = torch.autograd.grad(logits[0, label] - others.max(), embeddings)
        count = ids.shape[1]
        torch.testing.assert_close(at.gradient[:count], expected[0], atol=1e-5, rtol=1e-4)
        assert [text[start:end] for start, end in at.spans[:count].tolist()] == ["", *text.split(), ""]


def test_estimates_are_first_order(tiny_model: TinyModel) -> None:
    model = tiny_model(dropout=0)
    target, text = ModelTarget(model), "the a of to"
    (at,) = target.gradients([(text,)], 0, Goal().tensor_margins, np.array([1]))
    changes = [Change(4, 5, "of"), Change(0, 3, "zzz"), Change(4, 6, ""), Change(3, 3, "n of")]
    table = model.encoder.get_input_embeddings().weight.detach()

    def embedding(word: str) -> torch.Tensor:
        return table[model.tokenizer.convert_tokens_to_ids(word)]

    gradient = {word: at.gradient[i + 1] for i, word in enumerate(text.split())}
    expected = [
        gradient["a"] @ (embedding("of") - embedding("a")),
        gradient["the"] @ (embedding("[UNK]") - embedding("the")),
        -gradient["a"] @ embedding("a"),
    ]
    estimates = target.estimates(text, changes, at)
    np.testing.assert_allclose(estimates[:2], [float(value) for value in expected[:2]], atol=1e-5)
    assert np.isfinite(estimates).all()


@pytest.mark.parametrize("access", ["gradients", "scores", "labels"])
def test_a_model_is_attacked_and_each_success_is_real(tiny_model: TinyModel, access: Any) -> None:
    model = tiny_model(dropout=0)
    data = rows_of(model)
    report = evade(ModelTarget(model, access), data, Edits(), budgets=[1, 2], settings=QUICK)
    assert report.broken
    for row in report.broken:
        logits = predict_rows(model, TextData.from_rows([row.rewritten[0] if row.rewritten else ""]))
        assert logits.argmax(1)[0] == row.prediction_rewritten != row.label


def test_batches_do_not_matter(tiny_model: TinyModel) -> None:
    model = tiny_model(dropout=0)
    data = rows_of(model)
    reports = [
        evade(ModelTarget(model, batch_size=size), data, Edits(), budgets=[2], settings=QUICK) for size in (1, 5)
    ]
    assert [row.changes for row in reports[0].rows] == [row.changes for row in reports[1].rows]


def test_the_model_is_left_as_it_was(tiny_model: TinyModel) -> None:
    model = tiny_model().train()
    data = rows_of(model)
    evade(ModelTarget(model), data, Edits(), budgets=[1], settings=QUICK)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_what_a_model_cuts_off_is_not_edited(tiny_model: TinyModel) -> None:
    model = tiny_model(dropout=0, max_length=8)
    data = rows_of(model, 6, words=5000)
    report = evade(ModelTarget(model), data, Edits(), budgets=[1], settings=QUICK)
    for row in report.broken:
        (before,), (after,) = data.texts[row.row], row.rewritten or ("",)
        assert before.split()[8:] == after.split()[-(5000 - 8) :]
    assert report.broken


def test_words_behind_a_cut_do_nothing(tiny_model: TinyModel) -> None:
    model = tiny_model(dropout=0, max_length=8)
    report = evade(ModelTarget(model), rows_of(model, 4, words=40), Append(["not", "good"], "after"), budgets=[2])
    assert report.flip_rate().hits == 0


def test_long_texts_are_attacked_without_gradients(predict: Callable[[list[Any]], np.ndarray]) -> None:
    texts = ["word " * 5000, "字" * 5000]
    data = TextData.from_rows(texts, predict(texts).argmax(1).tolist(), ["no", "yes"])
    settings = SearchSettings(width=4, rounds=1, places=4)
    report = evade(FunctionTarget(predict, ["no", "yes"]), data, Edits(), budgets=[1], settings=settings)
    assert all(0 < row.queries < 40 for row in report.rows)


@pytest.mark.parametrize(("labels", "kind"), [(None, "a sentence encoder"), (("score",), "a regression")])
def test_what_is_no_classifier_is_refused(tiny_model: TinyModel, labels: Any, kind: str) -> None:
    with pytest.raises(UserError, match=f"this model is {kind}"):
        ModelTarget(tiny_model(labels=labels))


def test_probabilities_are_taken_as_logarithms() -> None:
    target = FunctionTarget(lambda texts: [[0.9, 0.1]] * len(texts), ["a", "b"])
    np.testing.assert_allclose(target.scores([("x",)]), np.log([[0.9, 0.1]]), rtol=1e-6)


def test_labels_may_be_names_or_numbers() -> None:
    for answer in (["b"], [1], [[0.2, 0.8]]):
        target = FunctionTarget(lambda texts, a=answer: a * len(texts), ["a", "b"], "labels")
        assert target.scores([("x",)]).tolist() == [[0, 1]]


@pytest.mark.parametrize("answer", [[1.0], [[1.0, 2.0, 3.0]], [[np.nan, 0.0]]])
def test_wrong_answers_of_a_function_are_refused(answer: Any) -> None:
    with pytest.raises(UserError, match="predict gives"):
        FunctionTarget(lambda texts: answer, ["a", "b"]).scores([("x",)])
    with pytest.raises(UserError, match="gives no gradients"):
        FunctionTarget(lambda texts: answer, ["a", "b"], "gradients")


def test_rows_of_other_classes_are_refused(predict: Callable[[list[Any]], np.ndarray]) -> None:
    data = TextData.from_rows(["x", "y"], ["red", "blue"])
    with pytest.raises(UserError):
        evade(FunctionTarget(predict, ["no", "yes"]), data, Edits())
    with pytest.raises(UserError, match="rows with classes"):
        evade(FunctionTarget(predict, ["no", "yes"]), TextData.from_rows(["x"]), Edits())


def test_the_checks_pass_a_sound_attack(predict: Callable[[list[Any]], np.ndarray], right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    wide = SearchSettings(width=500, rounds=4, places=100)
    report = evade(target, right_rows, Edits(), budgets=[1, 2], settings=wide)
    belief = believe(Asker(target, Goal()), right_rows, Edits(), report, wide)
    assert belief.exact.n > 4
    assert belief.recovered == (belief.exact.hits, belief.exact.hits)
    assert belief.warnings == []
    assert all(belief.random[budget].hits < belief.attack[budget].hits for budget in (1, 2))
    assert belief.to_dict()["recovered"]["percent"] == 100


def test_the_checks_warn_of_a_search_that_finds_little(
    predict: Callable[[list[Any]], np.ndarray], right_rows: TextData
) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    narrow = SearchSettings(beam=1, width=1, rounds=1, places=1)
    report = evade(target, right_rows, Edits(), budgets=[1, 8], settings=narrow)
    belief = believe(Asker(target, Goal()), right_rows, Edits(), report, narrow)
    assert belief.recovered.hits < belief.recovered.n
    assert any("some single change breaks" in warning for warning in belief.warnings)
