"""`TextData.from_csv` and its kin: the rows of a table as Python takes them, with the command line's errors."""

import gzip
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from contraverse.data import TextData, load_splits
from contraverse.errors import UserError

TEXTS = [f"where is parcel {i}" for i in range(10)]
NAMES = ["delivery" if i % 3 else "billing" for i in range(10)]
COLUMNS = {"text": TEXTS, "label": NAMES}
PAIRS = {"premise": ["a b", "c d", "e f"], "hypothesis": ["g", "h", "i"], "score": ["0.5", "3", "4.25"]}


def csv(folder: Path, columns: dict[str, list[Any]], name: str = "rows.csv") -> Path:
    pd.DataFrame(columns).to_csv(folder / name, index=False)
    return folder / name


@pytest.fixture(params=["csv", "pandas", "list", "datasets", "jsonl", "parquet", "csv.gz"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A function from columns and arguments to `TextData`, by each way in."""

    def of(columns: dict[str, list[Any]], **arguments: Any) -> TextData:
        frame = pd.DataFrame(columns)
        file = tmp_path / f"rows.{request.param}"
        if request.param == "pandas":
            return TextData.from_pandas(frame, **arguments)
        if request.param == "list":
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            return TextData.from_list(rows, **arguments)
        if request.param == "datasets":
            return TextData.from_dataset(datasets.Dataset.from_dict(columns), **arguments)
        if request.param == "jsonl":
            frame.to_json(file, orient="records", lines=True)
        elif request.param == "parquet":
            frame.to_parquet(file)
        elif request.param == "csv.gz":
            file.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
        else:
            frame.to_csv(file, index=False)
        return TextData.from_csv(file, **arguments)

    return of


def test_names_of_classes_become_ids_in_sorted_order(read: Any) -> None:
    data = read(COLUMNS)
    assert data.texts == [(text,) for text in TEXTS]
    assert data.label_names == ("billing", "delivery")
    assert data.labels == [int(name == "delivery") for name in NAMES]
    assert data.notes == []


def test_given_names_of_classes_keep_their_order(read: Any) -> None:
    data = read(COLUMNS, label_names=["returns", "delivery", "billing"])
    assert data.label_names == ("returns", "delivery", "billing")
    assert data.labels == [1 if name == "delivery" else 2 for name in NAMES]


def test_other_columns_are_named_or_told_by_what_they_hold(read: Any) -> None:
    columns = {"id": list(range(10)), "mail": TEXTS, "queue": NAMES}
    named, told = read(columns, text="mail", label="queue"), read(columns)
    assert (named.texts, named.labels) == (told.texts, told.labels) == (read(COLUMNS).texts, read(COLUMNS).labels)
    (note,) = told.notes
    assert "text from 'mail', label from 'queue' (told by content; text= and label= name others)" in note


def test_pairs_and_scores(read: Any) -> None:
    data = read(PAIRS)
    assert data.columns == ("sentence1", "sentence2")
    assert data.texts == [("a b", "g"), ("c d", "h"), ("e f", "i")]
    assert (data.labels, data.label_names) == ([0.5, 3.0, 4.25], None)


def test_a_question_beside_a_sentence_is_a_pair(read: Any) -> None:
    assert read({"question": ["a", "b"], "sentence": ["c", "d"], "label": ["x", "y"]}).texts == [("a", "c"), ("b", "d")]


def test_triplets_and_plain_sentences_have_no_labels(read: Any) -> None:
    triplets = read({"anchor": ["a"], "positive": ["b"], "negative": ["c"]})
    assert (triplets.texts, triplets.labels) == ([("a", "b", "c")], None)
    assert read({"sentence": TEXTS}).labels is None
    assert read(COLUMNS, label=False).labels is None
    assert read(PAIRS, label=False).texts[1] == ("c d", "h")


def test_a_table_without_a_label_says_so(read: Any) -> None:
    data = read({"text": TEXTS, "id": list(range(10))})
    assert data.labels is None
    assert any("no label column was found among 'id'" in note for note in data.notes)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_label_is_an_error_that_names_its_row(read: Any, missing: Any) -> None:
    columns = {"text": TEXTS, "label": [*NAMES[:4], missing, *NAMES[5:]]}
    with pytest.raises(UserError, match=r"(row 5|line [56]): the label is missing") as error:
        read(columns)
    assert error.value.hint == 'Mend them, or leave them out with on_bad_row="skip".'
    data = read(columns, on_bad_row="skip")
    assert len(data) == 9
    assert any("1 bad rows left out" in note for note in data.notes)


def test_labels_that_are_all_missing_are_none(read: Any) -> None:
    for labels in ([-1] * 10, [""] * 10):
        data = read({"text": TEXTS, "label": labels})
        assert data.labels is None
        assert any("no row has a label in 'label'" in note for note in data.notes)


def test_a_bad_text_names_file_line_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "mails.csv"
    file.write_text("text,label\na,x\n ,y\nb\n")
    with pytest.raises(UserError) as error:
        TextData.from_csv(file)
    assert f"{file}, line 3: 'text' is empty" in error.value.what
    assert f"{file}, line 4: has 1 fields, the header has 2" in error.value.what


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": "body"}, "there is no column 'body'"),
        ({"label": "class"}, "there is no column 'class'"),
        ({"text": ["text", "text", "label", "label"]}, "one, two or three texts, not 4"),
        ({"task": "snil"}, 'no task is called "snil"'),
        ({"task": "pair"}, "no column for 'sentence1', 'sentence2'.*\n.*text="),
        ({"label_names": ["delivery", "returns"]}, "the label 'billing' is unknown"),
        ({"on_bad_row": "skips"}, "on_bad_row is error or skip, not 'skips'"),
    ],
)
def test_a_wrong_argument_is_named(read: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        read(COLUMNS, **arguments)
    assert "--" not in str(error.value)


def test_a_task_brings_its_columns_and_classes(read: Any) -> None:
    data = read({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0]}, task="mrpc")
    assert data.label_names == ("not_equivalent", "equivalent")
    assert data.labels == [1, 0]


def test_a_file_of_broken_lines_alone_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na\nb,c,d\n")
    with pytest.raises(UserError, match=r"line 2: has 1 fields.*\n.*line 3: has 3 fields"):
        TextData.from_csv(tmp_path / "a.csv")


def test_how_a_file_is_written_is_given_as_to_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mails.csv"
    file.write_bytes("text|label\nGrüße|x\nTschüß|y\n".encode("latin-1"))
    assert TextData.from_csv(file, delimiter="|", encoding="latin-1").texts == [("Grüße",), ("Tschüß",)]
    with pytest.raises(UserError, match='encoding="windows-1252"'):
        TextData.from_csv(file)
    with pytest.raises(UserError, match="there is no such file"):
        TextData.from_csv(tmp_path / "mail.csv")


def hub(labels: list[int]) -> datasets.Dataset:
    names = datasets.ClassLabel(names=["spam", "ham", "news"])
    return datasets.Dataset.from_dict(
        {"sentence": [f"text {i}" for i in range(len(labels))], "label": labels},
        features=datasets.Features({"sentence": datasets.Value("string"), "label": names}),
    )


def test_a_class_label_keeps_its_names_in_the_order_of_its_ids() -> None:
    data = TextData.from_dataset(hub([2, 0, 2]))
    assert (data.labels, data.label_names) == ([2, 0, 2], ("spam", "ham", "news"))


def test_a_dataset_dict_becomes_splits_with_one_set_of_classes() -> None:
    splits = TextData.from_dataset(
        datasets.DatasetDict({"train": hub([2, 0]), "dev": hub([1, 1]), "test": hub([-1, -1]), "extra": hub([0])})
    )
    assert splits.need("train").labels == [2, 0]
    assert splits.need("validation").labels == [1, 1]
    assert splits.need("validation").label_names == ("spam", "ham", "news")
    assert splits.test is None
    assert "left out the splits extra" in splits.notes
    with pytest.raises(UserError, match="no split is called train, validation or test: a, b"):
        TextData.from_dataset(datasets.DatasetDict({"a": hub([0]), "b": hub([1])}))


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(UserError, match="a data frame of pandas is wanted, not a list"):
        TextData.from_pandas([])
    with pytest.raises(UserError, match="a Dataset or DatasetDict of datasets is wanted, not a DataFrame"):
        TextData.from_dataset(pd.DataFrame(COLUMNS))
    with pytest.raises(UserError, match="a list of dicts is wanted"):
        TextData.from_list(["a", "b"])  # type: ignore[list-item]
    with pytest.raises(UserError, match="has no rows"):
        TextData.from_list([])


def test_a_list_of_dicts_is_a_source_of_splits() -> None:
    rows = [{"text": text, "label": name} for text, name in zip(TEXTS, NAMES, strict=True)]
    splits = load_splits("text", rows, validation_fraction=0)
    assert splits.need("train").texts == [(text,) for text in TEXTS]
    assert splits.need("train").label_names == ("billing", "delivery")
    assert load_splits("text", {"train": rows, "test": rows[:4]}).need("test").texts == [(text,) for text in TEXTS[:4]]
    with pytest.raises(UserError, match="the table, row 2: 'text' is missing"):
        load_splits("text", [rows[0], {"label": "billing", "text": None}, *rows])
    with pytest.raises(UserError, match=r"data.source\[0\]: there is no such|data.source\[1\]: no setting of a source"):
        load_splits("text", [{"source": "a.csv"}, {"source": "b.csv", "wieght": 2}])


def test_a_split_has_a_seed_of_its_own(read: Any) -> None:
    train, test = read(COLUMNS).split(0.2, seed=0)
    assert (len(train), len(test)) == (8, 2)
    assert sorted(train.texts + test.texts) == [(text,) for text in TEXTS]
    assert test.label_names == ("billing", "delivery")


def test_it_shows_itself_in_one_line(tmp_path: Path) -> None:
    file = csv(tmp_path, COLUMNS)
    assert repr(TextData.from_csv(file)) == f"TextData(10 rows of text, 2 classes, from {file})"
    assert repr(TextData.from_rows(["a"])) == "TextData(1 rows of text, no labels, from memory)"
