"""The search for sentences that go on reading the same: which words may change, a second opinion, the fewest words."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from reference.tiny import LABELS, VOCABULARY, WORDS
from scipy.optimize import minimize
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from transformers import AutoModelForSequenceClassification

from contraverse.attacks import NormBall, pgd
from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation import predict
from contraverse.evaluation.adversaries import Closeness, find_adversaries, search
from contraverse.evaluation.adversaries.context import InContext
from contraverse.evaluation.adversaries.judging import Bystander, Judge, Verdict
from contraverse.evaluation.adversaries.rewriting import Vocabulary
from contraverse.evaluation.adversaries.substitutes import Substitutes, akin, ending, is_content
from contraverse.models import TextModel
from contraverse.types import Inputs

INF = float("inf")
ANY = Closeness(max_edits=99, max_share=1, min_similarity=-1, max_drop=INF, min_word_similarity=-1)
LEAST = -0.1


@pytest.fixture
def data(model: TextModel, labelled: Any) -> TextData:
    """Rows with the classes that the model gives them, so that all are attacked."""
    texts = [texts[0] for texts in labelled(30).texts]
    return TextData.from_rows(texts, predict(model, TextData.from_rows(texts)).argmax(1).tolist(), LABELS)


@pytest.fixture(scope="module")
def minilm() -> TextModel:
    return TextModel.from_pretrained("minilm")


@pytest.fixture(scope="module")
def substitutes(minilm: TextModel) -> Substitutes:
    table = minilm.encoder.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    return Substitutes(Vocabulary(minilm.tokenizer, minilm.embedding_shape[0]), table)


@pytest.fixture
def sieve(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Random word embeddings are hardly alike: ``sieve(-0.1)`` lets words through that are no more alike than that."""
    return lambda least: monkeypatch.setattr(search, "Substitutes", partial(Substitutes, least=least))


def table_of(model: TextModel) -> np.ndarray:
    table = model.encoder.get_input_embeddings().weight.detach().double().numpy()
    return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12))


def allowed(model: TextModel, word: str, by: str) -> bool:
    """The rules, in the tiny vocabulary, whose words are all whole."""
    table = table_of(model)
    both = [one for one in (word, by) if re.fullmatch("[a-z]{2,}", one) and one not in ENGLISH_STOP_WORDS]
    return (
        len(both) == 2
        and ending(word) == ending(by)
        and not akin(word, by)
        and float(table[VOCABULARY.index(word)] @ table[VOCABULARY.index(by)]) >= LEAST
    )


def by_hand(model: TextModel, text: str, label: int, count: int) -> list[list[str]]:
    """One row alone: for each of its words the words that may replace it."""
    words = text.split()
    ids = torch.tensor([[2, *(VOCABULARY.index(word) for word in words), 3]])
    mask = torch.ones_like(ids)
    embed = model.encoder.get_input_embeddings()(ids).detach()

    def loss_of(delta: torch.Tensor) -> torch.Tensor:
        logits = model.encoder(inputs_embeds=embed + delta, attention_mask=mask).logits
        return torch.nn.functional.cross_entropy(logits, torch.tensor([label]), reduction="none")

    delta = pgd(loss_of, NormBall(0.5, 0.625), Inputs(embed, mask.bool().unsqueeze(-1)), steps=2).delta
    states = model.encoder.base_model(inputs_embeds=embed + delta, attention_mask=mask).last_hidden_state
    logits = model.heads["reconstruction"](states, model.encoder.get_input_embeddings().weight)[0].tolist()
    read = []
    for word, scores in zip(words, logits[1:-1], strict=True):
        order = sorted(range(len(VOCABULARY)), key=lambda i: -scores[i])
        likeliest = [VOCABULARY[i] for i in order if VOCABULARY[i] != word][:count]
        read.append([by for by in likeliest if allowed(model, word, by)])
    return read


