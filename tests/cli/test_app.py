"""What a command does when it starts and when it fails."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import contraverse
from contraverse.cli import listing
from contraverse.cli.app import app
from contraverse.errors import UserError

COMMAND = [str(Path(sys.executable).with_name("contraverse"))]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def rows() -> Any:
        raise error

    monkeypatch.setitem(listing._ROWS, "recipes", rows)


def test_version(invoke: Any) -> None:
    assert invoke("--version").stdout == f"contraverse {contraverse.__version__}\n"


def test_help_names_every_command(invoke: Any) -> None:
    listed = invoke("--help").stdout
    assert all(name in listed for name in ("quickstart", "train", "evaluate", "encode", "predict", "list"))


@pytest.mark.parametrize(
    "command", app.registered_commands, ids=lambda command: command.name or command.callback.__name__
)
def test_paragraphs_of_help_break_where_the_terminal_ends(command: Any) -> None:
    """They broke at the line ends of the source, too: lines of two words between long ones."""
    assert "\n" not in command.help.replace("\n\n", "")


def test_help_loads_nothing_that_takes_seconds() -> None:
    """Its time is that of its imports; a bound in seconds would measure how busy the machine is."""
    heavy = ("torch", "transformers", "numpy", "scipy", "sklearn", "datasets", "pandas", "matplotlib", "optuna")
    code = (
        "import sys\nfrom contraverse.cli import main\nsys.argv = ['contraverse', '--help']\n"
        f"try:\n    main()\nexcept SystemExit:\n    print(sorted(sys.modules.keys() & {set(heavy)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("args", "nearest"),
    [
        (["evaluate", "run", "--attack", "edit"], '"edits"'),
        (["evaluate", "run", "--norm", "linff"], '"linf"'),
        (["list", "method"], '"methods"'),
    ],
)
def test_a_value_that_is_not_there_is_answered_with_the_nearest(invoke: Any, args: list[str], nearest: str) -> None:
    result = invoke(*args, code=2)
    assert f"did you mean {nearest}?" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("args", [["train", "--nonsense"], ["nonsense"], ["list", "nonsense"], ["evaluate"]])
def test_wrong_usage_exits_with_2(invoke: Any, args: list[str]) -> None:
    result = invoke(*args, code=2)
    assert "Usage:" in result.stderr
    assert result.stdout == ""


def test_the_users_mistake_is_one_message_and_2(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, UserError("is [bold]not[/] there", where="file.csv", hint="look elsewhere"))
    result = invoke("list", "recipes", code=2)
    assert result.stderr == "error: file.csv: is [bold]not[/] there\nlook elsewhere\n"
    assert result.stdout == ""


def test_a_refused_value_is_the_users_mistake_too(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(BaseModel):
        size: int

    with pytest.raises(ValueError, match="size") as caught:
        Small.model_validate({"size": "big"})
    fail_with(monkeypatch, caught.value)
    result = invoke("list", "recipes", code=2)
    assert "size" in result.stderr
    assert "Traceback" not in result.stderr


def test_our_mistake_is_a_message_a_log_and_1(invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail_with(monkeypatch, ZeroDivisionError("oh [no]"))
    result = invoke("list", "recipes", code=1)
    assert "ZeroDivisionError: oh [no]" in result.stderr
    assert "Traceback" not in result.stderr
    (log,) = tmp_path.glob("contraverse-*.log")
    assert str(log) in result.stderr
    assert "Traceback (most recent call last)" in log.read_text()


@pytest.mark.parametrize(
    "given",
    [("--set", "model.token=s3cret"), ("--set=model.token=s3cret",), ("--set", "model={token: 's3cret'}"),
     ("--set", "model.token = s3cret"), ("x", "hf_abcdefghijklmnop"), ()],
)  # fmt: skip
@pytest.mark.parametrize("debug", ["", "1"])
def test_a_token_is_in_no_log(
    invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: tuple[str, ...], debug: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CONTRAVERSE_DEBUG", debug)
    monkeypatch.setattr("sys.argv", ["contraverse", "train", "ce", *given, "--task", "text"])
    monkeypatch.setenv("HF_TOKEN", "fromtheenvironment")
    fail_with(monkeypatch, ZeroDivisionError("s3cret fromtheenvironment hf_abcdefghijklmnop oh no"))
    told = invoke("list", "recipes", code=1).stderr
    logs = list(tmp_path.glob("contraverse-*.log"))
    assert len(logs) == (not debug)
    for text in (told, *(log.read_text() for log in logs)):
        assert "oh no" in text
        secrets = ("fromtheenv", "hf_abc", "s3cret" if "s3cret" in str(given) else "hf_")
        assert not [secret for secret in secrets if secret in text]
    if logs:
        assert "--task text" in logs[0].read_text()


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback(invoke: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail_with(monkeypatch, ZeroDivisionError("oh no"))
    if how == "environment":
        monkeypatch.setenv("CONTRAVERSE_DEBUG", "1")
    result = invoke(*(["--debug"] if how == "flag" else []), "list", "recipes", code=1)
    assert "Traceback (most recent call last)" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption_exits_with_130(invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    invoke("list", "recipes", code=130)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "import sys; sys.argv = ['contraverse', 'list', 'recipes', '--json']; import contraverse.cli as c; c.main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.wait()
    process.stderr.close()
    assert said == b""


def test_the_installed_command_exits_as_the_app_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "train", "scla", "--output", str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'did you mean "scal"?' in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()
