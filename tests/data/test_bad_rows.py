import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contraverse.data import Splits, load_splits
from contraverse.errors import UserError

GOOD = [f'{{"text": "sentence number {i}", "label": "{"no" if i % 2 else "yes"}"}}' for i in range(10)]


def write(path: Path, lines: list[str | bytes]) -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n")
    return path


def refused(task: str, source: Any, **arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        load_splits(task, source, **arguments)
    return str(error.value)


def kept(task: str, source: Any, **arguments: Any) -> Splits:
    return load_splits(task, source, on_bad_row="skip", validation_fraction=0, **arguments)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "a", "label": null}', "the label is missing"),
        ('{"text": "a", "label": "  "}', "the label is missing"),
        ('{"text": "a", "label": NaN}', "the label is missing"),
        ('{"text": "a"}', "the label is missing"),
        ('{"text": "a", "label": 0.5}', "the label 0.5 is not a class"),
        ('{"text": "a", "label": Infinity}', "the label inf is not a class"),
        ('{"text": "a", "label": ["yes"]}', "the label is a list, not a class"),
        ('{"text": "a", "label": "ye\\u0000s"}', "'label' holds a NUL byte"),
        ('{"text": "", "label": "yes"}', "'text' is empty"),
        ('{"text": " \\t\\u2003\\n", "label": "yes"}', "'text' is empty"),
        ('{"text": null, "label": "yes"}', "'text' is missing"),
        ('{"label": "yes"}', "'text' is missing"),
        ('{"text": 12, "label": "yes"}', "'text' is a int, not text"),
        ('{"text": ["a", "b"], "label": "yes"}', "'text' is a list, not text"),
        ('{"text": {"a": 1}, "label": "yes"}', "'text' is a dict, not text"),
        ('{"text": "a\\u0000b", "label": "yes"}', "'text' holds a NUL byte"),
        ('{"text": "a \\ud83d b", "label": "yes"}', "'text' is not valid UTF-8"),
        (b'{"text": "\xe9t\xe9", "label": "yes"}', "'text' is not valid UTF-8 (byte 0xe9)"),
        ('{"text": "a", "label": "yes"', "is not JSON"),
        ('["a", "yes"]', "is a JSON list, not an object"),
    ],
)
def test_a_bad_row_is_reported_with_its_line_or_left_out_and_counted(tmp_path: Path, line: Any, says: str) -> None:
    path = write(tmp_path / "train.jsonl", [*GOOD[:4], line, *GOOD[4:]])
    error = refused("text", path)
    assert "1 of 11 rows cannot be used" in error
    assert f"{path}, line 5: {says}" in error
    assert "--on-bad-row skip" in error
    splits = kept("text", path)
    assert splits.skipped == 1
    assert len(splits.need("train")) == 10
    assert splits.need("train").label_names == ("no", "yes")
    assert any("1 bad rows left out (line 5" in note and says in note for note in splits.notes)


def test_the_first_few_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["text,label", *(f"text {i},{i % 2}" for i in range(10)), *[",1"] * 20])
    error = refused("text", path)
    assert "20 of 30 rows cannot be used" in error
    assert [f"line {i}:" in error for i in (11, 12, 16, 17)] == [False, True, True, False]
    assert "and 15 more" in error
    splits = kept("text", path)
    assert splits.skipped == 20
    assert any(note.count("line ") == 5 for note in splits.notes)


def test_faults_of_reading_and_of_rows_are_told_in_order_over_all_files(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ["text,label", "a,0", ",1", "b,1", "ragged", "c,0"])
    write(tmp_path / "test.csv", ["text,label", "a,0", "b,7"])
    error = refused("text", tmp_path)
    assert error.index("train.csv, line 3") < error.index("train.csv, line 5") < error.index("test.csv, line 3")
    assert "3 of 7 rows" in error
    assert "the label '7' is unknown (known: 0, 1)" in error
    splits = kept("text", tmp_path)
    assert (splits.skipped, len(splits.need("train")), len(splits.need("test"))) == (3, 3, 1)


def test_latin1_says_what_is_wrong_and_how_to_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes("text,label\ncafé,1\nthé,0\ntea,1\nmilk,0\n".encode("latin-1"))
    error = refused("text", path)
    assert "2 of 4 rows" in error
    assert "line 2: 'text' is not valid UTF-8 (byte 0xe9)" in error
    assert "iconv -f windows-1252 -t utf-8" in error


def test_bytes_that_are_not_utf8_in_a_column_that_is_not_used_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["text,label,author", b"a,1,Ren\xe9", "b,0,Eve"])
    assert len(kept("text", path).need("train")) == 2


def test_parquet_counts_rows(tmp_path: Path) -> None:
    columns = {"text": ["a", None, "b", ""], "label": pa.array([0, 1, 1, 0])}
    parquet.write_table(pa.table(columns), tmp_path / "train.parquet")
    error = refused("text", tmp_path)
    assert "train.parquet, row 2: 'text' is missing" in error
    assert "train.parquet, row 4: 'text' is empty" in error


