from typing import Any

import pytest

from contraverse.data import get_task
from contraverse.data.columns import Columns, find_columns
from contraverse.data.tables import Table
from contraverse.errors import UserError


def table(**columns: list[Any]) -> Table:
    rows = len(next(iter(columns.values())))
    return Table("train.csv", tuple(columns), lambda name: columns[name], range(1, rows + 1))


TEXTS = [f"this is sentence number {i} of the set" for i in range(8)]
OTHERS = [f"and that is another one, number {i}, which is longer" for i in range(8)]
LABELS = ["yes", "no"] * 4


@pytest.mark.parametrize(
    ("task", "names", "label"),
    [
        ("sst2", ("sentence",), "label"),
        ("cola", ("text",), "label"),
        ("mrpc", ("#1 String", "#2 String"), "Quality"),
        ("qqp", ("question1", "question2"), "is_duplicate"),
        ("rte", ("sentence1", "sentence2"), "label"),
        ("qnli", ("question", "sentence"), "label"),
        ("qnli", ("sentence1", "sentence2"), "label"),
        ("mnli", ("premise", "hypothesis"), "label"),
        ("mnli", ("sentence1", "sentence2"), "gold_label"),
        ("stsb", ("sentence1", "sentence2"), "score"),
        ("stsb", ("sentence1", "sentence2"), "label"),
        ("trec", ("text",), "coarse_label"),
        ("ag_news", ("text",), "label"),
        ("nli", ("sent0", "sent1", "hard_neg"), None),
        ("text", ("Review",), "Sentiment"),
    ],
)
def test_the_names_that_copies_use_need_no_flag(task: str, names: tuple[str, ...], label: str | None) -> None:
    columns = {"id": list(range(8)), **dict.fromkeys(names, TEXTS), **({label: LABELS} if label else {})}
    found, _ = find_columns(table(**columns), get_task(task))
    assert found == Columns(names, label)


def test_trec_takes_the_coarse_label_where_there_are_two() -> None:
    hub = table(text=TEXTS, label=list(range(8)), label_text=TEXTS, label_coarse_original=["HUM"] * 8)
    assert find_columns(hub, get_task("trec"))[0].label == "label_coarse_original"
    assert find_columns(table(text=TEXTS, label=[1] * 8, fine=LABELS), get_task("trec"))[0].label == "label"


def test_an_exact_name_wins_over_another_case() -> None:
    assert find_columns(table(Text=OTHERS, text=TEXTS, label=LABELS), get_task("text"))[0].texts == ("text",)


def test_flags_win_and_leave_no_note() -> None:
    data = table(text=TEXTS, title=OTHERS, label=LABELS, stars=["1", "2"] * 4)
    found, note = find_columns(data, get_task("text"), ["title"], "stars")
    assert found == Columns(("title",), "stars")
    assert note is None


def test_canonical_names_leave_no_note_and_others_do() -> None:
    assert find_columns(table(text=TEXTS, label=LABELS), get_task("text"))[1] is None
    note = find_columns(table(sentence=TEXTS, label=LABELS), get_task("text"))[1]
    assert note is not None
    assert "text from 'sentence'" in note
    assert "by name" in note


def test_columns_are_told_by_content() -> None:
    data = table(id=[str(i) for i in range(8)], short=["ab"] * 8, body_of_mail=TEXTS, verdict=LABELS)
    with pytest.raises(UserError, match="it may be 'verdict', 'other'"):
        find_columns(table(body_of_mail=TEXTS, verdict=LABELS, other=LABELS), get_task("text"))
    found, note = find_columns(table(id=data.column("id"), body_of_mail=TEXTS, verdict=LABELS), get_task("text"))
    assert found == Columns(("body_of_mail",), "verdict")
    assert note is not None
    assert "told by content" in note
    assert "--label" in note


def test_pairs_are_told_by_content_in_the_tables_order() -> None:
    data = table(tag=["x", "y"] * 4, one=OTHERS, two=TEXTS)
    assert find_columns(data, get_task("pair"))[0] == Columns(("one", "two"), "tag")


def test_a_score_is_told_by_content() -> None:
    data = table(one=OTHERS, two=TEXTS, closeness=["1.5", "2", "0.25", "3"] * 2)
    assert find_columns(data, get_task("stsb"))[0].label == "closeness"


def test_a_label_that_is_not_needed_is_not_guessed() -> None:
    data = table(text=TEXTS, domain=LABELS)
    assert find_columns(data, get_task("text"), label_needed=False)[0] == Columns(("text",), None)


def test_a_column_that_is_not_there_lists_the_nearest_first() -> None:
    with pytest.raises(UserError) as error:
        find_columns(table(id=LABELS, review_text=TEXTS, label=LABELS), get_task("text"), ["reviewtext"])
    assert "train.csv: there is no column 'reviewtext'" in str(error.value)
    assert "Its columns: 'review_text'" in str(error.value)


@pytest.mark.parametrize(
    ("task", "columns", "says"),
    [
        ("text", {"id": [1] * 8, "label": LABELS}, "no column for 'text'"),
        ("pair", {"text": TEXTS, "label": LABELS}, "no column for 'sentence1', 'sentence2'"),
        ("text", {"text": TEXTS, "id": list(range(8))}, "which column is the label cannot be told"),
        ("stsb", {"sentence1": TEXTS, "sentence2": OTHERS, "x": LABELS}, "which column is the label cannot be told"),
    ],
)
def test_what_cannot_be_told_names_the_flag(task: str, columns: dict[str, list[Any]], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        find_columns(table(**columns), get_task(task))
    assert "--text" in str(error.value) or "--label" in str(error.value)


def test_the_wrong_number_of_texts_names_the_task_for_them() -> None:
    data = table(a=TEXTS, b=OTHERS, label=LABELS)
    with pytest.raises(UserError, match="takes 1 text column") as error:
        find_columns(data, get_task("text"), ["a", "b"])
    assert "--task pair" in str(error.value)
    with pytest.raises(UserError, match="--task text"):
        find_columns(data, get_task("pair"), ["a"])


def test_a_label_for_a_task_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="has no label"):
        find_columns(table(text=TEXTS, label=LABELS), get_task("sentences"), None, "label")
