"""Text-form adversaries on SST-2 (CARL/RAR, Table 6): how often RAR's head reads a sentence that fools, and how close.

    python benchmarks/adversarial_sentences.py --data ../shared/data/text      # goes on where it stopped
    python benchmarks/adversarial_sentences.py --table                         # print what is there

Trains RAR, whose sentences they are, and CE, which the paper says they fool as well, on the same rows; each is a line
of the results file with its accuracy on validation rows that are cut from the training rows, and is kept in --models.
Then the search on SST-2's validation set, once for each way of reading: *whole*, as the paper, takes all that the head
reads and asks no second opinion; *near* is the default of `find_adversaries`. A line holds the figures and 20 sentences
that change the prediction, drawn by seed, far ones too; of *near* the kept ones come first, and the rest fills up.
"""

import argparse
import json
import math
import statistics
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from study import fine_tune
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, TextModel, load_splits
from contraverse.evaluation import evaluate
from contraverse.evaluation.adversaries import Closeness, changed_words, find_adversaries

RESULTS = Path("docs/results/adversarial_sentences.jsonl")
TRAINED: dict[str, dict[str, Any]] = {
    "rar": {"weight": 0.1, "steps": 2, "step_size": 0.1},
    "ce": {},
}
READINGS: dict[Literal["whole", "near"], Closeness] = {
    "whole": Closeness(max_edits=99, max_share=0.5, min_similarity=0.7, max_drop=math.inf, min_word_similarity=-1),
    "near": Closeness(),
}
EPSILONS = (0.3, 1.0, 3.0)
ROWS, EPOCHS, RATE, SEED, SHOWN = 2000, 3, 1e-4, 1, 20


def rows(folder: Path) -> tuple[TextData, TextData, TextData]:
    """Training rows, rows to judge a training by, and rows to attack, which no training saw."""
    train = load_splits("sst2", {"train": folder / "sst2/train_sentences.parquet"}, validation_fraction=0).train
    attacked = load_splits("sst2", {"test": folder / "sst2/validation.parquet"}).need("test")
    assert train is not None
    return *train.sample(ROWS + 300, seed=0).split(300 / (ROWS + 300), seed=0), attacked


def train(method: str, data: TextData, judged: TextData, folder: Path, bf16: bool) -> dict[str, Any]:
    """Train once, save, and say what it is worth."""
    learner = METHODS[method](**TRAINED[method])
    model, seconds = fine_tune(learner, data, rate=RATE, epochs=EPOCHS, seed=SEED, bf16=bf16)
    model.save(folder)
    return {"metrics": evaluate(model, judged), "rows": len(data), "seconds": seconds, "bf16": bf16}


def search(reading: Literal["whole", "near"], attacked: TextData, models: Path) -> dict[str, Any]:
    """One search: its figures, how close what it found is, and a draw of the sentences."""
    model, other = (TextModel.load(models / name).to(_device()) for name in ("rar", "ce"))
    began = time.perf_counter()
    report = find_adversaries(
        model, attacked, epsilons=EPSILONS, reading=reading, closeness=READINGS[reading], other=other
    )
    shown = report.found
    drawn = np.random.default_rng(0).permutation(len(shown))
    if reading == "near":
        drawn = drawn[np.argsort([not shown[i].close for i in drawn], kind="stable")]
    drawn = drawn[:SHOWN]
    means = {
        name: round(statistics.mean(getattr(one, name) for one in report.kept), 3) if report.kept else None
        for name in ("similarity", "edits", "share")
    }
    return {
        "figures": report.to_dict(),
        "closeness": means,
        "seconds": round(time.perf_counter() - began, 1),
        "sentences": [one.to_dict() | {"close": one.close} for one in (shown[i] for i in sorted(drawn))],
    }


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def read() -> list[dict[str, Any]]:
    """The lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def write(row: dict[str, Any]) -> None:
    """Add a line."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row | {"commit": commit}, ensure_ascii=False) + "\n")
    print(json.dumps({k: v for k, v in row.items() if k != "sentences"}), flush=True)


def table() -> str:
    """What is there, as Markdown."""
    lines = []
    for row in read():
        if row["stage"] == "train":
            lines.append(f"{row['method']}: {json.dumps(row['settings'])}, {json.dumps(row['metrics'])}\n")
            continue
        lines.append(f"### {row['reading']}\n\n{json.dumps(row['figures'])}\n\n{json.dumps(row['closeness'])}\n")
        lines += ["| original | rewritten | similarity | edits | kept | other |", "|---" * 6 + "|"]
        for one in row["sentences"]:
            marked = " ".join(f"**{w}**" if new else w for w, new in changed_words(one["original"], one["rewritten"]))
            lines.append(
                f"| {one['original']} ({one['prediction_original']}) | {marked} ({one['prediction_rewritten']}) | "
                f"{one['similarity']:.2f} | {one['edits']} | {'yes' if one['close'] else 'no'} | "
                f"{one['prediction_other']} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--models", type=Path, default=Path("runs/adversarial_sentences"), help="where both are kept")
    parser.add_argument("--fp32", action="store_true", help="train in fp32, not in bf16 autocast")
    parser.add_argument("--table", action="store_true", help="print what is there and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    set_verbosity_error()
    disable_progress_bar()
    data, judged, attacked = rows(arguments.data)
    for method, settings in TRAINED.items():
        key = {"stage": "train", "method": method, "settings": settings, "rate": RATE, "epochs": EPOCHS, "seed": SEED}
        done = any(all(row.get(k) == v for k, v in key.items()) for row in read())
        if not done or not (arguments.models / method / "config.json").is_file():
            write(key | train(method, data, judged, arguments.models / method, not arguments.fp32))
    for reading, closeness in READINGS.items():
        settings = {name: limit if limit < math.inf else None for name, limit in asdict(closeness).items()}
        key = {"stage": "search", "reading": reading, "settings": settings, "epsilons": list(EPSILONS)}
        if not any(all(row.get(k) == v for k, v in key.items()) for row in read()):
            write(key | search(reading, attacked, arguments.models))


if __name__ == "__main__":
    main()