def test_missing_integers_that_pandas_made_floats_are_still_classes(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", "b", "c"], "label": [0.0, 1.0, None]}), tmp_path / "train.parquet")
    splits = kept("text", tmp_path)
    assert splits.skipped == 1
    assert splits.need("train").label_names == ("0", "1")


@pytest.mark.parametrize(
    ("score", "says"),
    [("", "the score is missing"), ("high", "the score 'high' is not a number"), ("nan", "is not finite")],
)
def test_a_score_that_is_no_number(tmp_path: Path, score: str, says: str) -> None:
    lines = ["sentence1,sentence2,score", "a,b,2.5", f"c,d,{score}", "e,f,5"]
    assert f"line 3: {says}" in refused("stsb", write(tmp_path / "train.csv", lines)).replace("the score 'nan' ", "")
    assert kept("stsb", tmp_path / "train.csv").need("train").labels == [2.5, 5.0]


@pytest.mark.parametrize("score", ["true", '"x"', "[1]", "null"])
def test_a_score_of_the_wrong_type_in_json(tmp_path: Path, score: str) -> None:
    lines = [f'{{"sentence1": "a", "sentence2": "b", "score": {value}}}' for value in ("1.5", score, "2")]
    assert "line 2: the score" in refused("stsb", write(tmp_path / "train.jsonl", lines))


def test_either_text_of_a_pair_may_be_bad(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["sentence1,sentence2,label", "a,b,0", ",b,0", "a, ,1", "c,d,1"])
    error = refused("pair", path)
    assert "line 3: 'sentence1' is empty" in error
    assert "line 4: 'sentence2' is empty" in error


def test_labels_that_are_none_of_the_tasks(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["text,label", "a,Positive", "b,0", "c,neutral", "d,2", "e,NEGATIVE", "f,1"])
    error = refused("sst2", path)
    assert "line 4: the label 'neutral' is unknown (known: negative, positive)" in error
    assert "line 5: the label '2' is unknown" in error
    assert kept("sst2", path).need("train").labels == [1, 0, 0, 1]


def test_a_label_that_training_does_not_know_is_bad_in_validation_and_test(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ["text,label", "a,cat", "b,dog"])
    write(tmp_path / "dev.csv", ["text,label", "c,cat", "d,Dog"])
    write(tmp_path / "test.csv", ["text,label", "e,cow", "f,dog"])
    error = refused("text", tmp_path)
    assert "dev.csv, line 3: the label 'Dog' is unknown (known: cat, dog)" in error
    assert "test.csv, line 2: the label 'cow' is unknown" in error


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["text,label"], "has no rows"),
        (["text,label", "a"], "1 of 1 rows cannot be used"),
        (["text,label", "a,1", "b,1"], "every training row has the label '1'"),
        (["text,label", *(f"{i},label {i}" for i in range(50))], "the label column has 50 different values in 50 rows"),
    ],
)
def test_a_set_that_cannot_be_trained_on(tmp_path: Path, lines: list[str | bytes], says: str) -> None:
    assert says in refused("text", write(tmp_path / "train.csv", lines))


def test_when_every_row_is_bad_skipping_is_no_way_out(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ["text,label", ",1", " ,0"])
    assert "no usable row is left" in refused("text", tmp_path, on_bad_row="skip")
    write(tmp_path / "train.jsonl", ["{", "["])
    assert "no usable row is left" in refused("text", tmp_path / "train.jsonl", on_bad_row="skip")


def test_a_single_class_of_a_tasks_own_is_refused_too(tmp_path: Path) -> None:
    error = refused("sst2", write(tmp_path / "train.csv", ["text,label", "a,positive", "b,1"]))
    assert "every training row has the label 'positive'" in error
    assert "--label" in error


def test_duplicate_headers_are_an_error_whatever_is_done_with_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ["text,label,text", "a,1,b"])
    for on_bad_row in ("error", "skip"):
        assert "more than once" in refused("text", path, on_bad_row=on_bad_row)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(max_size=2), max_size=2)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({"text": VALUES, "label": VALUES}), max_size=12))
def test_any_values_are_kept_or_counted(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = write(tmp_path / "any.jsonl", [*GOOD[:2], *map(json.dumps, rows)])
    splits = load_splits("text", path, validation_fraction=0, on_bad_row="skip")
    train = splits.need("train")
    assert len(train) + splits.skipped == 2 + len(rows)
    assert all(text.strip() and "\0" not in text and text.encode() for (text,) in train.texts)
    assert train.labels is not None
    assert train.label_names is not None
    assert set(train.labels) == set(range(len(train.label_names)))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.lists(st.binary(max_size=30), max_size=6), kind=st.sampled_from(["csv", "tsv", "jsonl", "txt"]))
def test_noise_in_a_file_is_a_user_error_or_counted(tmp_path: Path, noise: list[bytes], kind: str) -> None:
    mark = b"\t" if kind == "tsv" else b","
    good: list[bytes] = [line.encode() for line in GOOD[:4]]
    if kind in ("csv", "tsv"):
        good = [mark.join([b"text", b"label"]), mark.join([b"a", b"1"]), mark.join([b"b", b"0"])]
    path = tmp_path / f"any.{kind}"
    path.write_bytes(b"\n".join([*good, *noise, *good[1:]]))
    try:
        splits = load_splits("sentences" if kind == "txt" else "text", path, on_bad_row="skip", validation_fraction=0)
    except UserError:
        return
    assert len(splits.need("train")) >= (0 if b'"' in b"".join(noise) else len(good[1:]))
