"""YAML as people write it, and back again exactly."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from contraverse.errors import UserError
from contraverse.recipes import notation


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3e-5", 3e-5),
        (".3", 0.3),
        ("-1", -1),
        ("1.", 1.0),
        ("true", True),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("none", "none"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("[.1, 3e-1]", [0.1, 0.3]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_scalars_are_what_they_look_like(written: str, value: Any) -> None:
    read = notation.read(written, "here")
    assert read == value
    assert type(read) is type(value)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), trees))
def test_what_is_written_reads_back_exactly(values: dict[str, Any]) -> None:
    assert notation.read(notation.write(values), "here") == values


@pytest.mark.parametrize("text", ["no", "yes", "3e-5", "1:30", "null", "007", "2024-01-01", "~"])
def test_text_that_looks_like_something_else_is_quoted_for_readers_of_yaml_1_1_too(text: str) -> None:
    assert yaml.safe_load(notation.write({"a": text})) == {"a": text}


def test_a_float_reads_back_in_yaml_1_1_too() -> None:
    assert math.isclose(yaml.safe_load(notation.write({"a": 3e-5}))["a"], 3e-5)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 'file, line 3: not readable as YAML: "a" is given twice'),
        ("[1,", "file: not readable as YAML"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a\0b", "not readable as YAML"),
        ("!!int x", '"x" is no int'),
        ("!!float ''", '"" is no float'),
        ("!!bool maybe", '"maybe" is no bool'),
        ("!!null x", '"x" is no null'),
        ("!!map x", "expected a mapping node"),
        ("!!seq x", "expected a sequence node"),
        ("!!timestamp soon", "could not determine a constructor"),
        ("!!set {a, b}", "could not determine a constructor"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("&a [*a]", "unconstructable recursive node"),
        ("&a {b: {c: *a}}", "unconstructable recursive node"),
        ("[" * 1000, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_says_where(written: str, says: str) -> None:
    with pytest.raises(UserError, match="file") as caught:
        notation.read(written, "file")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["!!int", "!!float ''", "!!bool maybe", "!!timestamp soon", "!!binary x", "!!int x", "[" * 1000, "{a: " * 900,
     "1: 2", "{true: 1}", "? [a]\n: b", "null: 1"],
)  # fmt: skip
def test_all_that_is_not_readable_is_the_users_mistake(text: str) -> None:
    """F17."""
    with pytest.raises(UserError, match="not readable as YAML"):
        notation.read(text, "here")


def test_tags_that_say_what_is_there_anyway() -> None:
    written = "[!!int 1, !!float 1, !!float 1e3, !!bool TRUE, !!null ~, !!str 1, !!seq [a], !!map {a: b}, &x [1], *x]"
    assert notation.read(written, "here") == [1, 1.0, 1000.0, True, None, "1", ["a"], {"a": "b"}, [1], [1]]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe", "cannot be read: not UTF-8 text"), (None, "cannot be read: No such file or directory")],
)
def test_a_file_that_cannot_be_read_is_named_once(content: bytes | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        notation.read_file(file)
    assert str(caught.value) == f"{file}: {says}"


def test_a_file_whose_name_no_system_can_have() -> None:
    with pytest.raises(UserError, match="cannot be read: embedded null byte"):
        notation.read_file(Path("a\0b"))


def laughs(levels: int, sequence: bool) -> str:
    """Nine aliases of the level before on each level: few characters, 9^levels values."""
    parts = ["&l0 [x, x, x, x, x, x, x, x, x]"]
    parts += [f"&l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    if sequence:
        return f"[{', '.join(parts)}]"
    return "\n".join(f"k{i}: {part}" for i, part in enumerate(parts))


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("levels", [6, 9, 30])
def test_aliases_that_would_be_millions_of_values_are_refused(levels: int, sequence: bool) -> None:
    with pytest.raises(UserError, match="with its aliases written out it has more than 100,000 values"):
        notation.read(laughs(levels, sequence), "here")


def test_aliases_of_a_size_that_people_write() -> None:
    assert notation.read(laughs(2, True), "here")[1] == [["x"] * 9] * 9
