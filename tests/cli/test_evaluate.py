"""What a saved model is worth, by the same figures as the Python functions give."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from contraverse.data import TextData, get_task, load_splits
from contraverse.evaluation import STS_SETS, evaluate, evaluate_sts, representation_shift
from contraverse.models import TextModel
from contraverse.pipeline import measure_task, progress_total
from contraverse.recipes import EvaluationConfig, configure


def test_a_classifier_is_measured_clean_and_under_attack(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path
) -> None:
    attack = ("--eps", ".5,20", "--steps", 2, "--norm", "l2")
    result = invoke("evaluate", classifier, "--task", "text", "--data", rows, *attack, "--output", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    data = load_splits("text", {"test": rows}).need("test")
    expected = evaluate(
        TextModel.load(classifier), data, metrics=("accuracy", "macro_f1"), epsilons=[0.5, 20.0], steps=2, attack="apgd"
    )
    assert found["metrics"] == pytest.approx(expected)
    assert found["rows"] == 20
    assert [at["epsilon"] for at in found["robustness"]["at"]] == [0.5, 20.0]
    assert f"{expected['accuracy']:.2f}" in result.stdout
    assert f"{expected['accuracy@apgd-0.5']:.2f}" in result.stdout
    assert expected["accuracy@apgd-20"] < expected["accuracy"]


def test_no_attack_on_request(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    invoke("evaluate", classifier, "--task", "text", "--data", rows, "--eps", "none", "--output", tmp_path / "e.json")
    assert "robustness" not in json.loads((tmp_path / "e.json").read_text())


def test_only_so_many_rows_are_attacked(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    attack = ("--eps", ".5", "--rows", 5, "--steps", 1)
    invoke("evaluate", classifier, "--task", "text", "--data", rows, *attack, "--output", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    assert (found["rows"], found["robustness"]["n"]) == (20, 5)


def test_labels_are_told_by_name_whatever_their_order_in_the_file(
    invoke: Any, tiny_model: Any, rows: Path, tmp_path: Path
) -> None:
    """A file's own classes are sorted: no, yes. The model's are not."""
    folder = tiny_model(labels=("yes", "no"), max_length=16).save(tmp_path / "reversed")
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:8]))  # of seven rows, no half is right
    args = ("--task", "text", "--data", rows, "--eps", "none", "--output", tmp_path / "e.json")
    invoke("evaluate", folder, *args)
    accuracy = json.loads((tmp_path / "e.json").read_text())["metrics"]["accuracy"]
    own = load_splits("text", {"test": rows}).need("test")
    assert own.labels is not None
    swapped = TextData.from_rows(own.texts, [1 - int(label) for label in own.labels], ("yes", "no"))
    assert accuracy == pytest.approx(evaluate(TextModel.load(folder), swapped)["accuracy"])


def test_a_label_that_the_model_does_not_know_is_refused(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text(rows.read_text() + "good work,maybe\n")
    args = ("evaluate", classifier, "--task", "text", "--data", tmp_path / "other.csv", "--eps", "none")
    assert "maybe" in invoke(*args, code=2).stderr
    invoke(*args, "--on-bad-row", "skip")


def test_a_split_that_is_not_there_names_those_that_are(
    invoke: Any, classifier: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    rows.rename(tmp_path / "data" / "train.csv")
    args = ("evaluate", classifier, "--task", "text", "--data", tmp_path / "data", "--eps", "none")
    assert "--split train or validation" in invoke(*args, code=2).stderr
    assert "text, 2 rows" in invoke(*args, "--split", "validation").stdout


@pytest.fixture
def run_folder(classifier: Path, rows: Path, tmp_path: Path) -> Path:
    """What a finished run leaves that evaluate needs: model/ and config.yaml."""
    run = tmp_path / "run"
    run.mkdir()
    classifier.rename(run / "model")
    settings = {"evaluation.epsilons": [0.5], "evaluation.steps": 1, "data.validation_fraction": 0.3}
    config = configure("ce", task="text", source=str(rows), settings=settings)
    (run / "config.yaml").write_text(config.to_yaml())
    return run


@pytest.mark.parametrize("part", ["", "model"])
def test_a_run_knows_its_task_data_and_attack(invoke: Any, run_folder: Path, tmp_path: Path, part: str) -> None:
    invoke("evaluate", run_folder / part, "--split", "validation", "--output", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    assert (found["task"], found["rows"]) == ("text", 20)  # one file is what --split says
    assert list(found["metrics"]) == ["accuracy", "macro_f1", "accuracy@apgd-0.5"]


def test_flags_win_over_the_run(invoke: Any, run_folder: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("".join(rows.read_text().splitlines(keepends=True)[:6]))
    args = ("--data", tmp_path / "few.csv", "--eps", "none", "--output", tmp_path / "e.json")
    invoke("evaluate", run_folder, *args)
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["rows"] == 5
    assert "robustness" not in found


def test_a_task_is_needed_where_no_run_tells_it(invoke: Any, classifier: Path) -> None:
    assert "--task" in invoke("evaluate", classifier, code=2).stderr


@pytest.mark.parametrize("eps", ["-1", "a", ".1,,3", "0", "inf", "nan", ""])
def test_impossible_radii_are_refused_before_anything_is_loaded(invoke: Any, eps: str) -> None:
    result = invoke("evaluate", "nowhere", f"--eps={eps}", code=2)
    assert "--eps" in result.stderr
    assert "Loading" not in result.stderr


@pytest.fixture
def sts(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    words = np.array("good work long years house way back very own state".split())
    for name in STS_SETS:
        (tmp_path / "sts" / name).mkdir(parents=True)
        frame = pd.DataFrame(
            {
                "sentence1": [" ".join(random.choice(words, 3)) for _ in range(12)],
                "sentence2": [" ".join(random.choice(words, 3)) for _ in range(12)],
                "score": random.uniform(0, 5, 12),
                "subset": ["a", "b"] * 6,
            }
        )
        frame.to_parquet(tmp_path / "sts" / name / "test.parquet")
    return tmp_path / "sts"


def test_a_sentence_encoder_is_measured_on_the_sts_sets(invoke: Any, encoder: Path, sts: Path, tmp_path: Path) -> None:
    result = invoke("evaluate", encoder, "--sts", sts, "--output", tmp_path / "e.json")
    report = evaluate_sts(TextModel.load(encoder).encode, sts)
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["sts"]["average"] == pytest.approx(report.average, abs=0.01)
    assert all(word in result.stdout for word in ("STS12", "SICK-R", "wmean", f"{found['sts']['average']:.2f}"))


def test_a_sentence_encoder_needs_a_folder_of_sts_sets(invoke: Any, encoder: Path, tmp_path: Path) -> None:
    assert "--sts" in invoke("evaluate", encoder, code=2).stderr
    assert "sts12" in invoke("evaluate", encoder, "--sts", tmp_path / "none", code=2).stderr


def test_every_setting_of_the_attack_is_reached(invoke: Any, classifier: Path, rows: Path, tmp_path: Path) -> None:
    attack = ("--eps", ".02,.5", "--attack", "pgd", "--norm", "linf", "--steps", 2, "--restarts", 2, "--relative")
    more = ("--shift", "--no-diagnostics", "--output", tmp_path / "e.json")
    result = invoke("evaluate", classifier, "--task", "text", "--data", rows, *attack, *more)
    found = json.loads((tmp_path / "e.json").read_text())
    used = found["robustness"]["attack"]
    assert {key: used[key] for key in ("name", "norm", "steps", "restarts", "relative")} == {
        "name": "pgd",
        "norm": "linf",
        "steps": 2,
        "restarts": 2,
        "relative": True,
    }
    assert found["robustness"]["diagnostics"] is None
    data = load_splits("text", {"test": rows}).need("test")
    model, settings = TextModel.load(classifier), {"norm": "linf", "steps": 2, "restarts": 2, "relative": True}
    report = representation_shift(model, data, [0.02, 0.5], **settings)
    assert [at["cosine"] for at in found["shift"]["at"]] == pytest.approx(
        [shift.cosine.mean() for shift in report.at.values()], abs=1e-5
    )
    assert "cosine similarity" in result.stdout
    assert f"{report.at[0.5].euclidean.mean():.3f}" in result.stdout


def test_a_blind_attack_is_warned_of(invoke: Any, tiny_model: Any, rows: Path, tmp_path: Path) -> None:
    model = tiny_model(labels=("no", "yes"), max_length=16)
    with torch.no_grad():
        model.encoder.classifier.weight.mul_(1e6)
    folder = model.save(tmp_path / "saturated")
    args = ("evaluate", folder, "--task", "text", "--data", rows, "--eps", ".05", "--output", tmp_path / "e.json")
    assert "gradients were zero or not finite" in invoke(*args, "--attack", "pgd").stderr
    warnings = json.loads((tmp_path / "e.json").read_text())["robustness"]["warnings"]
    assert any("times as large as the embeddings" in line for line in warnings)
    assert "warning" not in invoke(*args, "--attack", "apgd", "--force").stderr


def test_the_shift_of_a_sentence_encoder(invoke: Any, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("good work\nlong years at the house\nback state\n")
    args = ("evaluate", encoder, "--shift", "--eps", ".1,.5")
    result = invoke(*args, "--data", tmp_path / "s.txt", "--output", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    assert (found["rows"], found["shift"]["climbed"]) == (3, "distance")
    assert found["shift"]["at"][0]["euclidean"] < found["shift"]["at"][1]["euclidean"]
    assert "on the distance itself" in result.stdout
    assert "--data" in invoke(*args, code=2).stderr


def test_progress_adds_up_to_what_is_announced(tiny_model: Any, rows: Path) -> None:
    data = load_splits("text", {"test": rows}).need("test")
    model = tiny_model(labels=("no", "yes"))
    for settings in (
        EvaluationConfig(epsilons=[0.1, 1], steps=1, restarts=2, shift=True, rows=9),
        EvaluationConfig(epsilons=[0.1], attack="pgd", steps=1, diagnostics=5),
        EvaluationConfig(epsilons=[]),
    ):
        seen: list[int] = []
        measure_task(model, data, get_task("text"), settings, seed=0, progress=seen.append)
        assert sum(seen) == progress_total(model, len(data), settings)


def test_a_model_of_nli_is_measured_on_the_rounds_of_anli(
    invoke: Any, tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    names = ("entailment", "neutral", "contradiction")
    model = tiny_model(labels=names).save(tmp_path / "model")
    sizes = {"a1": 2, "a2": 3, "a3": 7}
    for name, size in sizes.items():
        (tmp_path / "anli" / name).mkdir(parents=True)
        for split in ("validation", "test"):
            frame = pd.DataFrame(
                {"premise": "the people work", "hypothesis": "he said so", "label": names[0]}, range(size)
            )
            frame.to_parquet(tmp_path / "anli" / name / f"{split}.parquet")
    result = invoke("evaluate", model, "--anli", tmp_path / "anli", "--output", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())["anli"]["test"]
    assert found["rows"] == sizes
    right = {name: round(found["accuracy"][name] * size / 100) for name, size in sizes.items()}
    assert found["pooled"] == pytest.approx(100 * sum(right.values()) / 12)
    assert found["mean"] == pytest.approx(sum(found["accuracy"].values()) / 3)
    assert "pooled" in result.stdout
    assert "mean" in result.stdout
