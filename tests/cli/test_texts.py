"""Texts in, vectors and labels out: what the model itself says, in the order of the rows."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from contraverse.data import TextData
from contraverse.evaluation import predict
from contraverse.models import TextModel

TEXTS = ["the way back", "good", "many years of very long work and no house", "my own state"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"id": i, "body": text}) + "\n" for i, text in enumerate(TEXTS)))
    return file


def test_encode_writes_the_models_embeddings_in_order(invoke: Any, encoder: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.npy"
    result = invoke("encode", encoder, texts, "--output", output, "--text", "body", "--batch-size", 2)
    vectors = np.load(output)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, TextModel.load(encoder).encode(TEXTS), atol=1e-6)
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "texts.jsonl", "x.npy"]


def test_encode_to_parquet_keeps_the_texts(invoke: Any, encoder: Path, texts: Path, tmp_path: Path) -> None:
    invoke("encode", encoder, texts, "--output", tmp_path / "x.parquet", "--text", "body")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert frame["text"].to_list() == TEXTS
    vectors = np.stack(frame["embedding"].to_list())
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, TextModel.load(encoder).encode(TEXTS), atol=1e-6)


def test_encode_reads_lines_from_stdin(invoke: Any, encoder: Path, tmp_path: Path) -> None:
    invoke("encode", encoder, "-", "--output", tmp_path / "x.npy", stdin="\n".join(TEXTS) + "\n")
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), TextModel.load(encoder).encode(TEXTS), atol=1e-6)


def predicted(classifier: Path) -> tuple[list[str], np.ndarray]:
    model = TextModel.load(classifier)
    probabilities = softmax(predict(model, TextData.from_rows(TEXTS)).astype(np.float64), axis=1)
    assert model.labels is not None
    return [model.labels[i] for i in probabilities.argmax(1)], probabilities.max(1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predict_writes_a_label_and_its_probability_for_every_row(
    invoke: Any, classifier: Path, texts: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"predictions{suffix}"
    invoke("predict", classifier, texts, "--output", output, "--text", "body")
    if suffix == ".csv":
        frame = pd.DataFrame(list(csv.DictReader(output.open(newline=""))))
    else:
        frame = pd.read_json(output, lines=True) if suffix == ".jsonl" else pd.read_parquet(output)
    labels, probabilities = predicted(classifier)
    assert list(frame.columns) == ["row", "label", "probability", "probability_no", "probability_yes"]
    assert frame["label"].to_list() == labels
    np.testing.assert_allclose(frame["probability"].astype(float), probabilities, atol=1e-6)


def test_predict_takes_pairs(invoke: Any, classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("a,b\ngood work,no work\nthe way,my house\n")
    invoke("predict", classifier, tmp_path / "pairs.csv", "--text", "a", "--text", "b", "--output", tmp_path / "p.csv")
    pairs = TextData.from_rows([("good work", "no work"), ("the way", "my house")])
    probabilities = softmax(predict(TextModel.load(classifier), pairs).astype(np.float64), axis=1).max(1)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["probability"], probabilities, atol=1e-6)


def test_a_regression_predicts_scores(invoke: Any, tiny_model: Any, texts: Path, tmp_path: Path) -> None:
    folder = tiny_model(labels=("score",)).save(tmp_path / "regression")
    invoke("predict", folder, texts, "--text", "body", "--output", tmp_path / "p.csv")
    scores = predict(TextModel.load(folder), TextData.from_rows(TEXTS))[:, 0]
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv")["score"], scores, atol=1e-5)


def test_a_sentence_encoder_has_nothing_to_predict(invoke: Any, encoder: Path, texts: Path, tmp_path: Path) -> None:
    result = invoke("predict", encoder, texts, "--output", tmp_path / "p.csv", code=2)
    assert "contraverse encode" in result.stderr


def test_what_is_there_is_overwritten_only_with_force(invoke: Any, encoder: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.npy"
    output.write_text("precious")
    args = ("encode", encoder, texts, "--output", output, "--text", "body")
    assert "--force" in invoke(*args, code=2).stderr
    assert output.read_text() == "precious"
    invoke(*args, "--force")
    assert np.load(output).shape == (4, 32)


@pytest.mark.parametrize(
    ("output", "says"), [("x.txt", ".npy or .parquet"), ("nowhere/x.npy", "does not exist"), ("x", ".npy")]
)
def test_an_output_that_cannot_be_is_refused_first(invoke: Any, tmp_path: Path, output: str, says: str) -> None:
    result = invoke("encode", tmp_path / "no-model", "no-input", "--output", tmp_path / output, code=2)
    assert says in result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"text\ngood\n\xff\xfe\n", "UTF-8"), (b'text,n\n"",1\ngood,2\n', "empty"), (b"", "is empty")],
)
def test_bad_input_leaves_nothing_behind(invoke: Any, encoder: Path, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    result = invoke("encode", encoder, tmp_path / "bad.csv", "--output", tmp_path / "x.npy", code=2)
    assert says in result.stderr
    assert "--on-bad-row" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "encoder"]


def test_a_write_that_fails_leaves_the_old_file(
    invoke: Any, encoder: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, header: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array_header_1_0", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path.parent))
    (tmp_path / "x.npy").write_text("precious")
    args = ("encode", encoder, texts, "--output", tmp_path / "x.npy", "--text", "body", "--force")
    assert "No space left" in invoke(*args, code=2).stderr
    assert (tmp_path / "x.npy").read_text() == "precious"
    assert not list(tmp_path.glob(".*"))


def test_a_folder_without_a_model_is_refused(invoke: Any, tmp_path: Path, texts: Path) -> None:
    result = invoke("encode", tmp_path, texts, "--output", tmp_path / "x.npy", code=2)
    assert "no model here" in result.stderr
