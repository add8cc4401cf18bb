"""The shape of SCAL's Table 6 at a small scale: SimCSE against USCAL on Wikipedia sentences, seven STS sets.

    python benchmarks/sentence_embeddings.py --data ../shared/data/text      # everything, goes on where it stopped
    python benchmarks/sentence_embeddings.py --table                         # print the table from what is there

Two starts: MiniLM whole, which is a sentence encoder already, and its lower three layers, from which there is more
to learn. Per start and method, *select* tries three settings with one seed on STS-B's validation pairs; *test* runs
the winner with three seeds and measures the checkpoint that was best on STS-B validation. Each finished training is a
line of the results file; lines that are there are not done again.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, TextModel, Trainer, evaluate_sts, load_splits
from contraverse.evaluation import STS_SETS, StsbDev

RESULTS = Path("docs/results/sentence_embeddings.jsonl")
SENTENCES, BATCH, EVERY = 6400, 64, 25
SEEDS = (1, 2, 3)
STARTS: dict[str, dict[str, Any]] = {"minilm-3": {"keep_layers": 3}, "minilm": {}}
GRID: dict[str, list[dict[str, Any]]] = {
    "simcse": [{"rate": 3e-5}, {"rate": 1e-4}, {"rate": 3e-4}],
    "uscal": [
        {"epsilon": 0.3, "alpha": 0.3},
        {"epsilon": 1.0, "alpha": 0.3},
        {"epsilon": 1.0, "alpha": 1.0},
    ],
}


def build(start: str) -> TextModel:
    """The encoder that training starts from, mean-pooled as MiniLM was trained."""
    return TextModel.from_pretrained("minilm", pooling="mean", max_length=32, **STARTS[start])


def trial(
    start: str, method: str, settings: dict[str, Any], rate: float, seed: int, rows: TextData, sts: Path, test: bool
) -> dict[str, Any]:
    """Train once; the best STS-B validation figure and, for the test stage, the seven sets of that checkpoint."""
    set_seed(seed)
    model = build(start)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            METHODS[method](**settings),
            rows,
            evaluators={"dev": StsbDev(sts)},
            output_dir=folder,
            seed=seed,
            learning_rate=rate,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            eval_strategy="steps",
            eval_steps=EVERY,
            eval_on_start=True,
            save_strategy="steps",
            save_steps=EVERY,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model="stsb_spearman",
            greater_is_better=True,
            report_to="none",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        found = {"validation": trainer.state.best_metric, "best_step": trainer.state.best_global_step}
    if test:
        model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # measured in fp32
        found |= measure(model, sts)
    return found | {"seconds": round(seconds, 1)}


def measure(model: TextModel, sts: Path) -> dict[str, float]:
    """Spearman on the seven sets, "all", and their average."""
    report = evaluate_sts(model.encode, sts)
    return {name: round(scores.all, 2) for name, scores in report.sets.items()} | {"average": round(report.average, 2)}


def read() -> list[dict[str, Any]]:
    """The lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def plan(start: str) -> Iterator[dict[str, Any]]:
    """Every training from one start in order; what comes later depends on what was found before."""

    def best(method: str) -> dict[str, Any]:
        tried = [r for r in read() if (r["stage"], r["start"], r["method"]) == ("select", start, method)]
        return max(tried, key=lambda row: row["metrics"]["validation"])

    for choice in GRID["simcse"]:
        yield {"stage": "select", "start": start, "method": "simcse", "settings": {}, **choice, "seed": 0}
    rate = best("simcse")["rate"]
    for settings in GRID["uscal"]:
        yield {"stage": "select", "start": start, "method": "uscal", "settings": settings, "rate": rate, "seed": 0}
    for seed in SEEDS:
        for method in GRID:
            settings = best(method)["settings"]
            yield {"stage": "test", "start": start, "method": method, "settings": settings, "rate": rate, "seed": seed}


def table() -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    names = [*STS_SETS, "average"]
    lines = ["| start | method | settings | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 4) + "|"]
    for start in STARTS:
        for method in ("none", *GRID):
            rows = [r for r in read() if (r["start"], r["method"]) == (start, method) and r["stage"] != "select"]
            if not rows:
                continue
            values = [[r["metrics"][name] for r in rows] for name in names]
            cells = [
                f"{statistics.mean(v):.2f}" + (f" ± {statistics.stdev(v):.2f}" if len(v) > 1 else "") for v in values
            ]
            settings = {"lr": rows[0]["rate"], **rows[0]["settings"]} if method != "none" else {}
            shown = ", ".join(f"{k} {v:g}" for k, v in settings.items()) or "-"
            lines.append(f"| {start} | {method} | {shown} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    set_verbosity_error()
    disable_progress_bar()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()

    def keep(key: dict[str, Any], metrics: dict[str, Any]) -> None:
        row = key | {"metrics": metrics, "threads": torch.get_num_threads(), "commit": commit}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    rows = load_splits("sentences", arguments.data / "wiki_sentences").need("train").sample(SENTENCES, seed=0)
    for start in arguments.starts:
        base = {"stage": "start", "start": start, "method": "none"}
        if not any(all(row[k] == v for k, v in base.items()) for row in read()):
            keep(base, measure(build(start), arguments.data))
        for key in plan(start):
            if not any(all(row.get(k) == v for k, v in key.items()) for row in read()):
                named = {k: key[k] for k in ("start", "method", "settings", "rate", "seed")}
                keep(key, trial(**named, rows=rows, sts=arguments.data, test=key["stage"] == "test"))


if __name__ == "__main__":
    main()
