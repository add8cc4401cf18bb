"""A detector from training to prediction: its threshold is chosen, saved, measured and used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from contraverse.data import load_splits
from contraverse.evaluation import predict
from contraverse.models import TextModel
from contraverse.models.detector import Detector, log_odds


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder of imbalanced rows for training, validation and test."""
    random = np.random.default_rng(0)
    words = "good very make world still own see men work long get here these people".split()
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 40), ("validation", 60), ("test", 50)):
        labels = random.choice(["ham", "spam"], count, p=[0.7, 0.3])
        texts = [" ".join(random.choice(words[:9] if label == "ham" else words[5:], 6)) for label in labels]
        pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def run(invoke: Any, tiny_model: Callable[..., Any], splits: Path, tmp_path: Path) -> Path:
    start = tiny_model(labels=None, dropout=0.0).save(tmp_path / "start")
    settings = ("evaluation.positive=spam", "evaluation.false_positive_rate=10", "train.num_train_epochs=1")
    flags = [part for setting in (*settings, "evaluation.epsilons=[]") for part in ("--set", setting)]
    out = tmp_path / "run"
    invoke("train", "ce", "--task", "text", "--data", splits, "--model", start, "--output", out, *flags)
    return out


def test_a_run_chooses_saves_and_measures_its_threshold(run: Path, splits: Path) -> None:
    model = TextModel.load(run / "model")
    data = load_splits("text", splits)
    validation, test = data.need("validation"), data.need("test")
    benign = log_odds(predict(model, validation), 1)[np.asarray(validation.labels) != 1]
    assert model.detector is not None
    rank = int(np.ceil((len(benign) + 1) * 0.9))
    assert np.nextafter(model.detector.log_odds, -np.inf) == pytest.approx(np.sort(benign)[rank - 1], abs=1e-5)
    evaluation = json.loads((run / "evaluation.json").read_text())
    scores, hits = log_odds(predict(model, test), 1), np.asarray(test.labels) == 1
    assert evaluation["metrics"]["auroc"] == pytest.approx(100 * roc_auc_score(hits, scores))
    flagged = scores >= model.detector.log_odds
    assert evaluation["metrics"]["recall"] == pytest.approx(100 * flagged[hits].mean())
    assert evaluation["detection"]["threshold"]["realised"]["percent"] == pytest.approx(100 * flagged[~hits].mean())
    assert any("spam is detected from" in note for note in evaluation["notes"])
    page = (run / "report.html").read_text()
    assert "Detector" in page
    assert "Clopper" in page


def test_prediction_uses_the_threshold(invoke: Any, run: Path, splits: Path, tmp_path: Path) -> None:
    result = invoke("predict", run, splits / "test.csv", "--output", tmp_path / "p.csv")
    assert "the saved threshold" in result.stderr
    frame, model = pd.read_csv(tmp_path / "p.csv"), TextModel.load(run / "model")
    texts = pd.read_csv(splits / "test.csv")["text"].tolist()
    assert list(frame.columns) == ["row", "label", "probability", "probability_ham", "probability_spam"]
    assert frame["row"].tolist() == list(range(50))
    assert frame["label"].tolist() == model.predict(texts)
    assert frame[["probability_ham", "probability_spam"]].to_numpy() == pytest.approx(
        model.predict_proba(texts), abs=1e-5
    )
    assert model.detector is not None
    flagged = model.predict_proba(texts)[:, 1] >= model.detector.threshold
    assert [label == "spam" for label in frame["label"]] == flagged.tolist()


def test_evaluate_uses_the_saved_threshold_or_chooses_one(invoke: Any, run: Path, tmp_path: Path) -> None:
    result = invoke("evaluate", run, "--eps", "none", "--output", tmp_path / "a.json")
    saved = json.loads((run / "evaluation.json").read_text())["detection"]
    assert json.loads((tmp_path / "a.json").read_text())["detection"] == saved
    assert "spam against the rest" in result.stdout
    assert "Recall at 1 % false positives" in result.stdout
    flags = ("--false-positive-rate", 20, "--gate", "recall[clean]>=0", "--gate", "auroc[clean]>=0")
    invoke("evaluate", run, "--eps", "none", *flags, "--output", tmp_path / "b.json")
    other = json.loads((tmp_path / "b.json").read_text())["detection"]["threshold"]
    assert other["false_positive_rate"] == 20
    assert other["log_odds"] < saved["threshold"]["log_odds"]
    loaded = TextModel.load(run / "model").detector
    assert loaded is not None
    assert loaded.false_positive_rate == 10  # measured by another, and not saved
    few = invoke("evaluate", run, "--eps", "none", "--false-positive-rate", 0.1)
    assert "benign validation rows hold no threshold" in few.stderr


