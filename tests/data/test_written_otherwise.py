"""Text files as Excel, pandas and others write them: separators, encodings, JSON that is no rows."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contraverse.data import load_splits
from contraverse.data.files import Form, read_table
from contraverse.errors import UserError

ROWS = [
    (f"{'my parcel is late' if i % 2 else 'money back, please'} {i}", "late" if i % 2 else "refund") for i in range(20)
]


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns or {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})


def read(file: Path, **options: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """The rows, by their class names, and the notes."""
    splits = load_splits("text", {"train": file}, validation_fraction=0, **options)
    train = splits.need("train")
    assert train.label_names is not None
    assert train.labels is not None
    names = [train.label_names[int(i)] for i in train.labels]
    return [(text[0], name) for text, name in zip(train.texts, names, strict=True)], splits.notes


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
@pytest.mark.parametrize("line", ["sep={}\n", '"sep={}"\r\n', "SEP={}\n"])
def test_excels_first_line_names_the_separator(tmp_path: Path, mark: str, line: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text("\ufeff" + line.format(mark) + frame().to_csv(index=False, sep=mark), encoding="utf-8", newline="")
    assert read(file)[0] == ROWS
    assert read_table(file).rows[0] == 3


@pytest.mark.parametrize("header", ["text, of customer;label", "id|text;label", '"text, of customer";label'])
def test_the_separator_is_told_by_the_rows_not_by_the_header_alone(tmp_path: Path, header: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text("\n".join([header, *(f"{text};{label}" for text, label in ROWS)]) + "\n")
    rows, notes = read(file)
    assert rows == ROWS
    assert any("separated by ';'" in note for note in notes)


@pytest.mark.parametrize("mark", ["|", ";", "\t", ","])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_any_usual_separator_is_told(tmp_path: Path, mark: str, ending: str) -> None:
    frame().to_csv(tmp_path / f"x{ending}", index=False, sep=mark)
    assert read(tmp_path / f"x{ending}")[0] == ROWS


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".csv.gz"])
@pytest.mark.parametrize(("named", "mark"), [("^", "^"), ("tab", "\t"), ("\\t", "\t"), (";", ";")])
def test_a_separator_can_be_named(tmp_path: Path, ending: str, named: str, mark: str) -> None:
    frame().to_csv(tmp_path / f"x{ending}", index=False, sep=mark)
    assert read(tmp_path / f"x{ending}", delimiter=named)[0] == ROWS


@pytest.mark.parametrize("named", ["", "::", '"', "\n", "a"])
def test_what_cannot_separate_is_refused(tmp_path: Path, named: str) -> None:
    frame().to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(UserError, match="cannot separate fields"):
        read(tmp_path / "x.csv", delimiter=named)


FOREIGN = {
    "windows-1252": "the café costs 5 € “today”",
    "windows-1251": "посылка не пришла",
    "gb18030": "包裹没有到",
    "utf-16": "the café costs 5 €",
    "utf-16-le": "包裹没有到 ok",
    "utf-16-be": "the parcel",
    "utf-32": "the parcel",
}


@pytest.mark.parametrize("encoding", FOREIGN)
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".csv.bz2"])
def test_a_named_encoding_is_read(tmp_path: Path, encoding: str, ending: str) -> None:
    data = frame(text=[f"{FOREIGN[encoding]} {i}" for i in range(20)], label=[label for _, label in ROWS])
    lines = data.to_json(orient="records", lines=True, force_ascii=False)
    text = data.to_csv(index=False) if "csv" in ending else lines
    content = text.encode(encoding)
    if ending.endswith("bz2"):
        import bz2

        content = bz2.compress(content)
    (tmp_path / f"x{ending}").write_bytes(content)
    assert [text for text, _ in read(tmp_path / f"x{ending}", encoding=encoding)[0]] == data["text"].to_list()


@pytest.mark.parametrize("encoding", FOREIGN)
def test_the_hint_at_an_encoding_is_right(tmp_path: Path, encoding: str) -> None:
    data = frame(text=[f"{FOREIGN[encoding]} {i}" for i in range(20)], label=[label for _, label in ROWS])
    (tmp_path / "x.csv").write_bytes(data.to_csv(index=False).encode(encoding))
    with pytest.raises(UserError) as raised:
        read(tmp_path / "x.csv")
    message = str(raised.value)
    assert "latin1" not in message
    if encoding.startswith("utf"):
        assert f"is {encoding[:6].upper()}" in message
        assert "cannot be used" not in message  # one message, not one a row
        assert f"--encoding {encoding}" in message
        assert ("without a byte order mark" in message) == encoding.endswith("e")
    elif encoding == "windows-1252":
        assert "--encoding windows-1252" in message
        assert "iconv -f windows-1252" in message
    else:
        assert encoding in message
        assert "--encoding windows-1252" not in message


def test_of_a_utf8_file_with_one_broken_row_no_other_encoding_is_advised(tmp_path: Path) -> None:
    lines = ["text,label", *(f"café {i},{'a' if i % 2 else 'b'}" for i in range(20))]
    (tmp_path / "x.csv").write_bytes("\n".join(lines).encode() + b"\ncaf\xe9,a\n")
    with pytest.raises(UserError, match=r"(?s)1 of 21 rows.*broken") as raised:
        read(tmp_path / "x.csv")
    assert "--encoding" not in str(raised.value)


@pytest.mark.parametrize("named", ["klingon", "base64", "rot13", "x\0"])
def test_an_encoding_that_is_none_is_refused(tmp_path: Path, named: str) -> None:
    frame().to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(UserError, match="there is no encoding"):
        read(tmp_path / "x.csv", encoding=named)


def test_a_wrong_encoding_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("text,label\nok,a\ncafé,b\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not ascii: byte 0xe9 on line 3"):
        read(tmp_path / "x.csv", encoding="ascii")


def test_a_nul_byte_makes_no_utf16(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"text,label\na\0b,x\nc,y\n")
    with pytest.raises(UserError, match="holds a NUL byte"):
        read(tmp_path / "x.csv")


OBJECTS = {
    "around a list": json.dumps({"data": [{"text": text, "label": label} for text, label in ROWS]}),
    "around a list, indented": json.dumps({"version": 1, "rows": [{"text": "a", "label": "b"}] * 9}, indent=2),
    "pandas' default": frame().to_json(),
    "pandas' default, indented": frame().to_json(indent=1),
    "pandas' split": frame().to_json(orient="split"),
    "columns": json.dumps(frame().to_dict("list"), indent=4),
    "one row, indented": json.dumps({"text": "a", "label": "b"}, indent=2),
    "several rows, indented": "\n".join(json.dumps({"text": t, "label": label}, indent=2) for t, label in ROWS),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_json_that_is_no_rows_gets_one_message(tmp_path: Path, kind: str, ending: str) -> None:
    (tmp_path / f"x{ending}").write_text(OBJECTS[kind])
    with pytest.raises(UserError) as raised:
        read(tmp_path / f"x{ending}")
    assert "cannot be used" not in str(raised.value)
    assert "object" in raised.value.what
    assert raised.value.hint
    if "around" in kind:
        assert "'data'" in str(raised.value) or "'rows'" in str(raised.value)


def test_a_row_with_nested_fields_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a", "label": "b", "tokens": ["a"], "meta": {"n": 1}}\n')
    assert list(read_table(tmp_path / "x.jsonl").column("text")) == ["a"]


def test_one_broken_line_of_json_is_one_bad_row(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    (tmp_path / "x.jsonl").write_text("\n".join([*lines[:5], lines[5][:-3], *lines[6:]]))
    with pytest.raises(UserError, match="1 of 20 rows"):
        read(tmp_path / "x.jsonl")


def test_the_form_is_for_every_part_of_a_mixture(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_bytes(frame().to_csv(index=False, sep="^").encode("utf-16"))
    source = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    train = load_splits("text", source, delimiter="^", encoding="utf-16", validation_fraction=0).need("train")
    assert [row[0] for row in train.texts] == [text for text, _ in ROWS] * 2


def test_read_table_takes_a_form(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("text^label\né^a\n".encode("latin-1"))
    assert list(read_table(tmp_path / "x.csv", form=Form("^", "latin-1")).column("text")) == ["é"]
