"""What a run needs from elsewhere is looked at before it trains: the Hub's names, and the pairs that measure it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from contraverse.errors import UserError
from contraverse.pipeline import run
from contraverse.pipeline.steps import check_hub
from contraverse.recipes import RunConfig, configure
from contraverse.training import Trainer

Configured = Callable[..., RunConfig]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing in the caches."""

    def unreachable(self: Any, name: str, **others: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*args: Any, **others: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Trainer, "train", train)


@pytest.mark.parametrize(
    ("recipe", "task", "missing", "flags"),
    [
        (
            "carl",
            "ag_news",
            "model albert/albert-base-v2, data fancyzhx/ag_news",
            "--model FOLDER --data FOLDER (with files train, validation and test); without --paper it trains minilm",
        ),
        (
            "uscal",
            "sentences",
            "model google-bert/bert-base-uncased, data sentence-transformers/wiki1m-for-simcse, STS mteb/sts12-sts, "
            "mteb/sts13-sts, mteb/sts14-sts, mteb/sts15-sts, mteb/sts16-sts, mteb/stsbenchmark-sts, mteb/sickr-sts",
            "--set evaluation.sts=FOLDER",
        ),
        ("itpt", "trec", "model google-bert/bert-base-uncased, data SetFit/TREC-QC", "--model FOLDER"),
        (
            "isbert",
            "sentences",
            "model google-bert/bert-base-uncased, data stanfordnlp/snli, nyu-mll/glue:mnli, STS mteb/sts12-sts",
            "--data FOLDER",
        ),
        (
            "infobert",
            "anli",
            "model FacebookAI/roberta-large, data stanfordnlp/snli, nyu-mll/glue:mnli, pietrolesci/nli_fever, "
            "facebook/anli",
            "--data FOLDER",
        ),
    ],
)
@pytest.mark.usefixtures("offline", "untrained")
def test_all_that_is_missing_offline_is_said_at_once_with_what_to_give(
    recipe: str, task: str, missing: str, flags: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run(configure(recipe, task=task, paper=True), tmp_path / "run")
    assert f"cannot be had from the Hugging Face Hub: {missing}" in str(caught.value)
    assert flags in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("offline")
def test_local_copies_and_caches_are_enough(
    configured: Configured, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_hub(configured("ce", rows)) == []
    assert check_hub(configure("uscal", source="mine.txt", settings={"evaluation.sts": "sts"})) == []
    (tmp_path / "hub" / "datasets--SetFit--TREC-QC").mkdir(parents=True)
    assert check_hub(configure("ce", task="trec")) == ["data SetFit/TREC-QC"]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    needed = ["model google-bert/bert-base-uncased", "data SetFit/TREC-QC"]
    assert check_hub(configure("ce", task="trec", paper=True)) == needed
    (tmp_path / "datasets" / "fancyzhx___ag_news").mkdir(parents=True)
    assert check_hub(configure("ce", task="ag_news")) == ["data fancyzhx/ag_news"]


@pytest.mark.usefixtures("untrained")
def test_pairs_that_are_not_there_are_missed_before_training(
    configured: Configured, sentences: Path, sts: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    torn = tmp_path / "torn.csv"
    torn.write_text("sentence1,sentence2,score\ngood work,the way,high\n")
    for source, says in (("none", "no such file or folder"), ("empty", "no STS set"), ("torn.csv", "'high'")):
        config = configured("simcse", sentences, **{"evaluation.sts": str(tmp_path / source)})
        with pytest.raises(UserError, match=says) as caught:
            run(config, tmp_path / "run")
        assert "evaluation.sts" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_set_alone_measures_and_chooses(configured: Configured, sentences: Path, sts: Path, tmp_path: Path) -> None:
    """Without the other six the run ends with the figure of the one, and says what it is not."""
    for folder in sts.iterdir():
        if folder.name != "stsb":
            shutil.rmtree(folder)
    steps = {"train.max_steps": 2, "train.eval_steps": 1, "train.save_steps": 1}
    result = run(configured("simcse", sentences, **{"evaluation.sts": str(sts)}, **steps), tmp_path / "run")
    assert set(result.metrics) == {"stsb", "alignment", "uniformity"}  # and no average of one
    assert any("no sts12, sts13, sts14, sts15, sts16, sick" in note for note in result.notes)


def test_pairs_of_ones_own_measure_an_encoder(configured: Configured, sentences: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for split in ("test", "validation"):
        lines = [f"good work,{text},{i}" for i, text in enumerate(("the way back", "my own house", "no good", "state"))]
        (own / f"{split}.csv").write_text("\n".join(["left,right,alike", *lines]) + "\n")
    steps = {"train.max_steps": 2, "train.eval_steps": 1, "train.save_steps": 1}
    result = run(configured("simcse", sentences, **{"evaluation.sts": str(own)}, **steps), tmp_path / "run")
    assert list(result.metrics) == ["pairs"]
    assert not any("last weights" in note for note in result.notes)


def test_the_validation_rows_are_measured_where_a_paper_reports_them(
    configured: Configured, rows: Path, tmp_path: Path
) -> None:
    settings = {"evaluation.split": "validation", "evaluation.epsilons": [], "train.num_train_epochs": 1}
    result = run(configured("ce", rows, **settings), tmp_path / "run")
    assert result.split == "validation"
