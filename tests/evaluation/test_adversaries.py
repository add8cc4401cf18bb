"""Sentences read out of an attack: they fool the model as texts, stay close, and nothing else is claimed."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.tiny import LABELS, SPECIAL, VOCABULARY
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from contraverse.attacks import NormBall, pgd
from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation import predict
from contraverse.evaluation.adversaries import Closeness, changed_words, edits, find_adversaries, words_of
from contraverse.evaluation.adversaries.rewriting import Vocabulary
from contraverse.models import TextModel
from contraverse.types import HeadSpec, Inputs

HEADS = {"reconstruction": HeadSpec(kind="mlm")}
INF = float("inf")
ANY = Closeness(max_edits=99, max_share=1, min_similarity=-1, max_drop=INF, min_word_similarity=-1)
TEXTS = [
    "The Film isn't great, really.",
    "  a   GRIPPING (and so-so) tale ... 100% of it!  ",
    "unflinchingly bleak",
    "Café-au-lait costs 3 €, naïvely",
]


def relabelled(model: TextModel, data: TextData) -> TextData:
    """The rows with the classes that the model gives them, so that all are attacked."""
    return TextData.from_rows([texts[0] for texts in data.texts], predict(model, data).argmax(1).tolist(), LABELS)


def favour(model: TextModel, words: list[str]) -> None:
    """Have the head read these tokens everywhere, the first before the second."""
    with torch.no_grad():
        for i, word in enumerate(words):
            model.heads["reconstruction"].bias[VOCABULARY.index(word)] = 1e4 - 100 * i


def by_hand(model: TextModel, text: str, label: int, epsilon: float, steps: int) -> tuple[str, float]:
    """One row alone: attack, read token by token, join. Also the share of tokens that are read rightly."""
    words = text.split()
    ids = torch.tensor([[2, *(VOCABULARY.index(word) for word in words), 3]])
    mask = torch.ones_like(ids)
    embed = model.encoder.get_input_embeddings()(ids).detach()

    def loss_of(delta: torch.Tensor) -> torch.Tensor:
        logits = model.encoder(inputs_embeds=embed + delta, attention_mask=mask).logits
        return torch.nn.functional.cross_entropy(logits, torch.tensor([label]), reduction="none")

    ball = NormBall(epsilon, 2.5 * epsilon / steps)
    delta = pgd(loss_of, ball, Inputs(embed, mask.bool().unsqueeze(-1)), steps=steps).delta
    states = model.encoder.base_model(inputs_embeds=embed + delta, attention_mask=mask).last_hidden_state
    logits = model.heads["reconstruction"](states, model.encoder.get_input_embeddings().weight)[0].tolist()
    read, right = [], 0
    for word, scores in zip(words, logits[1:-1], strict=True):
        order = sorted(range(len(VOCABULARY)), key=lambda i: -scores[i])
        right += VOCABULARY[order[0]] == word
        read.append(next(VOCABULARY[i] for i in order if VOCABULARY[i] not in SPECIAL))
    return " ".join(read), right / len(words)


def test_a_row_is_read_and_judged_as_by_hand(
    model: TextModel, encoder: TextModel, labelled: Any, tmp_path: Path
) -> None:
    data = relabelled(model, labelled(12))
    report = find_adversaries(
        model, data, reading="whole", epsilons=[0.5], steps=2, closeness=ANY, encoder=encoder, batch_size=5
    )
    plain = AutoModelForSequenceClassification.from_pretrained(model.save(tmp_path / "model"))
    expected, shares, lengths = {}, [], []
    for row, ((text,), label) in enumerate(zip(data.texts, data.labels or [], strict=True)):
        read, share = by_hand(model, text, int(label), 0.5, 2)
        shares.append(share)
        lengths.append(len(text.split()))
        one = plain(**model.tokenizer(read, return_tensors="pt")).logits.argmax().item()
        if one != label:
            expected[row] = (read, LABELS[int(one)])
    assert {one.row: (one.rewritten, one.prediction_rewritten) for one in report.found} == expected
    assert expected
    assert report.attacked == report.rows == 12
    assert report.read[0.5] == pytest.approx(100 * np.average(shares, weights=lengths))


def test_rows_that_are_wrong_already_are_left_alone(model: TextModel, encoder: TextModel, labelled: Any) -> None:
    data = relabelled(model, labelled(8))
    wrong = TextData.from_rows([t[0] for t in data.texts], [(int(y) + 1) % 3 for y in data.labels or []], LABELS)
    report = find_adversaries(model, wrong, reading="whole", epsilons=[1], steps=1, closeness=ANY, encoder=encoder)
    assert (report.rows, report.attacked, report.found, report.success_rate) == (8, 0, [], 0.0)
    assert report.read == {0.0: None, 1.0: None}
    json.dumps(report.to_dict(), allow_nan=False)


def test_special_tokens_neither_go_nor_come(model: TextModel, encoder: TextModel, labelled: Any) -> None:
    favour(model, [*SPECIAL, "good"])
    data = relabelled(model, labelled(10))
    report = find_adversaries(model, data, reading="whole", epsilons=[0.3], steps=1, closeness=ANY, encoder=encoder)
    assert report.found
    for one in report.found:
        assert set(one.rewritten.split()) == {"good"}
        assert len(one.rewritten.split()) == len(one.original.split())
    assert report.read[0.3] == 0


def test_what_the_model_does_not_know_stays(model: TextModel, encoder: TextModel, sentences: Any) -> None:
    favour(model, ["good"])
    data = relabelled(model, TextData.from_rows([f"zzz {text}" for text in sentences(30)]))
    found = find_adversaries(model, data, reading="whole", epsilons=[1], steps=1, closeness=ANY, encoder=encoder).found
    assert found
    for one in found:
        assert one.rewritten.split()[0] == "zzz"


@pytest.mark.parametrize(
    ("closeness", "holds"),
    [
        (ANY, lambda one: True),
        (Closeness(2, 1, -1, INF, -1), lambda one: one.edits <= 2),
        (Closeness(99, 0.5, -1, INF, -1), lambda one: one.share <= 0.5),
        (Closeness(99, 1, 0.97, INF, -1), lambda one: one.similarity >= 0.97),
    ],
)
def test_only_close_ones_are_kept(
    model: TextModel, encoder: TextModel, labelled: Any, closeness: Closeness, holds: Callable[[Any], bool]
) -> None:
    data = relabelled(model, labelled(40))
    report = find_adversaries(model, data, reading="whole", epsilons=[1], steps=1, closeness=closeness, encoder=encoder)
    assert report.found
    assert [holds(one) for one in report.found] == [one.close for one in report.found]
    assert report.kept == [one for one in report.found if one.close]
    assert report.success_rate == pytest.approx(100 * len(report.kept) / 40)
    for one in report.found:
        a, b = encoder.encode([one.original, one.rewritten])
        assert one.similarity == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-3)
        assert one.edits == levenshtein(tuple(words_of(one.original)), tuple(words_of(one.rewritten)))
        assert one.share == one.edits / len(words_of(one.original))


def test_the_smallest_radius_that_does_is_kept(model: TextModel, encoder: TextModel, labelled: Any) -> None:
    data = relabelled(model, labelled(20))
    told: list[int] = []
    given: Any = {"reading": "whole", "steps": 1, "closeness": ANY, "encoder": encoder}
    both = find_adversaries(model, data, epsilons=[2, 0.01], progress=told.append, **given)
    first = find_adversaries(model, data, epsilons=[0.01], **given)
    assert [one for one in both.found if one.epsilon == 0.01] == first.found
    assert first.found
    assert list(both.read) == [0.0, 0.01, 2.0]
    assert sum(told) == 2 * 20


def test_another_model_is_asked(model: TextModel, encoder: TextModel, labelled: Any, tiny_model: Any) -> None:
    other = tiny_model("roberta", dropout=0.0)
    data = relabelled(model, labelled(20))
    report = find_adversaries(
        model, data, reading="whole", epsilons=[1], steps=1, closeness=ANY, encoder=encoder, other=other
    )
    names = []
    for text in ("original", "rewritten"):
        rows = TextData.from_rows([getattr(one, text) for one in report.kept])
        names.append([LABELS[i] for i in predict(other, rows).argmax(1)])
    assert names == [
        [getattr(one, f) for one in report.kept] for f in ("prediction_other_original", "prediction_other")
    ]
    right = [after != one.label for before, after, one in zip(*names, report.kept, strict=True) if before == one.label]
    assert report.against == (len(right), sum(right))


def test_the_model_is_left_as_it_was(model: TextModel, encoder: TextModel, labelled: Any) -> None:
    data = relabelled(model, labelled(6))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    find_adversaries(model, data, reading="whole", epsilons=[1], steps=1, encoder=encoder)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_model_without_the_head_is_told_to_train_rar(tiny_model: Any, labelled: Any) -> None:
    with pytest.raises(UserError, match="reconstruction head") as caught:
        find_adversaries(tiny_model(), labelled(3))
    assert "rar" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"epsilons": []}, "radii"),
        ({"epsilons": [0.0]}, "radii"),
        ({"epsilons": [float("inf")]}, "radii"),
        ({"steps": 0}, "steps"),
        ({"substitutions": 0}, "substitutions"),
        ({"candidates": 0}, "candidates"),
    ],
)
def test_impossible_settings_are_refused(model: TextModel, labelled: Any, settings: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        find_adversaries(model, labelled(3), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_edits": 0},
        {"max_share": 0},
        {"max_share": 1.1},
        {"min_similarity": 2},
        {"max_drop": -0.1},
        {"min_word_similarity": 2},
    ],
)
def test_impossible_closeness_is_refused(settings: Any) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        Closeness(**settings)


def test_pairs_and_other_classes_are_refused(model: TextModel, labelled: Any, tiny_model: Any) -> None:
    with pytest.raises(UserError, match="2 texts"):
        find_adversaries(model, TextData.from_rows([("a", "b")], [0], LABELS))
    with pytest.raises(UserError, match="no, yes"):
        find_adversaries(model, labelled(3), other=tiny_model(labels=("no", "yes")))


def levenshtein(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """From its definition."""

    @cache
    def far(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(far(i - 1, j) + 1, far(i, j - 1) + 1, far(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return far(len(a), len(b))


sentence = st.lists(st.sampled_from(["a", "b", "good", "film", "."]), max_size=7).map(" ".join)


@given(sentence, sentence)
def test_edits_are_levenshteins(a: str, b: str) -> None:
    assert edits(a, b) == levenshtein(tuple(a.split()), tuple(b.split()))
    marked = changed_words(a, b)
    assert [word for word, _ in marked] == b.split()
    kept = [word for word, new in marked if not new]
    assert all(word in a.split() for word in kept)
    assert edits(a, b) >= sum(new for _, new in marked) >= edits(a, b) - len(a.split())


def test_words_and_signs_count() -> None:
    assert words_of("it's so-so.") == ["it's", "so", "-", "so", "."]
    assert edits("a fine film .", "a bad film !") == 2
    assert changed_words("a fine film", "a truly bad film") == [
        ("a", False), ("truly", True), ("bad", True), ("film", False),
    ]  # fmt: skip


def trained(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes (as RoBERTa) or with marked word starts (as ALBERT), trained on a few lines."""
    tokenizer = Tokenizer(models.BPE())
    if kind == "bytes":
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        alphabet = list("".join(TEXTS).replace(" ", "▁"))
    special = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, "a good film of great tales and bad ones"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")


