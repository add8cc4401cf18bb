"""A run as its user has it: the folder, its figures, and what happens where one is already there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from contraverse.data import load_splits
from contraverse.errors import UserError
from contraverse.evaluation import StsbDev, evaluate, evaluate_sts, representation_shift
from contraverse.models import TextModel
from contraverse.pipeline import Interrupted, run
from contraverse.recipes import configure
from contraverse.training import read_metrics

Configured = Callable[..., Any]


def evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("recipe", ["ce", "at", "cl", "scal"])
def test_the_figures_are_those_of_the_saved_model(
    recipe: str, configured: Configured, rows: Path, tmp_path: Path
) -> None:
    result = run(configured(recipe, rows), tmp_path / "run")
    test = load_splits("text", rows).need("test")
    saved = TextModel.load(tmp_path / "run" / "model")
    found = evaluate(saved, test, metrics=("accuracy", "macro_f1"), epsilons=(0.1, 0.3, 1.0), steps=2, attack="apgd")
    assert result.metrics == pytest.approx(found)
    assert evaluation(tmp_path / "run")["metrics"] == result.metrics
    assert result.split == "test"
    assert all(path.exists() for path in result.paths.values())
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_saved_model_classifies_in_plain_transformers(configured: Configured, rows: Path, tmp_path: Path) -> None:
    run(configured("scal", rows), tmp_path / "run")
    folder = tmp_path / "run" / "model"
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(["good work", "the way"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(TextModel.load(folder)(tokens).logits, plain(**tokens).logits, atol=1e-5, rtol=0)
    assert plain.config.id2label == {0: "no", 1: "yes"}


def test_a_run_is_repeated_by_its_configuration(configured: Configured, rows: Path, tmp_path: Path) -> None:
    run(configured("scal", rows), tmp_path / "first")
    run(configure(file=tmp_path / "first" / "config.yaml"), tmp_path / "second")
    first, second = evaluation(tmp_path / "first"), evaluation(tmp_path / "second")
    assert {**first, "training": None} == {**second, "training": None}
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("first", "second")]
    assert logs[0] == logs[1]
    assert len(logs[0]) > 4


def test_a_sentence_encoder_loads_in_sentence_transformers(
    configured: Configured, sentences: Path, sts: Path, tmp_path: Path
) -> None:
    settings = {"evaluation.sts": str(sts), "train.eval_steps": 2, "train.save_steps": 2, "model.max_length": 6}
    result = run(configured("uscal", sentences, **settings), tmp_path / "run")
    saved = TextModel.load(tmp_path / "run" / "model")
    report = evaluate_sts(saved.encode, sts)
    assert {name: result.metrics[name] for name in report.metrics} == pytest.approx(report.metrics)
    assert {"alignment", "uniformity"} <= result.metrics.keys()
    others = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    long = ["good work " * 12, "the way"]  # longer than the 6 tokens of training
    np.testing.assert_allclose(others.encode(long), saved.encode(long), atol=1e-5)
    # The checkpoint that was best on validation is what was saved.
    training = evaluation(tmp_path / "run")["training"]
    logged = [
        row["eval_stsb_spearman"]
        for row in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if "eval_stsb_spearman" in row
    ]
    assert training["best_validation"] == max(logged)
    assert StsbDev(sts)(saved)["stsb_spearman"] == pytest.approx(max(logged), abs=1e-3)


def test_without_anything_to_validate_on_the_last_weights_are_kept(
    configured: Configured, sentences: Path, tmp_path: Path
) -> None:
    result = run(configured("simcse", sentences), tmp_path / "run")
    assert any("last weights" in note for note in result.notes)
    assert result.metrics == {}
    assert evaluation(tmp_path / "run")["training"]["best_step"] is None


def test_pairs_and_scores_train_too(configured: Configured, sts: Path, tmp_path: Path) -> None:
    file = sts / "stsb" / "test.parquet"
    files = {"train": str(file), "validation": str(file), "test": str(file)}
    config = configured("at", file, task="stsb", **{"data.source": files, "data.on_bad_row": "error"})
    result = run(config, tmp_path / "run")
    assert set(result.metrics) == {"spearman", "pearson"}  # and no attack on a regression


def test_tensorboard_keeps_what_was_logged(configured: Configured, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(configured("ce", rows), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    logged = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert [scalar.value for scalar in events.Scalars("train/loss")] == pytest.approx(logged)


def test_what_was_attacked_is_said(configured: Configured, rows: Path, tmp_path: Path) -> None:
    result = run(configured("ce", rows, **{"evaluation.rows": 6}), tmp_path / "run")
    assert any("6 of 18 rows were drawn (seed 42) to be attacked" in note for note in result.notes)
    assert evaluation(tmp_path / "run")["robustness"]["n"] == 6


def test_on_request_an_encoder_is_measured_by_how_far_an_attack_moves_it(
    configured: Configured, sentences: Path, tmp_path: Path
) -> None:
    asked = {"evaluation.shift": True, "evaluation.epsilons": [0.1, 0.5], "evaluation.rows": 4}
    result = run(configured("simcse", sentences, **asked), tmp_path / "run")
    shift = evaluation(tmp_path / "run")["shift"]
    model = TextModel.load(tmp_path / "run" / "model")
    rows = load_splits("sentences", sentences).need("train").sample(4, seed=42)
    expected = representation_shift(model, rows, [0.1, 0.5], attack="apgd", steps=2)
    assert [at["euclidean"] for at in shift["at"]] == pytest.approx(
        [found.euclidean.mean() for found in expected.at.values()], rel=1e-4
    )
    assert "Representations under attack" in result.paths["report"].read_text(encoding="utf-8")


def test_a_method_that_needs_labels_says_so(configured: Configured, sentences: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="label"):
        run(configured("scal", sentences), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("resume", "message"), [(False, "unfinished"), (True, "settings")])
def test_an_unfinished_run_is_not_overwritten(
    resume: bool, message: str, configured: Configured, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(configured("ce", rows).to_yaml(), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        run(configured("scal", rows), tmp_path / "run", resume=resume)


def test_a_folder_of_something_else_is_left_alone(configured: Configured, rows: Path, tmp_path: Path) -> None:
    for output, message in (
        (rows, "not empty"),
        (rows / "train.csv", "file"),
        (tmp_path / "none", "nothing to resume"),
    ):
        with pytest.raises(UserError, match=message):
            run(configured("ce", rows), output, resume=message == "nothing to resume")
    assert {path.name for path in rows.iterdir()} == {"train.csv", "validation.csv", "test.csv"}


def test_a_finished_run_is_not_overwritten(configured: Configured, rows: Path, tmp_path: Path) -> None:
    run(configured("ce", rows), tmp_path / "run")
    before = (tmp_path / "run" / "evaluation.json").read_bytes()
    with pytest.raises(UserError, match="a finished run is here"):
        run(configured("ce", rows), tmp_path / "run")
    assert (tmp_path / "run" / "evaluation.json").read_bytes() == before


def test_what_a_finished_run_lacks_is_made_up(configured: Configured, rows: Path, tmp_path: Path) -> None:
    """F11: a run that was killed between its figures and its report, by an older version."""
    done = run(configured("ce", rows), tmp_path / "run")
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("evaluation.json", "config.yaml")}
    for name in ("report.html", "model/README.md"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / "checkpoints" / "checkpoint-6").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "checkpoint-6" / "optimizer.pt").write_bytes(b"half")
    for _ in range(2):
        again = run(configured("ce", rows), tmp_path / "run", resume=True)
        assert (again.metrics, again.paths, again.split) == (done.metrics, done.paths, done.split)
        assert all(path.exists() for path in again.paths.values())
        assert (tmp_path / "run" / "model" / "README.md").is_file()
        assert not (tmp_path / "run" / "checkpoints").exists()
    assert kept == {name: (tmp_path / "run" / name).read_bytes() for name in kept}
    with pytest.raises(UserError, match=r"train\.seed was 42 and is 7"):
        run(configured("ce", rows, **{"train.seed": 7}), tmp_path / "run", resume=True)


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_an_interrupted_run_ends_as_one_that_was_not(
    strategy: str, configured: Configured, rows: Path, tmp_path: Path, ctrl_c: Any
) -> None:
    when = {"train.eval_strategy": strategy, "train.save_strategy": strategy}
    config = configured("scal", rows, **when, **{"train.eval_steps": 4, "train.save_steps": 4})
    run(config, tmp_path / "whole")

    ctrl_c(at=4)
    with pytest.raises(Interrupted) as stopped:
        run(config, tmp_path / "cut")
    assert stopped.value.checkpoint.name == "checkpoint-5"
    assert stopped.value.checkpoint.is_dir()
    run(config, tmp_path / "cut", resume=True)
    whole, cut = evaluation(tmp_path / "whole"), evaluation(tmp_path / "cut")
    assert {**whole, "training": None} == {**cut, "training": None}
    names = ("whole", "cut")
    assert len({(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in names}) == 1
    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in names]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("start", "epochs", "notes"),
    [(1, 3, []), (3, 2, ["FreeLB alone", "training ended before"]), (2, 2, ["FreeLB alone", "training ended before"])],
)
def test_a_finished_carl_had_its_contrast_or_says_that_it_had_none(
    start: float, epochs: int, notes: list[str], configured: Configured, rows: Path, tmp_path: Path
) -> None:
    """On labels that tell nothing the first epoch can be the best: what is kept is of a later one, or is named."""
    table = pd.read_csv(rows / "train.csv")
    table.assign(label=["yes", "no", "no", "yes"] * 12).to_csv(rows / "train.csv", index=False)
    settings = {"method.start": start, "method.gamma": 0.0, "method.steps": 2, "train.num_train_epochs": epochs}
    run(
        configured("carl", rows, **{"evaluation.epsilons": [], "train.early_stopping_patience": 1}, **settings),
        tmp_path / "run",
    )
    found = evaluation(tmp_path / "run")
    mine = [note for note in found["notes"] if "FreeLB" in note or "every term" in note]
    assert len(mine) == len(notes)
    assert all(text in note for text, note in zip(notes, mine, strict=True))
    best, an_epoch = found["training"]["best_step"], 6
    assert (best is None) if notes else best > start * an_epoch