def test_an_attack_evades_the_saved_threshold(invoke: Any, run: Path, tmp_path: Path) -> None:
    flags = ("--attack", "unicode", "--budget", 1, "--against", "spam", "--rows", 8, "--no-diagnostics")
    result = invoke("evaluate", run, *flags, "--output", tmp_path / "e.json")
    assert "spam is detected from its saved threshold on" in result.stderr


def test_a_damaged_threshold_is_refused(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny_model(labels=("no", "yes"))
    model.detector = Detector(positive="maybe", log_odds=0.5, false_positive_rate=1, benign_rows=99)
    folder = model.save(tmp_path / "m")
    with pytest.raises(ValueError, match='no class is called "maybe"'):
        TextModel.load(folder)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--positive", "maybe"), '--positive: no class is called "maybe"'),
        (("--false-positive-rate", "2"), "there is no class for it"),
        (("--positive", "yes", "--false-positive-rate", "0"), "between 0 and 100"),
    ],
)
def test_mistakes_are_told_in_one_message(
    invoke: Any, classifier: Path, rows: Path, flags: tuple[str, ...], says: str
) -> None:
    result = invoke("evaluate", classifier, "--task", "text", "--data", rows, *flags, code=2)
    assert says in result.stderr


def test_a_class_that_is_missing_stops_a_run_before_it_trains(invoke: Any, splits: Path, tmp_path: Path) -> None:
    flags = ("--set", "evaluation.positive=scam", "--output", tmp_path / "x")
    result = invoke("train", "ce", "--task", "text", "--data", splits, *flags, code=2)
    assert 'evaluation.positive: no class is called "scam"' in result.stderr
    assert not (tmp_path / "x" / "model").exists()


def test_recall_at_the_threshold_is_beside_every_attack_and_noise(invoke: Any, run: Path, tmp_path: Path) -> None:
    flags = ["--eps", ".05", "--noise", "keyboard,upper", "--noise-strengths", "1,3", "--noise-draws", 2]
    flags += ["--gate", "recall[noise]>=0", "--gate", "recall[noise:keyboard@3]>=0", "--gate", "recall[apgd-0.05]>=0"]
    result = invoke("evaluate", run, *flags, "--output", tmp_path / "a.json", "--report", tmp_path / "a.html")
    assert "recall of spam at the saved" in result.stdout  # the title of the table
    assert "false positives" in result.stdout
    measured = json.loads((tmp_path / "a.json").read_text())
    noise, attacked = measured["noise"], measured["detection"]["under_attack"]
    assert noise["threshold"]["recall"]["clean"] == measured["metrics"]["recall"]
    assert measured["metrics"]["recall@noise"] == noise["threshold"]["recall"]["mean"]["value"]
    assert measured["metrics"]["recall@apgd-0.05"] == attacked["at"][0]["recall"]["percent"]
    assert attacked["at"][0]["recall"]["percent"] <= measured["metrics"]["recall"]
    assert "Recall of spam at the saved threshold by strength" in (tmp_path / "a.html").read_text()
    failed = invoke("evaluate", run, *flags, "--gate", "recall[noise]>100", code=3)
    assert "recall[noise]>100: it is" in failed.stderr


def test_prediction_by_another_threshold(invoke: Any, run: Path, splits: Path, tmp_path: Path) -> None:
    flags = ("predict", run, splits / "test.csv", "--output", tmp_path / "p.csv", "--force")
    invoke(*flags, "--threshold", 0.2)
    frame = pd.read_csv(tmp_path / "p.csv")
    assert [label == "spam" for label in frame["label"]] == (frame["probability_spam"] >= 0.2).tolist()
    invoke(*flags, "--positive", "ham", "--threshold", 0.9)
    frame = pd.read_csv(tmp_path / "p.csv")
    assert [label == "ham" for label in frame["label"]] == (frame["probability_ham"] >= 0.9).tolist()
    for wrong, says in (
        (("--threshold", 1.5), "a probability between 0 and 1, not 1.5"),
        (("--positive", "scam", "--threshold", 0.5), 'no class is called "scam"'),
        (("--positive", "ham"), "no threshold was saved for ham"),
    ):
        assert says in invoke(*flags, *wrong, code=2).stderr
