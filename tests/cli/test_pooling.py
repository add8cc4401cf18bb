"""Encoders by folder or Hub name, pooled as asked: the first rows of SCAL's Table 6 in one command."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from reference.tiny import sentences

from contraverse import data
from contraverse.data import TextData
from contraverse.evaluation import evaluate_sts
from contraverse.models import TextModel, fit_whitening
from contraverse.recipes import NLI_SENTENCES

TEXTS = sentences(8, seed=3)


@pytest.fixture
def plain(tiny_folder: Callable[..., Path]) -> Path:
    """A plain transformers folder, as a name on the Hub is one."""
    return tiny_folder("bert")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, plain: Path) -> list[tuple[str, Any]]:
    """The names that the Hub is asked for; it has one model, ``owner/bert``."""
    names: list[tuple[str, Any]] = []

    def model_info(self: Any, name: str, **others: Any) -> Any:
        if name not in ("owner/bert", "google-bert/bert-base-uncased"):
            raise OSError("404")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file.name) for file in plain.iterdir()])

    def snapshot_download(name: str, *, ignore_patterns: Any = None, local_files_only: bool = False) -> str:
        if local_files_only:
            raise OSError("not in the cache")
        names.append((name, ignore_patterns))
        return str(plain)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path / "texts.txt"


@pytest.mark.parametrize("pooling", ["cls", "mean", "first-last", "last-two"])
def test_a_plain_folder_is_pooled_as_asked(invoke: Any, plain: Path, file: Path, tmp_path: Path, pooling: Any) -> None:
    invoke("encode", plain, file, "--pooling", pooling, "--output", tmp_path / "x.npy")
    expected = TextModel.from_pretrained(plain, pooling=pooling).eval().encode(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, atol=1e-6)


def test_a_name_on_the_hub_is_measured_like_a_folder(
    invoke: Any, asked: list[Any], plain: Path, tmp_path: Path
) -> None:
    words = "good work long years house way back very own state".split()
    random = np.random.default_rng(0)
    pairs = [[" ".join(random.choice(words, 3)) for _ in range(2)] + [float(i % 5)] for i in range(12)]
    (tmp_path / "sts" / "sts12").mkdir(parents=True)
    frame = pd.DataFrame(pairs, columns=["sentence1", "sentence2", "score"])
    frame.to_parquet(tmp_path / "sts" / "sts12" / "test.parquet")
    args = ("--sts", tmp_path / "sts", "--pooling", "first-last", "--output", tmp_path / "e.json")
    result = invoke("evaluate", "owner/bert", *args)
    encode = TextModel.from_pretrained(plain, pooling="first-last").eval().encode
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["metrics"]["sts12"] == pytest.approx(evaluate_sts(encode, tmp_path / "sts").sets["sts12"].all)
    assert [name for name, _ in asked] == ["owner/bert"]
    assert "*.bin" in asked[0][1]  # the weights are there as safetensors
    # One of seven sets, without sub-sets and smaller than the papers', is scored, and all of that said.
    assert found["sts"]["sets"]["sts12"]["mean"] is None
    for says in ("the average is of 1 of 7 sets", "12 scored pairs", "without sub-sets"):
        assert says in result.stderr
    # A file of pairs of one's own.
    frame.to_csv(tmp_path / "mine.csv", index=False)
    invoke("evaluate", "owner/bert", "--sts", tmp_path / "mine.csv", *args[2:], "--force")
    own = json.loads((tmp_path / "e.json").read_text())
    assert own["metrics"]["pairs"] == pytest.approx(found["metrics"]["sts12"])


def test_a_name_that_is_nowhere_is_refused_with_the_ways_out(invoke: Any, asked: list[Any], file: Path) -> None:
    for name in ("owner/none", "none", "runs/none"):
        said = invoke("encode", name, file, "--output", file.with_suffix(".npy"), code=2).stderr
        assert "no model here, and no model of this name can be loaded from the Hugging Face Hub" in said
    assert asked == []
    assert not file.with_suffix(".npy").exists()


def test_a_pooling_that_cannot_be_is_refused(
    invoke: Any, plain: Path, classifier: Path, file: Path, tmp_path: Path
) -> None:
    args = (file, "--output", tmp_path / "x.npy", "--pooling")
    assert "known: cls, " in invoke("encode", plain, *args, "maximum", code=2).stderr
    assert "only sentence encoders pool" in invoke("encode", classifier, *args, "mean", code=2).stderr


def test_the_published_whitening_is_first_last_on_sentences_of_nli(
    invoke: Any, asked: list[Any], plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, sources = sentences(40, seed=1), []

    def load_splits(task: str, source: Any, **others: Any) -> data.Splits:
        sources.append(source)
        return data.Splits(TextData.from_rows([*rows, rows[0]]), None, None, data.get_task("sentences"), 0, [])

    monkeypatch.setattr(data, "load_splits", load_splits)
    result = invoke("postprocess", "whitening", "--paper", "--output", tmp_path / "w")
    assert sources == [NLI_SENTENCES]
    assert (
        "From the Hugging Face Hub: google-bert/bert-base-uncased, stanfordnlp/snli, nyu-mll/glue:mnli" in result.stderr
    )
    expected = TextModel.from_pretrained(plain, pooling="first-last").eval()
    expected.postprocess = fit_whitening(expected, rows)  # each sentence once
    np.testing.assert_allclose(TextModel.load(tmp_path / "w").encode(TEXTS), expected.encode(TEXTS), atol=1e-4)
    assert "--paper" in invoke("postprocess", "flow", plain, "--output", tmp_path / "f", code=2).stderr
