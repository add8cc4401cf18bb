"""Tasks whose copies call columns and classes by other names: read by name, never by the order of numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from contraverse.data import get_task, load_splits
from contraverse.errors import UserError

PAIRS = [("It rains.", "It pours."), ("It rains.", "It is wet."), ("It rains.", "It is dry."), ("It rains.", "Why?")]
Serve = Callable[..., None]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """``hub(label, names, train={...}, test={...})``: a Hub of one data set, whose column ``label`` has these names."""

    def serve(label: str, names: list[str], **splits: dict[str, list[Any]]) -> None:
        made = datasets.DatasetDict({name: datasets.Dataset.from_dict(rows) for name, rows in splits.items()})
        made = made.cast_column(label, datasets.ClassLabel(names=names))
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_: made)

    return serve


def pairs(labels: list[Any], first: str = "premise", second: str = "hypothesis") -> dict[str, list[Any]]:
    chosen = PAIRS[: len(labels)]
    return {first: [a for a, _ in chosen], second: [b for _, b in chosen], "label": labels}


def jsonl(path: Path, rows: dict[str, list[Any]]) -> Path:
    lines = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(task: str, source: Any = None) -> list[int | float]:
    return list(load_splits(task, source, validation_fraction=0).need("train").labels or [])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["entailment", "neutral", "contradiction"], [0, 1, 2]),
        (["contradiction", "entailment", "neutral"], [2, 0, 1]),
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], [2, 1, 0]),
        (["SUPPORTS", "REFUTES", "NOT ENOUGH INFO"], [0, 2, 1]),
        (["e", "c", "n"], [0, 2, 1]),
    ],
)
def test_the_names_of_a_source_and_not_its_numbers_are_its_classes(
    hub: Serve, names: list[str], expected: list[int]
) -> None:
    hub("label", names, train=pairs([0, 1, 2]))
    assert read("snli") == expected


def test_a_source_that_shares_some_names_is_not_read_by_number(hub: Serve) -> None:
    hub("label", ["entailment", "not_entailment"], train=pairs([0, 1, 1]))
    with pytest.raises(UserError, match="the label 'not_entailment' is unknown"):
        read("snli")


def test_a_models_own_classes_in_another_order_or_number(tmp_path: Path) -> None:
    """``evaluate`` puts the model's classes in the place of the task's."""
    file = jsonl(tmp_path / "train.jsonl", pairs(["e", "c", "n"]))
    turned = replace(get_task("snli"), labels=("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    assert load_splits(turned, file, validation_fraction=0).need("train").labels == [2, 0, 1]
    with pytest.raises(UserError, match="the label 'c' is unknown"):
        load_splits(replace(turned, labels=("entailment", "not_entailment")), file)


def test_snlis_rows_without_a_gold_label_are_left_out_and_counted(hub: Serve, tmp_path: Path) -> None:
    names = ["entailment", "neutral", "contradiction"]
    hub("label", names, train=pairs([0, -1, 2, 1]), validation=pairs([-1, 0]), test=pairs([1, -1, 2]))
    splits = load_splits("snli", None)
    assert splits.need("train").labels == [0, 2, 1]
    assert splits.need("train").texts == [PAIRS[0], PAIRS[2], PAIRS[3]]
    assert splits.need("validation").labels == [0]
    assert splits.need("test").labels == [1, 2]
    assert splits.skipped == 0
    assert "stanfordnlp/snli train: 1 rows left out for their label (1 '-1')" in splits.notes
    rows = pairs(["-", "neutral", "-", "entailment"], "sentence1", "sentence2")
    rows["gold_label"] = rows.pop("label")
    original = load_splits("snli", jsonl(tmp_path / "snli_1.0_train.jsonl", rows), validation_fraction=0)
    assert original.need("train").labels == [1, 0]
    assert any("2 rows left out for their label (2 '-')" in note for note in original.notes)


def test_rows_that_are_left_out_hide_no_bad_row(tmp_path: Path) -> None:
    rows = pairs([-1, 0, 3, 2])
    with pytest.raises(UserError, match=r"1 of 4 rows cannot be used:\n.*line 3: the label '3' is unknown"):
        read("snli", jsonl(tmp_path / "train.jsonl", rows))


def test_the_original_files_of_anli(tmp_path: Path) -> None:
    rows = pairs(["c", "e", "n"], "context", "hypothesis")
    for name in ("train", "dev", "test"):
        jsonl(tmp_path / "R2" / f"{name}.jsonl", {**rows, "reason": ["x", "y", "z"], "uid": ["1", "2", "3"]})
    splits = load_splits("anli_a2", tmp_path / "R2")
    for name in ("train", "validation", "test"):
        assert getattr(splits, name).labels == [2, 0, 1]
        assert getattr(splits, name).texts == PAIRS[:3]


def test_the_rounds_on_the_hub_alone_and_together(hub: Serve) -> None:
    splits: dict[str, dict[str, list[Any]]] = {}
    for i in (1, 2, 3):
        for name in ("train", "dev", "test"):
            splits[f"{name}_r{i}"] = {**pairs([0, 1, 2]), "uid": [f"{name}{i}{j}" for j in range(3)]}
            splits[f"{name}_r{i}"]["hypothesis"] = [f"{name} {i} {j}" for j in range(3)]
    hub("label", ["entailment", "neutral", "contradiction"], **splits)
    alone = load_splits("anli_a3", None)
    assert alone.need("validation").texts == [("It rains.", f"dev 3 {j}") for j in range(3)]
    together = load_splits("anli", None)
    for ours, theirs in (("train", "train"), ("validation", "dev"), ("test", "test")):
        data = getattr(together, ours)
        assert data.texts == [("It rains.", f"{theirs} {i} {j}") for i in (1, 2, 3) for j in range(3)]
        assert data.labels == [0, 1, 2] * 3


def test_fevers_claim_is_the_hypothesis_in_every_copy(hub: Serve, tmp_path: Path) -> None:
    labels = ["REFUTES", "SUPPORTS", "NOT ENOUGH INFO"]
    evidence, claims = [a for a, _ in PAIRS[:3]], [b for _, b in PAIRS[:3]]
    original = {"cid": [1, 2, 3], "query": claims, "context": evidence, "label": labels}
    train = load_splits("fever-nli", jsonl(tmp_path / "train_fitems.jsonl", original), validation_fraction=0).need(
        "train"
    )
    assert (train.texts, train.labels) == (PAIRS[:3], [2, 0, 1])

    # The Hub's copy has the names the wrong way round; a file of one's own has not.
    swapped = {"premise": claims, "hypothesis": evidence, "fever_gold_label": labels, "label": [2, 0, 1]}
    hidden = {**swapped, "label": [-1] * 3, "fever_gold_label": ["not available"] * 3}
    hub("label", ["entailment", "neutral", "contradiction"], train=swapped, dev=swapped, test=hidden)
    splits = load_splits("fever-nli", None)
    assert splits.need("train").texts == splits.need("validation").texts == PAIRS[:3]
    assert splits.need("train").labels == [2, 0, 1]
    assert splits.test is None
    own = {"premise": evidence, "hypothesis": claims, "label": labels}
    assert load_splits("fever-nli", jsonl(tmp_path / "own.jsonl", own)).need("train").texts[0][0] == "It rains."


def test_columns_that_are_named_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = {**pairs([0, 1, 2]), "fever_gold_label": ["SUPPORTS"] * 3}
    file = jsonl(tmp_path / "train.jsonl", rows)
    assert load_splits("fever-nli", file, text=["premise", "hypothesis"]).need("train").texts[0][0] == "It rains."


def test_fevers_original_dev_set_hides_its_labels(tmp_path: Path) -> None:
    shown = {"query": [f"claim {i}" for i in range(30)], "context": ["c"] * 30, "label": ["SUPPORTS", "REFUTES"] * 15}
    jsonl(tmp_path / "train.jsonl", shown)
    jsonl(tmp_path / "dev.jsonl", {"query": ["q", "r"], "context": ["c", "d"], "label": ["hidden", "hidden"]})
    splits = load_splits("fever-nli", tmp_path)
    assert (len(splits.need("train")), len(splits.need("validation"))) == (27, 3)
    assert any("2 rows left out for their label (2 'hidden')" in note for note in splits.notes)


YAHOO = ["Society & Culture", "Science & Mathematics", "Health", "Education & Reference", "Computers & Internet"]
OTHERS = ["Sports", "Business & Finance", "Entertainment & Music", "Family & Relationships", "Politics & Government"]


def test_yahoos_three_texts_are_one_and_five_topics_are_left_out(hub: Serve) -> None:
    rows = {
        "id": list(range(12)),
        "topic": [*range(10), 4, 2],
        "question_title": [f"title {i}" for i in range(12)],
        "question_content": [f"content {i}" if i % 2 else "" for i in range(12)],
        "best_answer": [f"answer {i}" if i != 3 else None for i in range(12)],
    }
    hub("topic", YAHOO + OTHERS, train=rows, test=rows)
    splits = load_splits("yahoo_answers", None, validation_fraction=0)
    train = splits.need("train")
    assert train.labels == [0, 1, 2, 3, 4, 4, 2]
    assert train.texts[:4] == [
        ("title 0 answer 0",),
        ("title 1 content 1 answer 1",),
        ("title 2 answer 2",),
        ("title 3 content 3",),
    ]
    left = ", ".join(f"1 '{name}'" for name in OTHERS)
    where = "community-datasets/yahoo_answers_topics train"
    assert f"{where}: 5 rows left out for their label ({left})" in splits.notes


def test_a_row_of_yahoo_without_any_text_is_bad(hub: Serve) -> None:
    empty = {"topic": [0, 1], "question_title": ["a", ""], "question_content": ["", " "], "best_answer": ["b", None]}
    hub("topic", YAHOO + OTHERS, train=empty)
    with pytest.raises(UserError, match="row 2: 'text' is empty"):
        read("yahoo_answers")


def test_bare_numbers_are_no_topics_of_yahoo(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "train.jsonl", {"text": ["a", "b", "c"], "label": [0, 1, 0]})
    with pytest.raises(UserError, match=r"the label '0' is unknown \(known: Society.*--task text alone"):
        read("yahoo_answers", file)
    assert read("text", file) == [0, 1, 0]


def test_yelps_names_on_the_hub_are_one_and_two(hub: Serve) -> None:
    hub("label", ["1", "2"], train={"text": ["bad", "good", "awful"], "label": [0, 1, 0]})
    train = load_splits("yelp_polarity", None, validation_fraction=0).need("train")
    assert (train.labels, train.label_names) == ([0, 1, 0], ("negative", "positive"))


def test_the_original_file_of_yelp_is_refused_and_not_shifted(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,text\n1,bad\n2,good\n")
    with pytest.raises(UserError, match="the label '2' is unknown"):
        read("yelp_polarity", tmp_path)
