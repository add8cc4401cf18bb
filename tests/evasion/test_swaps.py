"""Words substituted: of the same inflection, near in embedding, close as `adversaries` has it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.letters import by_letters
from transformers import AutoConfig, AutoModelForMaskedLM

from contraverse import TextModel
from contraverse.data import TextData, get_task
from contraverse.data.dataset import TextSplits
from contraverse.data.mixture import with_adversaries
from contraverse.evaluation.adversaries import Closeness, words_of
from contraverse.evaluation.adversaries.judging import Comparer
from contraverse.evaluation.adversaries.substitutes import akin, ending, is_content
from contraverse.evasion import (
    Edits,
    FromEmbeddings,
    FromMaskedLM,
    FunctionTarget,
    SearchSettings,
    Swaps,
    evade,
    pools_of_classes,
)
from contraverse.evasion.search import Node

TEXTS = (
    "Good people work long, and the old state is little",
    "these men make new years",
    "people see well how good work is",
    "how long must men see this world?",
)
ANY = Closeness(max_edits=9, max_share=1, min_similarity=-1, max_drop=float("inf"), min_word_similarity=-1)


@pytest.fixture
def encoder(tiny_model: Callable[..., TextModel]) -> TextModel:
    model = tiny_model(labels=None, dropout=0)
    with torch.no_grad():  # untrained words lie far apart: bring them near enough for the rules
        model.encoder.get_input_embeddings().weight += 0.5
    return model


@pytest.fixture
def rows() -> TextData:
    return TextData.from_rows(list(TEXTS), by_letters(list(TEXTS)).argmax(1).tolist(), ["no", "yes"])


def swaps(encoder: TextModel, data: TextData, closeness: Closeness = ANY) -> Swaps:
    comparer = Comparer(data, np.asarray(data.labels), encoder, closeness, 8)
    return Swaps(FromEmbeddings(encoder), comparer)


def test_substitutes_keep_to_the_rules(encoder: TextModel, rows: TextData) -> None:
    attack = swaps(encoder, rows)
    for (text,) in rows.texts:
        node = Node(text, 0.0, 0)
        places = attack.places(node, len(text))
        assert places
        for place in places:
            old = text[place.start : place.end]
            assert is_content(old.lower())
            for change in attack.changes(node, place):
                assert (change.start, change.end) == place
                assert is_content(change.new.lower())
                assert ending(change.new.lower()) == ending(old.lower())
                assert not akin(change.new.lower(), old.lower())
                assert change.new[0].isupper() == old[0].isupper()


def test_at_most_so_many_words_change(encoder: TextModel, rows: TextData) -> None:
    target = FunctionTarget(by_letters, ["no", "yes"])
    report = evade(target, rows, swaps(encoder, rows), budgets=[1, 2], settings=SearchSettings(beam=4, width=40))
    assert report.broken
    for row in report.broken:
        before, after = words_of(rows.texts[row.row][0]), words_of(row.rewritten[0] if row.rewritten else "")
        assert sum(a != b for a, b in zip(before, after, strict=True)) == row.changes
        assert row.changes in (1, 2)


def test_what_is_not_close_is_no_success(encoder: TextModel, rows: TextData) -> None:
    target = FunctionTarget(by_letters, ["no", "yes"])
    closeness = Closeness(max_edits=9, max_share=1, min_similarity=1, max_drop=float("inf"))
    report = evade(target, rows, swaps(encoder, rows, closeness), budgets=[2])
    assert report.broken == []


def test_a_masked_language_model_gives_other_words(
    encoder: TextModel, rows: TextData, tiny_folder: Callable[..., Any]
) -> None:
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(tiny_folder("bert", 0.0)))
    source = FromMaskedLM(model, encoder.tokenizer, 32, count=200)
    attack = Swaps(source, Comparer(rows, np.asarray(rows.labels), encoder, ANY, 8))
    node = Node(TEXTS[0], 0.0, 0)
    changes = [change for place in attack.places(node, 99) for change in attack.changes(node, place)]
    assert changes
    ids = encoder.tokenizer(TEXTS[0])["input_ids"]
    options = source.candidates(ids)
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    for at, tokens in options.items():
        values = logits[at][tokens]
        assert (values[:-1] >= values[1:]).all()


def test_words_that_speak_for_another_class() -> None:
    texts = ["free money now", "free prize now", "see you at lunch", "lunch is at noon"]
    data = TextData.from_rows(texts, [1, 1, 0, 0], ["ham", "spam"])
    pools = pools_of_classes(data, 0)
    assert pools[1][:2] == ["at", "lunch"]
    assert pools[0][:2] == ["free", "now"]


def test_what_evades_is_further_training_data(rows: TextData, tmp_path: Path) -> None:
    report = evade(FunctionTarget(by_letters, ["no", "yes"]), rows, Edits(), budgets=[4])
    assert report.successes
    file = tmp_path / "found.jsonl"
    file.write_text("".join(json.dumps(success.to_dict()) + "\n" for success in report.successes))
    train, note = with_adversaries(TextSplits(rows, None, None, get_task("text")), file)
    assert len(train) == len(rows) + len(report.successes)
    assert f"{len(report.successes)} adversaries added" in note
