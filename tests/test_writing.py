"""Files appear whole or not at all, and a fault of the disk is said in a user's words."""

import errno
import os
from pathlib import Path

import pytest

from contraverse.errors import UserError
from contraverse.writing import (
    append_json_line,
    explain,
    probe,
    read_json_lines,
    whole_file,
    write_json,
    write_text,
)


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_json(target, {"a": 1})
    with pytest.raises(ZeroDivisionError), whole_file(target) as partial:
        partial.write_text(f"half {1 / 0}")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "\ud800")
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    with whole_file(target) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"
    write_text(target, "\ud800", errors="replace")
    assert target.read_text() == "?"


def test_a_long_name_leaves_room_for_the_one_beside(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".csv")
    probe(target)
    with whole_file(target) as partial:
        partial.write_text("fits")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_the_mode_is_that_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "whole") as partial:
        partial.write_text("x")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_probing_finds_what_would_fail_later(tmp_path: Path) -> None:
    for path, code in (
        (tmp_path / ("x" * 256), errno.ENAMETOOLONG),
        (tmp_path / "none" / "x", errno.ENOENT),
        (Path("/proc/x"), None),
    ):
        with pytest.raises(OSError, match=path.name[:20]) as caught:
            probe(path)
        assert code is None or caught.value.errno == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "cannot be written: No space left on device\nmake room"),
        (errno.EROFS, "cannot be written: Read-only file system"),
        (errno.EACCES, "cannot be used: Permission denied"),
        (errno.ENAMETOOLONG, "cannot be used: File name too long\nchoose a shorter name"),
        (errno.EDQUOT, "cannot be written: Disk quota exceeded"),
    ],
)
def test_faults_of_a_disk(code: int, says: str) -> None:
    mistake = explain(OSError(code, os.strerror(code), "/some/where"))
    assert isinstance(mistake, UserError)
    assert str(mistake).startswith(f"/some/where: {says}")
    assert str(explain(OSError(code, "x"), Path("/the/file"))).startswith("/the/file: ")
    assert str(explain(OSError(code, "x"))).startswith("a file or the output ")


def test_other_faults_are_the_programs() -> None:
    assert explain(FileNotFoundError(errno.ENOENT, "x", "y")) is None
    assert explain(OSError("no number")) is None


def _fill(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/full")
    path.write_text("x" * 100_000)


def test_a_full_device_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with pytest.raises(OSError, match="No space left on device") as caught, whole_file(target) as partial:
        _fill(partial)
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b'{"step": 3}', b"\xff", b" "])
def test_a_last_line_without_its_line_break_is_left_out_and_replaced(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_json_lines(path) == []
    append_json_line(path, {"step": 1})
    append_json_line(path, {"step": 2})
    with path.open("ab") as file:
        file.write(torn)
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    append_json_line(path, {"step": 3, "loss": 0.5})
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]


@pytest.mark.parametrize("line", [b'{"step": 2, "lo', b"[1, 2]", b"3", b"", b"\xff"])
def test_any_other_line_that_is_no_json_object_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"lines\.jsonl:2: cannot be read: the line is no JSON object"):
        read_json_lines(path)
