import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contraverse.data.files import EXTENSIONS, read_table
from contraverse.errors import UserError


def read(path: Path, data: str | bytes, **arguments: Any) -> dict[str, list[Any]]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    table = read_table(path, **arguments)
    assert not table.faults
    return {name: list(table.column(name)) for name in table.names}


ROWS = {"text": ["good", "bad, very", 'so "so"'], "label": ["1", "0", "1"]}
CSV = 'text,label\ngood,1\n"bad, very",0\n"so ""so""",1\n'


@pytest.mark.parametrize(
    "data",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace("\n", "\r"),
        CSV.removesuffix("\n"),
        CSV.replace("1\n", "1\n\n"),
        CSV.replace("text,label", " text , label "),
        'text;label\ngood;1\n"bad, very";0\n"so ""so""";1\n',
    ],
)
def test_csv(tmp_path: Path, data: str) -> None:
    assert read(tmp_path / "a.csv", data) == ROWS


def test_csv_with_line_breaks_in_quotes_counts_physical_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert read(path, 'text,label\n"two\nlines",1\nnext,0\n')["text"] == ["two\nlines", "next"]
    assert list(read_table(path).rows) == [2, 4]


def test_missing_value_words_are_text(tmp_path: Path) -> None:
    words = ["None", "NA", "null", "NaN", "n/a", "nan", "#N/A", "True", "007", "1e5"]
    assert read(tmp_path / "a.csv", "text,label\n" + "".join(f"{word},x\n" for word in words))["text"] == words


def test_tsv_of_glue_is_not_quoted(tmp_path: Path) -> None:
    data = 'Quality\tA\tB\n1\t"Yes , he said .\tHe said " yes " .\n0\t"No" , she said .\t"Never .\n'
    assert read(tmp_path / "train.tsv", data) == {
        "Quality": ["1", "0"],
        "A": ['"Yes , he said .', '"No" , she said .'],
        "B": ['He said " yes " .', '"Never .'],
    }


def test_tsv_that_is_quoted(tmp_path: Path) -> None:
    found = read(tmp_path / "a.tsv", 'text\tlabel\n"a ""b""\nd"\t1\n"a\ttab"\t0\n')
    assert found == {"text": ['a "b"\nd', "a\ttab"], "label": ["1", "0"]}


def test_quotes_of_glue_that_happen_to_pair_up(tmp_path: Path) -> None:
    data = 'sentence\tlabel\n"never again\t0\nhe said"\t1\n'
    assert read(tmp_path / "train.tsv", data) == {"sentence": ['"never again', 'he said"'], "label": ["0", "1"]}


