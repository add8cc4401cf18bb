"""A run that is killed at any moment goes on to the weights, the log and the figures of one that was not."""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference.killing import clear, in_child

from contraverse.pipeline import run, search
from contraverse.recipes import RunConfig, SearchConfig

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
Configured = Callable[..., RunConfig]
Work = Callable[[bool], object]
SMALL: dict[str, Any] = {
    "train.save_strategy": "steps", "train.eval_strategy": "steps", "train.save_steps": 2, "train.eval_steps": 2,
    "train.max_steps": 6, "train.report_to": "none", "train.disable_tqdm": True, "train.logging_steps": 1,
    "evaluation.epsilons": [], "evaluation.robust_validation": False,
}  # fmt: skip


@pytest.fixture
def works(configured: Configured, rows: Path, tmp_path: Path) -> dict[str, Callable[[Path], Work]]:
    """What is killed: name -> output -> a function of ``resume``."""
    pictures = tmp_path / "pictures"
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, lightest in (("dark", 120), ("light", 250)):
            (pictures / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = noise.integers(lightest - 110, lightest, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(pictures / split / name / f"{i}.png")
    images = {
        "model.name": "resnet8",
        "method.steps": 1,
        "train.per_device_train_batch_size": 8,
        "train.metric_for_best_model": "accuracy",
    }
    staged = {**SMALL, "train.max_steps": 4, "stages.itpt.train.max_steps": 4, "stages.itpt.train.save_steps": 2}
    configs = {
        "text": configured("scal", rows, **SMALL),
        "images": configured("trades", pictures, task="images", **{**SMALL, **images}),
        "stages": configured("itpt", rows, **staged),
    }
    plan = SearchConfig(
        config=configured("ce", rows, **{**SMALL, "train.max_steps": 2}),
        space={"train.learning_rate": "1e-5:1e-2:log", "model.pooling": ["cls", "mean"]},
        trials=2,
        seed=0,
    )

    def training(config: RunConfig) -> Callable[[Path], Work]:
        return lambda output: lambda resume: run(config, output, resume=resume)

    return {
        **{name: training(config) for name, config in configs.items()},
        "search": lambda output: lambda resume: search(plan, output, resume=resume),
    }


def outcome(folder: Path) -> dict[str, Any]:
    """The files of a run or a search, their weights and logs by content, their figures without times."""
    state: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".safetensors", ".jsonl") and path.name != "trials.jsonl":
            state[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name in ("evaluation.json", "trials.jsonl"):
            state[name] = (
                [_timeless(json.loads(line)) for line in path.read_text().split("\n\n") if line.strip()]
                if path.name == "evaluation.json"
                else [_timeless(json.loads(x)) for x in path.read_text().splitlines()]
            )
        elif path.name in ("best.yaml", "config.yaml", "search.yaml", "fingerprint.json"):
            state[name] = path.read_text().replace(str(folder), "OUTPUT")
        else:
            state[name] = "there"
    return state


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key != "seconds"}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return "trained in stages" if isinstance(value, str) and value.startswith("trained in stages") else value


def go_on(work: Work, folder: Path) -> str:
    """Resume; where nothing had been written yet, begin."""
    said, _ = in_child(lambda: work(True), folder)
    if "nothing to resume" in said:
        said, _ = in_child(lambda: work(False), folder)
    return said


def killed_everywhere(work: Callable[[Path], Work], folder: Path, points: int, times: int) -> list[str]:
    """What went wrong, of ``points`` kills at changes of the disk, spread evenly, and ``times`` at random times."""
    output, draw = folder / "run", random.Random(0)
    began = time.perf_counter()
    said, changes = in_child(lambda: work(output)(False), output)
    seconds = time.perf_counter() - began
    assert said == "done", said
    whole = outcome(output)
    at = [round(1 + i * (len(changes) - 1) / max(1, points - 1)) for i in range(points)]
    moments = [(number, None) for number in at] + [(0, draw.uniform(0.1, seconds)) for _ in range(times)]
    wrong = []
    for number, after in moments:
        clear(output)
        where = changes[number - 1] if number else f"{after:.2f} s"
        ended, _ = in_child(lambda: work(output)(False), output, number, after)
        if ended != "killed" and number:
            wrong.append(f"not killed at {where}: {ended}")
            continue
        said = go_on(work(output), output)
        if said != "done":
            wrong.append(f"killed at {where}: {said}")
        elif (now := outcome(output)) != whole:
            differing = sorted(name for name in {*now, *whole} if now.get(name) != whole.get(name))
            wrong.append(f"killed at {where}: other {differing}")
    return wrong


@pytest.mark.parametrize(("name", "points", "times"), [("text", 4, 1), ("search", 3, 0)])
def test_killed_at_some_points(name: str, points: int, times: int, works: Any, tmp_path: Path) -> None:
    assert killed_everywhere(works[name], tmp_path, points, times) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "points", "times"), [("text", 34, 8), ("images", 12, 6), ("stages", 14, 4), ("search", 18, 4)]
)
def test_killed_at_a_hundred_points(name: str, points: int, times: int, works: Any, tmp_path: Path) -> None:
    assert killed_everywhere(works[name], tmp_path, points, times) == []
