import json
from pathlib import Path

import pytest

from contraverse.errors import UserError
from contraverse.reporting import read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("method:\n  name: scal\n  epsilon: 0.3\n")
    (run / "environment.json").write_text('{"python": "3.11"}')
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n')
    (run / "evaluation.json").write_text('{"metrics": {"accuracy": 96.4}}')
    return run


def test_a_run_is_read_back(folder: Path) -> None:
    run = read_run(str(folder))
    assert run.folder == folder
    assert run.config == {"method": {"name": "scal", "epsilon": 0.3}}
    assert run.environment == {"python": "3.11"}
    assert [line["step"] for line in run.log] == [1, 2]
    assert run.evaluation == {"metrics": {"accuracy": 96.4}}


def test_an_unfinished_run_has_no_evaluation(folder: Path) -> None:
    for name in ("environment.json", "metrics.jsonl", "evaluation.json"):
        (folder / name).unlink()
    run = read_run(folder)
    assert (run.environment, run.log, run.evaluation) == ({}, [], None)


def test_a_log_cut_anywhere_gives_its_whole_lines(folder: Path) -> None:
    whole = [{"step": i, "text": "Größe"} for i in range(3)]
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in whole).encode()
    ends = [i for i, byte in enumerate(data) if byte == 10]
    for cut in range(len(data) + 1):
        (folder / "metrics.jsonl").write_bytes(data[:cut])
        # A line counts once its line break is written, as the writer replaces one without.
        assert read_run(folder).log == whole[: sum(cut > end for end in ends)]


def test_a_broken_line_before_the_last_is_an_error_with_its_place(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2"):
        read_run(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "nowhere")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder\n.*config\.yaml"):
        read_run(tmp_path)


def test_a_folder_of_runs_names_them(folder: Path) -> None:
    with pytest.raises(UserError, match="it holds runs: run"):
        read_run(folder.parent)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- 1"),
        ("config.yaml", b""),
        ("config.yaml", b"\xff\xfe"),
        ("environment.json", b"{"),
        ("evaluation.json", b"[1, 2]"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read_run(folder)