@pytest.mark.parametrize("count", [20, 60])
def test_the_search_is_that_by_hand(
    model: TextModel, encoder: TextModel, data: TextData, sieve: Any, tmp_path: Path, count: int
) -> None:
    sieve(LEAST)
    report = find_adversaries(
        model, data, epsilons=[0.5], steps=2, closeness=ANY, encoder=encoder, batch_size=7,
        substitutions=2, candidates=count,
    )  # fmt: skip
    plain = AutoModelForSequenceClassification.from_pretrained(model.save(tmp_path / "model"))

    def odds(text: str, label: int) -> tuple[int, float]:
        scores = plain(**model.tokenizer(text, return_tensors="pt")).logits[0].double().softmax(0).tolist()
        return int(np.argmax(scores)), float(np.log(scores[label] / (1 - scores[label])))

    def likeness(text: str, original: str) -> float:
        a, b = encoder.encode([text, original])
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    expected: dict[int, tuple[str, int]] = {}
    for row, ((text,), label) in enumerate(zip(data.texts, data.labels or [], strict=True)):
        words, y = text.split(), int(label)
        options = by_hand(model, text, y, count)
        singles = [(i, by) for i, some in enumerate(options) for by in some]

        def put(*changes: tuple[int, str], words: list[str] = words) -> str:
            return " ".join(dict(changes).get(i, word) for i, word in enumerate(words))

        fooling = [put(one) for one in singles if odds(put(one), y)[0] != y]
        if fooling:
            expected[row] = (max(fooling, key=lambda one: likeness(one, text)), 1)
            continue
        worst: dict[int, str] = {}
        for i, by in sorted(singles, key=lambda one: odds(put(one), y)[1]):
            worst.setdefault(i, by)
        if len(worst) > 1 and odds(together := put(*list(worst.items())[:2]), y)[0] != y:
            expected[row] = (together, 2)
    assert {one.row: (one.rewritten, one.edits) for one in report.found} == expected
    assert {edits for _, edits in expected.values()} == {1, 2}


class Fooled:
    """A judge whom a text fools that has the word, and who remembers what it was asked."""

    def __init__(self, word: str) -> None:
        self.word, self.asked = word, list[tuple[int, str]]()

    def __call__(self, candidates: list[tuple[int, str]]) -> list[Verdict]:
        self.asked += candidates
        return [Verdict(text, 0, 0.0, 1.0, 0.0, None, 1, 0.1, True) for _, text in candidates]

    def fools(self, row: int, verdict: Verdict) -> bool:
        return self.word in verdict.text


def test_a_row_that_one_word_suffices_for_is_tried_no_further(model: TextModel) -> None:
    fooling, other, filler = WORDS[:3]
    texts, judge = [f"{filler} {other}", f"{other} {filler}"], Fooled(f"{fooling} {other}")
    options = {1: [VOCABULARY.index(fooling)], 2: [VOCABULARY.index(fooling)]}
    rewriter = search._Rewriter(
        TextData.from_rows(texts), Vocabulary(model.tokenizer, model.embedding_shape[0]), 99, cast(Judge, judge)
    )
    rewriter.near([search.Reading(row, options, []) for row in range(len(texts))], 2)
    assert [(row, text) for row, text in judge.asked if text.split() == [fooling] * 2] == [(1, f"{fooling} {fooling}")]
    assert len(judge.asked) == 5


def test_only_what_the_head_reads_and_the_sieve_lets_through_comes(
    model: TextModel, encoder: TextModel, data: TextData, sieve: Any
) -> None:
    found = []
    for count, least in ((1, -1), (len(VOCABULARY), -1), (len(VOCABULARY), 1)):
        sieve(least)
        given: Any = {"epsilons": [0.5], "steps": 1, "closeness": ANY, "encoder": encoder, "candidates": count}
        found.append(len(find_adversaries(model, data, **given).found))
    assert found[1] > found[0]
    assert found[1] > found[2] == 0


