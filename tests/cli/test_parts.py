"""``encode`` and ``predict`` in parts: equal to one pass, resumed after a stop, and refused for another request."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contraverse.cli import images, texts
from contraverse.models import ImageModel, TextModel, predicting


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows a part: three parts of the twenty rows."""
    monkeypatch.setattr(texts, "CHUNK", 7)
    monkeypatch.setattr(images, "_PART", 4)


def stop_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> list[int]:
    """Ctrl-C in the call of ``name`` after so many; the list has one entry for each call that was made."""
    made: list[int] = []
    original = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        if len(made) >= calls:
            raise KeyboardInterrupt
        made.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return made


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_encode_is_stopped_and_resumed(
    invoke: Any, encoder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"x.{suffix}"
    invoke("encode", encoder, rows, "--output", whole)
    with monkeypatch.context() as patch:
        stop_after(patch, TextModel, "encode", 2)
        stopped = invoke("encode", encoder, rows, "--output", output, code=130)
        assert "2 of 3 parts are kept: --resume goes on" in stopped.stderr
    assert not output.exists()
    made = stop_after(monkeypatch, TextModel, "encode", 9)
    result = invoke("encode", encoder, rows, "--output", output, "--resume")
    assert "14 of 20 rows were there already" in result.stderr
    assert len(made) == 1
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*parts"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_predict_is_stopped_and_resumed(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"x.{suffix}"
    invoke("predict", classifier, rows, "--output", whole)
    with monkeypatch.context() as patch:
        stop_after(patch, predicting, "logits_of", 1)
        invoke("predict", classifier, rows, "--output", output, code=130)
    invoke("predict", classifier, rows, "--output", output, "--resume")
    assert output.read_bytes() == whole.read_bytes()
    if suffix == "parquet":
        frame = pd.read_parquet(output)
        assert frame["row"].tolist() == list(range(20))
        assert np.allclose(frame["probability_no"] + frame["probability_yes"], 1, atol=1e-5)


def test_parts_of_another_request_are_refused(
    invoke: Any, encoder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "x.npy"
    with monkeypatch.context() as patch:
        stop_after(patch, TextModel, "encode", 1)
        invoke("encode", encoder, rows, "--output", output, code=130)
    other = tmp_path / "other.csv"
    other.write_text(rows.read_text().replace("good", "no"))
    assert "another request (rows)" in invoke("encode", encoder, other, "--output", output, "--resume", code=2).stderr
    refused = invoke("encode", encoder, rows, "--output", output, "--resume", "--batch-size", 3, code=2)
    assert "another request (batch_size)" in refused.stderr
    invoke("encode", encoder, other, "--output", output)
    assert np.load(output).shape[0] == 20
    nothing = invoke("encode", encoder, rows, "--output", tmp_path / "y.npy", "--resume", code=2)
    assert "there is nothing to resume" in nothing.stderr


def test_images_are_encoded_and_predicted_in_parts(
    invoke: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ImageModel.from_pretrained("resnet8", labels=["dark", "light"]).save(tmp_path / "model")
    for command, name in (("encode", "x.npy"), ("predict", "x.csv")):
        whole, output = tmp_path / f"whole-{name}", tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(images, "_PART", 512)
            invoke(command, model, folder / "test", "--output", whole, "--batch-size", 2)
        with monkeypatch.context() as patch:
            stop_after(patch, predicting, "evaluating", 1) if command == "predict" else stop_after(
                patch, ImageModel, "forward", 3
            )
            invoke(command, model, folder / "test", "--output", output, "--batch-size", 2, code=130)
        invoke(command, model, folder / "test", "--output", output, "--batch-size", 2, "--resume")
        assert output.read_bytes() == whole.read_bytes()
