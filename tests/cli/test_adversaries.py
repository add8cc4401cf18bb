"""The command around the search: what it writes, what it shows, what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from contraverse.data import TextData, load_splits
from contraverse.evaluation import predict
from contraverse.evaluation.adversaries import Closeness, find_adversaries
from contraverse.models import TextModel
from contraverse.types import HeadSpec

CLASSES = ("no", "yes")
LOOSE = (
    "--reading", "whole", "--eps", ".5,2", "--steps", 1,
    "--max-edits", 99, "--max-share", 1, "--min-similarity", -1, "--max-drop", "inf", "--min-word-similarity", -1,
)  # fmt: skip


@pytest.fixture
def texts(rows: Path) -> list[str]:
    return [str(text) for text in pd.read_csv(rows)["text"]]


@pytest.fixture
def attackable(tiny_model: Callable[..., TextModel], texts: list[str], tmp_path: Path) -> Path:
    """A random classifier with a reconstruction head, which gives the two classes to about as many rows."""
    model = tiny_model(labels=CLASSES, heads={"reconstruction": HeadSpec(kind="mlm")}, max_length=16)
    logits = torch.from_numpy(predict(model, TextData.from_rows(texts)))
    with torch.no_grad():
        model.encoder.classifier.bias.sub_(logits.median(0).values)
    return model.save(tmp_path / "attackable")


@pytest.fixture
def data(attackable: Path, texts: list[str], tmp_path: Path) -> Path:
    """Rows that the model tells rightly."""
    labels = predict(TextModel.load(attackable), TextData.from_rows(texts)).argmax(1)
    file = tmp_path / "data.csv"
    pd.DataFrame({"text": texts, "label": [CLASSES[i] for i in labels]}).to_csv(file, index=False)
    return file


def test_what_the_search_keeps_is_written(
    invoke: Any, attackable: Path, encoder: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "adv.jsonl"
    result = invoke("adversaries", attackable, data, "--output", output, *LOOSE, "--encoder", encoder)
    expected = find_adversaries(
        TextModel.load(attackable),
        load_splits("text", {"test": data}).need("test"),
        epsilons=[0.5, 2],
        steps=1,
        reading="whole",
        closeness=Closeness(99, 1, -1, float("inf"), -1),
        encoder=TextModel.load(encoder),
    )
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert written == [one.to_dict() for one in expected.kept]
    assert written
    assert list(written[0]) == [
        "original", "rewritten", "label", "prediction_original", "prediction_rewritten",
        "similarity", "edits", "share", "epsilon",
    ]  # fmt: skip
    assert {row["label"] for row in written} <= set(CLASSES)
    assert f"{expected.success_rate:.1f}" in result.stdout
    assert all(word in result.stdout for word in ("read unchanged", "rate of success", "epsilon 0.5", "clean"))
    assert f"{output}: {len(written)} sentences" in result.stderr


def test_changed_words_are_marked_in_the_examples(
    invoke: Any, attackable: Path, encoder: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "adv.jsonl"
    shown = invoke("adversaries", attackable, data, "--output", output, *LOOSE, "--encoder", encoder).stdout
    first = json.loads(output.read_text().splitlines()[0])
    assert f"{first['original']}  ({first['prediction_original']})" in shown
    (line,) = [line for line in shown.splitlines() if line.replace("*", "").startswith(first["rewritten"] + "  (")][:1]
    words = line.split("  (")[0].split()
    before = first["original"].split()
    assert [word.strip("*") for word in words] == first["rewritten"].split()
    assert [word.startswith("*") for word in words] == [a != b for a, b in zip(words, before, strict=True)]


def test_another_model_is_asked(
    invoke: Any, attackable: Path, classifier: Path, encoder: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "adv.jsonl"
    given = ("--output", output, *LOOSE, "--encoder", encoder, "--against", classifier)
    result = invoke("adversaries", attackable, data, *given)
    written = [json.loads(line) for line in output.read_text().splitlines()]
    rows = TextData.from_rows([row["rewritten"] for row in written])
    other = predict(TextModel.load(classifier), rows).argmax(1)
    assert [row["prediction_other"] for row in written] == [CLASSES[i] for i in other]
    assert "fools the other model" in result.stdout


def test_only_so_many_rows_are_attacked(
    invoke: Any, attackable: Path, encoder: Path, data: Path, tmp_path: Path
) -> None:
    given = ("--output", tmp_path / "adv.jsonl", *LOOSE, "--encoder", encoder, "--rows", 6)
    shown = invoke("adversaries", attackable, data, *given).stdout
    (line,) = [line for line in shown.splitlines() if "classified rightly" in line]
    assert " 6 " in line


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("--eps", "0"), "--eps"),
        (("--eps", "a"), "--eps"),
        (("--eps", ""), "--eps"),
        (("--device", "warp"), "--device"),
        (("--against", "nowhere"), "nowhere"),
        (("--encoder", "nowhere"), "nowhere"),
        (("--text", "none"), "none"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(
    invoke: Any, attackable: Path, data: Path, encoder: Path, tmp_path: Path, given: tuple[str, str], what: str
) -> None:
    before = set(tmp_path.iterdir())
    encoding = () if given[0] == "--encoder" else ("--encoder", encoder)
    result = invoke("adversaries", attackable, data, "--output", tmp_path / "adv.jsonl", *encoding, *given, code=2)
    assert what in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_model_without_the_head_is_told_to_train_rar(
    invoke: Any, classifier: Path, encoder: Path, data: Path, tmp_path: Path
) -> None:
    given = ("--output", tmp_path / "adv.jsonl", "--encoder", encoder)
    assert "train rar" in invoke("adversaries", classifier, data, *given, code=2).stderr
    assert not (tmp_path / "adv.jsonl").exists()


def test_a_file_that_is_there_is_kept_unless_forced(
    invoke: Any, attackable: Path, data: Path, encoder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "adv.jsonl"
    output.write_text("mine")
    given = (attackable, data, "--output", output, "--eps", "1", "--steps", 1, "--encoder", encoder)
    assert "--force" in invoke("adversaries", *given, code=2).stderr
    assert output.read_text() == "mine"
    invoke("adversaries", *given, "--force")
    assert output.read_text() != "mine"


def test_missing_data_is_told(invoke: Any, attackable: Path, encoder: Path, tmp_path: Path) -> None:
    given = ("--output", tmp_path / "adv.jsonl", "--encoder", encoder)
    assert "no such file" in invoke("adversaries", attackable, tmp_path / "none.csv", *given, code=2).stderr
