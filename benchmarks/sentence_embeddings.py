"""The shape of SCAL's Table 6 at a small scale: SimCSE against USCAL on Wikipedia sentences, seven STS sets.

    python benchmarks/sentence_embeddings.py --data ../shared/data/text      # everything, goes on where it stopped
    python benchmarks/sentence_embeddings.py --table                         # print the table from what is there

Two starts: MiniLM whole, which is a sentence encoder already, and its lower three layers, from which there is more
to learn. Per start and method, *select* tries three settings with one seed on STS-B's validation pairs; *test* runs
the winner with three seeds and measures the checkpoint that was best on STS-B validation. Each finished training is a
line of the results file; lines that are there are not done again.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from study import Row, Study, markdown, mean_and_deviation
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, TextModel, Trainer, evaluate_sts, load_splits
from contraverse.evaluation import STS_SETS, StsbDev
from contraverse.types import Method

STUDY = Study(Path("docs/results/sentence_embeddings.jsonl"))
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


def train(
    model: TextModel, method: Method, rate: float, seed: int, rows: TextData, sts: Path
) -> tuple[TextModel, dict[str, Any]]:
    """Train once: the checkpoint that was best on STS-B's validation pairs, in fp32, and how it came to it."""
    set_seed(seed)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            method,
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
    state, name = trainer.state, "eval_stsb_spearman"
    dev = [round(entry[name], 2) for entry in state.log_history if name in entry and "eval_loss" not in entry]
    found = {"validation": state.best_metric, "best_step": state.best_global_step, "dev": dev}
    return trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False), found | {"seconds": round(seconds, 1)}


def measure(encode: Callable[[Sequence[str]], np.ndarray], sts: Path) -> dict[str, float]:
    """Spearman on the seven sets, "all", and their average."""
    report = evaluate_sts(encode, sts)
    return {name: round(scores.all, 2) for name, scores in report.sets.items()} | {"average": round(report.average, 2)}


def trial(key: Row, rows: TextData, sts: Path) -> dict[str, Any]:
    """The training of one key of `plan`; that of the start itself is none."""
    if key["stage"] == "start":
        return measure(build(key["start"]).encode, sts)
    set_seed(key["seed"])
    method = METHODS[key["method"]](**key["settings"])
    model, found = train(build(key["start"]), method, key["rate"], key["seed"], rows, sts)
    return found | (measure(model.encode, sts) if key["stage"] == "test" else {})


def plan(start: str) -> Iterator[Row]:
    """Every training from one start in order; what comes later depends on what was found before."""

    def best(method: str) -> Row:
        return STUDY.best(lambda row: row["metrics"]["validation"], stage="select", start=start, method=method)

    yield {"stage": "start", "start": start, "method": "none"}
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
    names, lines = [*STS_SETS, "average"], []
    for start in STARTS:
        for method in ("none", *GRID):
            rows = STUDY.rows(stage="start" if method == "none" else "test", start=start, method=method)
            if not rows:
                continue
            settings = {"lr": rows[0]["rate"], **rows[0]["settings"]} if method != "none" else {}
            shown = ", ".join(f"{k} {v:g}" for k, v in settings.items()) or "-"
            cells = [mean_and_deviation([row["metrics"][name] for row in rows], 2) for name in names]
            lines.append([start, method, shown, str(len(rows)), *cells])
    return markdown(["start", "method", "settings", "seeds", *names], lines)


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
    rows = load_splits("sentences", arguments.data / "wiki_sentences").need("train").sample(SENTENCES, seed=0)
    for start in arguments.starts:
        STUDY.run(plan(start), lambda key: trial(key, rows, arguments.data))


if __name__ == "__main__":
    main()
