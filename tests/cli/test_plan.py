"""``contraverse plan``: what it prints, and one clear error for a mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contraverse.cli.app import app

runner = CliRunner()


def test_a_plan_says_what_fits_how_long_it_takes_and_what_to_switch_on(tiny_folder: Callable[..., Path]) -> None:
    """Of a folder's configuration alone: the weights are not read."""
    folder = tiny_folder("bert", 0.1, hidden_size=32)
    command = ["plan", "scal", "--model", str(folder / "config.json"), "--devices", "8", "--memory", "1GB"]
    printed = runner.invoke(app, [*command, "--rows", "640", "--set", "model.max_length=32"])
    assert printed.exit_code == 0, printed.output
    for words in ("a step is 7F", "4 rows each", "all-reduced", "fit 1 GB", "nothing: the batch fits", "300 steps"):
        assert words in printed.output
    assert not (folder / "config.json").is_dir()


def test_stages_are_planned_one_by_one_and_json_has_the_figures() -> None:
    command = ["plan", "itpt", "--model", "minilm", "--memory", "300MB", "--json"]
    printed = runner.invoke(app, [*command, "--set", "train.global_batch_size=64"])
    assert printed.exit_code == 0, printed.output
    plans = json.loads(printed.stdout)
    assert [plan["method"] for plan in plans] == ["mlm", "ce"]
    assert plans[1]["switch_on"] is None  # weights, gradients and states of 22.7 million alone are more


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scla"], 'no recipe or method is called "scla"'),
        (["scal", "--model", "bert-bse"], 'did you mean "bert-base"'),
        (["scal", "--model", "resnet18"], "resnet18 is a model of images"),
        (["acl-ds", "--model", "bert-base"], "bert-base is a model of texts"),
        (["acl-ds", "--model", "resnet1"], "no shape is known"),
        (["scal", "--memory", "80 G"], "write 80GB"),
        (["scal", "--devices", "0"], "--devices: 0 devices cannot train"),
        (["scal", "--devices", "5"], "32 rows cannot be shared out over 5 devices"),
        (["scal", "--rate", "0"], "--rate: the rate"),
        (["scal", "--rate", "nan"], "--rate: the rate"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments: list[str], words: str) -> None:
    printed = runner.invoke(app, ["plan", *arguments])
    assert printed.exit_code == 2
    assert words in printed.output
    assert "Traceback" not in printed.output