def test_a_long_document_is_one_field(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.csv", f"text,label\n{'word ' * 50_000},1\n")["text"][0]) == 250_000


def test_a_headerless_table_is_known_by_its_number(tmp_path: Path) -> None:
    names = ("source", "label", "mark", "text")
    found = read(tmp_path / "a.tsv", "gj04\t1\t\tThe sailors rode .\nbc01\t0\t*\tHim like .\n", headerless=names)
    assert found["text"] == ["The sailors rode .", "Him like ."]
    found = read(tmp_path / "b.tsv", "a\tb\tc\td\n1\t2\t3\t4\n", headerless=names)
    assert found == {"a": ["1"], "b": ["2"], "c": ["3"], "d": ["4"]}


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json"])
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    data = '\ufeff{"text": "a", "label": 1}\n\n{"text": "b\\u2028c"}\r\n'
    assert read(tmp_path / f"a.{suffix}", data) == {"text": ["a", "b\u2028c"], "label": [1, None]}
    assert list(read_table(tmp_path / f"a.{suffix}").rows) == [1, 3]


def test_json_list(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    assert read(tmp_path / "a.json", json.dumps(rows, indent=2)) == {"text": ["a", "b"], "label": [1, 0]}


def test_text_is_cut_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert read(path, "one\u2028same\x0bsame\r\n\n  \nthree")["text"] == ["one\u2028same\x0bsame", "three"]
    table = read_table(path)
    assert (list(table.rows), table.blank) == ([1, 4], 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "ä"]),
        pa.array(["a", None, "ä"], pa.large_string()),
        pa.array(["a", None, "ä"]).dictionary_encode(),
        pa.array([b"a", None, "ä".encode()], pa.binary()),
    ],
)
def test_parquet_strings_of_every_type(tmp_path: Path, column: pa.Array) -> None:
    parquet.write_table(pa.table({"text": column, "label": [0, 1, 2]}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table.column("text") == ["a", None, "ä"]
    assert table.column("label") == [0, 1, 2]
    assert (list(table.rows), table.unit) == ([1, 2, 3], "row")


def test_parquet_keeps_bytes_that_are_not_utf8_for_the_row_to_report(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xe9t\xe9"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").column("text") == ["fine", "\udce9t\udce9"]


def test_parquet_knows_the_class_names_that_datasets_wrote(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}, features).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").classes == {"label": ["pos", "neg"]}


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
@pytest.mark.parametrize("kind", EXTENSIONS)
def test_every_kind_may_be_compressed(tmp_path: Path, kind: str, suffix: str, pack: Any) -> None:
    plain = tmp_path / f"plain{kind}"
    if kind == ".parquet":
        parquet.write_table(pa.table({"text": ["good", "bad"]}), plain)
    else:
        row = '{"text": "%s"}' if "json" in kind else "%s"
        head = ["text"] if kind in (".csv", ".tsv") else []
        plain.write_text("\n".join([*head, row % "good", row % "bad"]))
    assert read(tmp_path / f"a{kind}{suffix}", pack(plain.read_bytes())) == {"text": ["good", "bad"]}


def fault_lines(path: Path, data: str) -> list[tuple[int, str]]:
    path.write_text(data)
    return [(fault.row, fault.problem) for fault in read_table(path).faults]


def test_ragged_rows_are_faults_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    found = fault_lines(path, 'text,label\n"a\nb",1\nc\nd,1,2\ne,0\n')
    assert found == [(4, "has 1 fields, the header has 2"), (5, "has 3 fields, the header has 2")]
    assert list(read_table(path).column("text")) == ["a\nb", "e"]


def test_a_quote_gone_wrong_costs_its_own_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    found = fault_lines(path, 'text,label\nfine,1\n"never closed,0\nalso fine,1\n"he said "no"",0\n"last one,0\n')
    assert [line for line, _ in found] == [3, 5, 6]
    assert all("double quote" in problem for _, problem in found)
    assert list(read_table(path).column("text")) == ["fine", "also fine"]


def test_many_broken_quotes_take_no_quadratic_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    found = fault_lines(path, "text,label\n" + '"broken,1\n' * 20_000)
    assert len(found) >= 10_000


def test_malformed_json_lines_are_faults(tmp_path: Path) -> None:
    found = fault_lines(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": \n[1]\n"b"\n' + "[" * 100_000 + "\n")
    assert [line for line, _ in found] == [2, 3, 4, 5]
    assert found[1][1] == "is a JSON list, not an object"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n\n", "is empty"),
        ("a.csv", b"text,label,text\na,1,b\n", "the header names 'text' more than once"),
        ("a.tsv", b"text\t text\na\tb\n", "the header names 'text' more than once"),
        ("a.csv", b'"text,label\na,1\n', "the header has a double quote"),
        ("a.csv", b"text,sujet d'\xe9t\xe9\na,1\n", "the header is not valid UTF-8"),
        ("a.csv", "text,label\na,1\n".encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a.parquet", b"", "cannot be read as Parquet"),
        ("a.parquet", b"PAR1 nothing of the kind PAR1", "cannot be read as Parquet"),
        ("a.json", b'[{"text": "a"},', "is not JSON"),
        ("a.csv.gz", b"text,label\n", "cannot be unpacked"),
        ("a.csv.gz", gzip.compress(b"text,label\n" * 100, mtime=0)[:-20], "cannot be unpacked"),
        ("a.csv.bz2", b"BZh9 no", "cannot be unpacked"),
        ("a.xlsx", b"PK", "a file that ends in '.xlsx' cannot be read"),
        ("a", b"text", "a file without an ending cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=says) as error:
        read_table(path)
    assert str(error.value).startswith(str(path))


def test_a_parquet_file_that_names_a_column_twice(tmp_path: Path) -> None:
    parquet.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "a.parquet"
    )
    with pytest.raises(UserError, match="names 'text' more than once"):
        read_table(tmp_path / "a.parquet")


def test_a_file_that_is_not_there_lists_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("text\n")
    (tmp_path / "train.csv").write_text("text\n")
    with pytest.raises(UserError, match="no such file") as error:
        read_table(tmp_path / "trainn.csv")
    assert "In that folder: train.csv, other.csv" in str(error.value)
    with pytest.raises(UserError, match="is not there either"):
        read_table(tmp_path / "no" / "train.csv")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), kind=st.sampled_from([*EXTENSIONS, ".csv.gz", ".csv.bz2"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / f"any{kind}"
    path.write_bytes(data)
    try:
        table = read_table(path)
    except UserError:
        return
    for name in table.names:
        assert len(table.column(name)) == len(table.rows)
    assert len({*table.rows, *(fault.row for fault in table.faults)}) == len(table.rows) + len(table.faults)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1)),
        min_size=1,
        max_size=8,
    )
)
def test_csv_gives_back_what_was_written(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "any.csv"
    quoted = ["text,label", *(",".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)]
    assert read(path, "\n".join(quoted)) == {"text": [row[0] for row in rows], "label": [row[1] for row in rows]}
