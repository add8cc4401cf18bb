"""Tutorials on foreign models: their commands run as they stand, on tiny models of the names that they use."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from reference.foreign import foreign_folder
from reference.tiny import sentences

from contraverse.models import TextModel

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
SMALL = ("--set", "train.max_steps=1", "--set", "train.report_to=none", "--set", "evaluation.epsilons=[]")


def commands(page: str, after: str) -> list[list[str]]:
    """Those of the first block of commands below the words ``after``."""
    text = (TUTORIALS / page).read_text(encoding="utf-8").split(after)[1]
    block = re.search(r"^```bash\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert block is not None
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


def ran(invoke: Any, command: list[str]) -> str:
    small = SMALL if command[0] == "train" else ()
    return str(invoke(*command, *small).stderr)


def test_another_encoder(
    invoke: Any, tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(labels=None, pooling="mean").save(tmp_path / "my-encoder")
    (tmp_path / "my-encoder" / "contraverse.json").unlink()  # sentence-transformers' files alone
    foreign_folder(tmp_path / "my-decoder", "llama")
    for name in ("sentences.txt", "texts.txt"):
        (tmp_path / name).write_text("\n".join(sentences(12)) + "\n")
    encode, theirs, dry, decoder = commands("sentence-encoder.md", "**Start from another encoder**")
    ran(invoke, encode)
    assert np.load("vectors-before.npy").shape == (12, 32)
    ran(invoke, theirs)
    ran(invoke, dry)
    assert not (tmp_path / "runs" / "decoder").exists()
    ran(invoke, decoder)
    for run in ("theirs", "decoder"):
        assert (tmp_path / "runs" / run / "model" / "model.safetensors").is_file()


def test_somebodys_classifier(
    invoke: Any, tiny_model: Callable[..., Any], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(labels=("Yes", "no"), max_length=16).save(tmp_path / "their-classifier")
    (tmp_path / "their-classifier" / "contraverse.json").unlink()
    for name in ("tickets.csv", "tickets-test.csv"):
        (tmp_path / name).write_text(rows.read_text())
    evaluate, train = commands("own-csv.md", "**Start from an existing classifier.**")
    ran(invoke, evaluate)
    assert "drawn anew" not in ran(invoke, train)
    assert (tmp_path / "runs" / "tickets-theirs" / "model" / "config.json").is_file()


@pytest.mark.parametrize(("own", "names"), [(("Yes", "no"), {}), (("LABEL_0", "LABEL_1"), {"no": "0", "yes": "1"})])
def test_a_classifier_of_the_same_classes_is_kept_whatever_their_order(
    invoke: Any, tiny_model: Callable[..., Any], rows: Path, tmp_path: Path, own: tuple[str, ...], names: dict[str, str]
) -> None:
    """Next to untrained, the run's figures are those of the classifier."""
    table = pd.read_csv(rows)
    table["label"] = table["label"].replace(names)
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        table.to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    folder = tiny_model(labels=own, max_length=16).save(tmp_path / "theirs")
    measured = tmp_path / "evaluation.json"
    invoke("evaluate", folder, "--task", "text", "--data", tmp_path / "data" / "test.csv", "--output", measured)
    still = (*SMALL, "--set", "train.learning_rate=1e-12", "--set", "model.max_length=16")
    run = tmp_path / "run"
    invoke("train", "ce", "--task", "text", "--model", folder, "--data", tmp_path / "data", "--output", run, *still)
    before, after = (json.loads(file.read_text())["metrics"] for file in (measured, run / "evaluation.json"))
    assert after["accuracy"] == before["accuracy"]
    assert TextModel.load(run / "model").labels == list(own)
    weights = [TextModel.load(place).encoder.classifier.weight for place in (folder, run / "model")]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-9)