@pytest.fixture(scope="module", params=["words", "bytes", "starts"])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    tokenizer = TextModel.from_pretrained("minilm").tokenizer if request.param == "words" else trained(request.param)
    return Vocabulary(tokenizer, len(tokenizer) + 3)


@pytest.mark.parametrize("text", TEXTS)
def test_a_token_in_its_own_place_changes_nothing(vocabulary: Vocabulary, text: str) -> None:
    ids = vocabulary.tokenizer(text)["input_ids"]
    own = {i: token for i, token in enumerate(ids) if vocabulary.usable[token]}
    assert own
    known = vocabulary.splice(text, own, 64)
    # MiniLM reads lower case without accents: those words come back as it reads them, but for a capital.
    assert vocabulary.tokenizer(known)["input_ids"] == ids
    assert vocabulary.splice(text, {}, 64) == text
    if "ï" not in text and "GRIPPING" not in text:
        assert known == text


@pytest.mark.parametrize(
    ("text", "word", "by", "expected"),
    [
        ("The Film isn't great, really.", "film", "car", "The Car isn't great, really."),
        ("The Film isn't great, really.", ",", "but", "The Film isn't great but really."),
        ("The Film isn't great, really.", ".", "!", "The Film isn't great, really!"),
        ("The Film isn't great, really.", ".", "now", "The Film isn't great, really now"),
        ("so-so", "-", "and", "so and so"),
        ("unflinchingly bleak", "##ly", "##s", "unflinchings bleak"),
    ],
)
def test_a_token_is_spliced_into_the_text_as_it_was_written(text: str, word: str, by: str, expected: str) -> None:
    vocabulary = Vocabulary(TextModel.from_pretrained("minilm").tokenizer, 30522)
    ids = vocabulary.tokenizer.convert_tokens_to_ids
    position = vocabulary.tokenizer(text).tokens().index(word)
    assert vocabulary.splice(text, {position: ids(by)}, 64) == expected


def test_control_tokens_and_unknown_ids_are_not_usable(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    assert len(vocabulary.usable) == len(tokenizer) + 3
    assert not vocabulary.usable[tokenizer.all_special_ids].any()
    assert not vocabulary.usable[-3:].any()
    if "[unused5]" in tokenizer.get_vocab():
        assert not vocabulary.usable[tokenizer.convert_tokens_to_ids("[unused5]")]
        assert vocabulary.usable[tokenizer.convert_tokens_to_ids("[")]
