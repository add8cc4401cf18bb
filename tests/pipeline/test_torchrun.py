"""Whole runs by torchrun on two processes, with their real draws: trained, stopped, resumed, reported."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from contraverse.models import load_model
from contraverse.pipeline.result import silent, uncounted
from contraverse.pipeline.steps import steps_of
from contraverse.recipes import RunConfig, configure, load
from contraverse.training import read_metrics

WORKER = Path(__file__).parents[1] / "reference" / "torchrun_runs.py"
RUNS = ("acl-ds", "carl", "dynacl", "interrupted-scal", "scal", "trades", "uscal")


def write_images(folder: Path) -> Path:
    """48 training and 20 test images of two classes."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 10)):
        for label, offset in (("dark", 0), ("light", 60)):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = (random.integers(0, 120, (8, 8, 3)) + offset).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


def configs(rows: Path, sentences: Path, sts: Path, images: Path, tiny: Path) -> dict[str, RunConfig]:
    common = {
        "train.num_train_epochs": 3, "train.global_batch_size": 8, "train.logging_steps": 2, "train.report_to": "none",
        "train.use_cpu": True, "train.disable_tqdm": True, "evaluation.steps": 2, "evaluation.batch_size": 4,
        "evaluation.diagnostics": 4,
    }  # fmt: skip
    text = {**common, "model.name": str(tiny), "train.learning_rate": 1e-3}
    labelled = {**text, "train.early_stopping_patience": 1, "evaluation.robust_validation": True}
    image = {**common, "model.name": "resnet8", "evaluation.random_start": True}
    contrast = {**image, "train.schedule.warmup_epochs": 0, "method.steps": 1}
    embedding = {**text, "evaluation.sts": str(sts), "train.early_stopping_patience": 1,
                 "train.eval_steps": 2, "train.save_steps": 2}  # fmt: skip
    chosen: dict[str, Any] = {
        "acl-ds": ("acl-ds", "images", images, contrast),
        "carl": ("carl", "text", rows, {**labelled, "method.start": 1.0}),
        "dynacl": ("dynacl", "images", images, contrast),
        "interrupted-scal": ("scal", "text", rows, labelled),
        "scal": ("scal", "text", rows, labelled),
        "trades": (
            "trades", "images", images,
            {**image, "train.early_stopping_patience": 1, "train.num_train_epochs": 6, "method.steps": 1},
        ),
        "uscal": ("uscal", "sentences", sentences, embedding),
    }  # fmt: skip
    return {
        name: configure(recipe, task=task, source=str(source), settings=settings)
        for name, (recipe, task, source, settings) in chosen.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchrun")


@pytest.fixture
def done(
    rows: Path, sentences: Path, sts: Path, folder: Path, tiny_folder: Callable[..., Path], request: Any
) -> subprocess.CompletedProcess[str]:
    """All runs, in one start of two processes; the first test that asks starts them."""
    kept: dict[Path, subprocess.CompletedProcess[str]] = request.config.stash.setdefault(KEPT, {})
    if folder not in kept:
        images = write_images(folder / "images")
        for name, config in configs(rows, sentences, sts, images, tiny_folder()).items():
            (folder / f"{name}.yaml").write_text(config.to_yaml(), encoding="utf-8")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        kept[folder] = subprocess.run(
            [*launcher, str(WORKER), str(folder)], capture_output=True, text=True, timeout=1500, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    assert kept[folder].returncode == 0, kept[folder].stdout + kept[folder].stderr
    return kept[folder]


KEPT = pytest.StashKey[dict[Path, Any]]()


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_figures_are_those_of_one_process(done: Any, folder: Path, name: str) -> None:
    """Every row's attack is the same, whoever computes it: clean and robust figures, to the last bit."""
    config, evaluation = load(folder / name / "config.yaml"), read(folder / name / "evaluation.json")
    steps, model = steps_of(config), load_model(folder / name / "model")
    splits = steps.load_and_prepare(test=True)
    measured = steps.measure(splits, model, say=silent, counting=uncounted, test=True)
    expected = json.loads(json.dumps(measured))
    assert expected["metrics"]
    assert {key: evaluation[key] for key in expected if key != "notes"} == {
        key: value for key, value in expected.items() if key != "notes"
    }
    first, second = (read(folder / f"{number}.json") for number in range(2))
    assert first[name] == second[name] == evaluation["metrics"]
    assert first[f"{name} codes"] == second[f"{name} codes"] == ([130, 0] if "interrupted" in name else [0])
    assert (folder / name / "report.html").is_file()
    assert not (folder / name / "checkpoints").exists()


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("name", ["carl", "scal", "trades", "uscal"])
def test_the_best_step_is_the_logs_and_the_same_for_both(done: Any, folder: Path, name: str) -> None:
    config, training = load(folder / name / "config.yaml"), read(folder / name / "evaluation.json")["training"]
    metric = config.train.arguments.get("metric_for_best_model") or {"uscal": "stsb_spearman"}.get(name, "accuracy")
    looked = [(row["step"], row[f"eval_{metric}"]) for row in read_metrics(folder / name / "metrics.jsonl")
              if f"eval_{metric}" in row]  # fmt: skip
    assert training["best_validation"] == max(value for _, value in looked)
    assert training["best_step"] in [step for step, value in looked if value == training["best_validation"]]
    # Early stopping with patience 1: it ended at the first evaluation that was no better, or with training.
    later = [value for step, value in looked if step > training["best_step"]]
    assert len(later) <= 1


@pytest.mark.ddp
@pytest.mark.slow
def test_a_resumed_run_is_the_one_that_was_not_stopped(done: Any, folder: Path) -> None:
    resumed, whole = (load_file(folder / name / "model" / "model.safetensors") for name in ("interrupted-scal", "scal"))
    assert all((resumed[key] == value).all() for key, value in whole.items())
    logs = [read_metrics(folder / name / "metrics.jsonl") for name in ("interrupted-scal", "scal")]
    assert logs[0] == logs[1]


@pytest.mark.ddp
@pytest.mark.slow
def test_one_process_speaks(done: Any, folder: Path) -> None:
    """What is printed is printed once, and how to go on names torchrun."""
    assert done.stderr.count("8 a step") == len(RUNS) + 1
    assert done.stderr.count("2 processes, with 4 rows at once each") == len(RUNS) + 1
    output = folder / "interrupted-scal"
    assert done.stderr.count("To go on:") == 1
    assert f"torchrun --nproc-per-node 2 --no-python contraverse train --output {output} --resume" in done.stderr
    assert done.stdout.count("report.html") == len(RUNS)
