"""``contraverse postprocess``: a model in, the same model with a fitted map out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.tiny import sentences

from contraverse.evaluation import load_sts
from contraverse.models import TextModel, fit_flow, fit_whitening

TRAIN, TEST = sentences(60, seed=1), sentences(4, seed=2)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    file = tmp_path / "train.txt"
    file.write_text("\n".join(TRAIN) + "\n")
    return file


def test_a_whitening_is_saved_with_the_encoder(invoke: Any, encoder: Path, train: Path, tmp_path: Path) -> None:
    output = tmp_path / "whitened"
    result = invoke("postprocess", "whitening", encoder, train, "--output", output, "--dim", 8)
    expected = TextModel.load(encoder)
    expected.postprocess = fit_whitening(expected, TRAIN, dim=8)
    np.testing.assert_allclose(TextModel.load(output).encode(TEST), expected.encode(TEST), atol=1e-5)
    assert result.stdout == ""
    assert "whitening fitted to 60 sentences" in result.stderr


def test_a_flow_is_saved_with_the_encoder(invoke: Any, encoder: Path, train: Path, tmp_path: Path) -> None:
    output = tmp_path / "flowed"
    invoke("postprocess", "flow", encoder, train, "--output", output, "--epochs", 2, "--seed", 3)
    expected = TextModel.load(encoder)
    expected.postprocess = fit_flow(expected, TRAIN, epochs=2, seed=3)
    np.testing.assert_allclose(TextModel.load(output).encode(TEST), expected.encode(TEST), atol=1e-5)


def test_evaluate_fits_nothing(
    invoke: Any, encoder: Path, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is measured as it is: no file of it changes, and the figures are those of the map that it holds."""
    output, sts = tmp_path / "whitened", tmp_path / "sts"
    invoke("postprocess", "whitening", encoder, train, "--output", output, "--dim", 8)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    rows = sentences(12, seed=5)
    lines = ["sentence1\tsentence2\tscore", *(f"{rows[i]}\t{rows[i + 6]}\t{i}" for i in range(6))]
    for name in ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sick"):
        (sts / name).mkdir(parents=True)
        extra = "" if name in ("stsb", "sick") else "\tone"
        text = "\n".join(line + (extra if i else extra and "\tsubset") for i, line in enumerate(lines))
        (sts / name / "test.tsv").write_text(text + "\n")
    assert len(load_sts(sts)) == 7
    monkeypatch.setattr("numpy.linalg.eigh", None)
    invoke("evaluate", output, "--sts", sts)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_mistakes_are_told_before_anything_is_written(
    invoke: Any, encoder: Path, classifier: Path, train: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for words, message in (
        (("flow", encoder, train, "--output", output, "--dim", 8), "no --dim"),
        (("whitening", encoder, train, "--output", output, "--epochs", 2), "no --epochs"),
        (("whitening", encoder, train, "--output", output, "--dim", 33), "cannot keep 33"),
        (("whitening", classifier, train, "--output", output), "classifier"),
        (("whitening", encoder, train, "--output", encoder), "is there already"),
    ):
        assert message in invoke("postprocess", *words, code=2).stderr
    assert not output.exists()
    invoke("postprocess", "whitening", encoder, train, "--output", output, "--dim", 8)
    message = invoke("postprocess", "flow", output, train, "--output", tmp_path / "twice", code=2).stderr
    assert "has a whitening already" in message