def test_words_that_are_unlike_in_context_are_not_kept(
    model: TextModel, encoder: TextModel, data: TextData, sieve: Any
) -> None:
    sieve(-1)
    given: Any = {"epsilons": [0.5], "steps": 1, "encoder": encoder, "candidates": 60, "substitutions": 1}
    measured = find_adversaries(model, data, closeness=Closeness(99, 1, -1, INF, -0.99), **given).found
    least = sorted(one.word_similarity or 0.0 for one in measured)[len(measured) // 2]
    report = find_adversaries(model, data, closeness=Closeness(99, 1, -1, INF, least), **given)
    for one in report.found:
        before, after = (states_of(encoder, text) for text in (one.original, one.rewritten))
        ((at, _),) = [
            (i, pair)
            for i, pair in enumerate(zip(one.original.split(), one.rewritten.split(), strict=True))
            if pair[0] != pair[1]
        ]
        assert one.word_similarity == pytest.approx(cosine(before[at + 1], after[at + 1]), abs=1e-3)
        assert one.close == (one.word_similarity >= least)
    assert 0 < len(report.kept) < len(report.found)
    anyhow = find_adversaries(model, data, closeness=ANY, **given)
    assert all(one.word_similarity is None for one in anyhow.found)


def test_words_in_context_are_the_mean_of_their_tokens(minilm: TextModel) -> None:
    pairs = [
        ("An unflinchingly bleak film.", "An unflinchingly grim film."),
        ("So-so, isn't it?", "So-so, wasn't it?"),
        ("A good, good story", "A fine, bad story"),
        ("unflinchingly so", "relentlessly so"),
        ("the same", "the same"),
        ("it is", "it is not"),
    ]
    originals, rewritten = zip(*pairs, strict=True)
    least = InContext(minilm, batch_size=2).least(originals, rewritten)
    changed = [[("bleak", "grim")], [("isn't", "wasn't")], [("good", "fine"), ("good", "bad")], [("unfl", "relent")]]
    places = [[(17, 17)], [(7, 7)], [(2, 2), (8, 8)], [(0, 0)]]
    expected = []
    for (before, after), words, starts in zip(pairs[:4], changed, places, strict=True):
        cosines = []
        for (old, new), (at, there) in zip(words, starts, strict=True):
            assert before[at:].startswith(old)
            assert after[there:].startswith(new)
            cosines.append(cosine(word_at(minilm, before, at), word_at(minilm, after, there)))
        expected.append(min(cosines))
    assert least == pytest.approx([*expected, 1.0, -1.0], abs=1e-3)


def word_at(encoder: TextModel, text: str, start: int) -> np.ndarray:
    """The mean state of the tokens of the word or words joined by an apostrophe that begin there."""
    encoded, end = encoder.tokenizer(text), start
    while end < len(text) and (text[end].isalnum() or text[end] == "'"):
        end += 1
    tokens = sorted({encoded.char_to_token(i) for i in range(start, end)})
    return np.asarray(states_of(encoder, text)[tokens].mean(0))


def states_of(encoder: TextModel, text: str) -> np.ndarray:
    """Last hidden states of one text alone, by transformers itself."""
    with torch.no_grad():
        return np.asarray(encoder.encoder(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_second_opinion_decides_what_is_kept(model: TextModel, encoder: TextModel, data: TextData) -> None:
    given: Any = {"reading": "whole", "epsilons": [1], "steps": 1, "encoder": encoder}
    report = find_adversaries(model, data, closeness=Closeness(99, 1, -1, 0.3, -1), **given)
    labels = np.asarray(data.labels)
    weights = regression(unit(encoder.encode([texts[0] for texts in data.texts])), labels)
    expected = []
    for one in report.found:
        before, after = (
            log_odds(unit(encoder.encode([text])) @ weights[:, :-1].T + weights[:, -1], labels[[one.row]])
            for text in (one.original, one.rewritten)
        )
        expected.append(float(before[0] - after[0]))
    assert [one.drop for one in report.found] == pytest.approx(expected, abs=0.02)
    assert [one.close for one in report.found] == [one.drop is not None and one.drop <= 0.3 for one in report.found]
    assert 0 < len(report.kept) < len(report.found)
    free = find_adversaries(model, data, closeness=ANY, **given)
    assert free.found
    assert all(one.drop is None and "drop" not in one.to_dict() for one in free.found)


def test_rows_of_one_class_have_no_second_opinion(model: TextModel, encoder: TextModel, data: TextData) -> None:
    row = data.texts[0][0]
    one = TextData.from_rows([row, row], [(data.labels or [])[0]] * 2, LABELS)
    with pytest.raises(UserError, match="one class") as caught:
        find_adversaries(model, one, epsilons=[1], encoder=encoder)
    assert "inf" in str(caught.value.hint)
    assert find_adversaries(model, one, epsilons=[1], encoder=encoder, closeness=ANY).attacked == 2


def test_the_log_odds_are_of_the_label_against_all_others() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60) * 2
    x = draw.normal(size=(60, 5)) + np.eye(5)[labels // 2]
    weights = regression(unit(x), labels // 2)
    expected = log_odds(unit(x) @ weights[:, :-1].T + weights[:, -1], labels // 2)
    assert Bystander(x, labels).odds(x * 7, labels) == pytest.approx(expected, abs=1e-2)


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float64)


def log_odds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    own = p[np.arange(len(labels)), labels]
    return np.asarray(np.log(own / (1 - own)))


def regression(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights and biases (C, D + 1) that minimise cross-entropy + |w|^2 / (2 * 10), by L-BFGS."""
    classes = int(labels.max()) + 1

    def loss(flat: np.ndarray) -> float:
        weights = flat.reshape(classes, -1)
        scores = x @ weights[:, :-1].T + weights[:, -1]
        own = scores[np.arange(len(labels)), labels]
        return float((np.logaddexp.reduce(scores, 1) - own).sum() + (weights[:, :-1] ** 2).sum() / 20)

    def slope(flat: np.ndarray) -> np.ndarray:
        weights = flat.reshape(classes, -1)
        scores = x @ weights[:, :-1].T + weights[:, -1]
        error = np.exp(scores - np.logaddexp.reduce(scores, 1)[:, None]) - np.eye(classes)[labels]
        return np.hstack([error.T @ x + weights[:, :-1] / 10, error.sum(0)[:, None]]).ravel()

    start = np.zeros(classes * (x.shape[1] + 1))
    return np.asarray(minimize(loss, start, jac=slope, method="L-BFGS-B").x).reshape(classes, -1)


@pytest.mark.parametrize(
    ("word", "by", "may"),
    [
        ("film", "movie", True),
        ("films", "movies", True),
        ("good", "great", True),
        ("good", "bad", True),  # word embeddings do not tell: the second opinion has to
        ("film", "films", False),
        ("film", "movies", False),
        ("actor", "actress", False),
        ("predictable", "unpredictable", False),
        ("comedy", "comedic", False),
        ("nothing", "everything", False),
        ("slow", "fast", True),
    ],
)
def test_words_that_may_replace_each_other(
    minilm: TextModel, substitutes: Substitutes, word: str, by: str, may: bool
) -> None:
    old, new = minilm.tokenizer.convert_tokens_to_ids([word, by])
    assert (new in substitutes.of(old).tolist()) is may
    assert (old in substitutes.of(new).tolist()) is may
    assert old not in substitutes.of(old).tolist()


def test_only_whole_content_words_are_replaced(minilm: TextModel, substitutes: Substitutes) -> None:
    encoded = minilm.tokenizer("It isn't an unflinchingly bleak film: nobody, 2 stars!")
    words = encoded.tokens()
    assert [words[i] for i in substitutes.places(encoded["input_ids"])] == ["bleak", "film", "stars"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("watching", "ing"), ("amused", "ed"), ("nicely", "ly"), ("finest", "est"), ("better", "er"),
        ("films", "s"), ("class", ""), ("virus", ""), ("basis", ""), ("sing", ""), ("bed", ""), ("film", ""),
    ],
)  # fmt: skip
def test_endings(word: str, expected: str) -> None:
    assert ending(word) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("film", "filmed", True), ("comedy", "comedic", True), ("pleasant", "unpleasant", True),
        ("worst", "worse", True), ("great", "terrific", False), ("interesting", "intriguing", False),
        ("big", "bad", False), ("terrible", "terrific", False),
    ],
)  # fmt: skip
def test_forms_of_one_word(a: str, b: str, expected: bool) -> None:
    assert akin(a, b) is akin(b, a) is expected


def test_function_words_signs_and_numbers_are_no_content() -> None:
    kept = ["film", "bleak"]
    assert [
        w for w in [*kept, "not", "nothing", "few", "very", "two", "n't", "x", "3d", ",", ""] if is_content(w)
    ] == kept
