"""Sentence embeddings without labels beside SimCSE: poolings, whitening and flow, and ConSERT and IS-BERT.

    python benchmarks/sentence_postprocessing.py --data ../shared/data/text     # everything, goes on where it stopped
    python benchmarks/sentence_postprocessing.py --parts fits                   # only what trains no encoder
    python benchmarks/sentence_postprocessing.py --table                        # print the table from what is there

Two starts, as in sentence_embeddings.py: MiniLM whole, and its lower three layers. *Fits*: for each pooling the start
itself, and with a whitening (all dimensions, and 256) and a flow fitted to 6,400 Wikipedia sentences, none of them an
STS sentence. *Trainings*: ConSERT and IS-BERT on the same sentences, batches and steps as SimCSE there; three learning
rates are tried with one seed on STS-B's validation pairs, and the best is run with three seeds. Each line of the
results file is one measurement; lines that are there are not done again.
"""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sentence_embeddings import BATCH, EVERY, SEEDS, SENTENCES, STARTS
from study import Study, mean_and_deviation
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, TextModel, Trainer, evaluate_sts, load_splits
from contraverse.evaluation import STS_SETS, StsbDev
from contraverse.models import fit_flow, fit_whitening

STUDY = Study(Path("docs/results/sentence_postprocessing.jsonl"))
POOLINGS = ("cls", "mean", "first-last", "last-two")
AFTER: dict[str, Any] = {
    "none": None,
    "whitening": fit_whitening,
    "whitening-256": partial(fit_whitening, dim=256),
    "flow": fit_flow,
}
RATES = (3e-5, 1e-4, 3e-4)
TRAINED: dict[str, dict[str, Any]] = {"consert": {"pooling": "mean"}, "isbert": {"embedding": "ngrams"}}


class Encoded:
    """A model's embeddings of the STS sentences, made once, and then put through what is fitted."""

    def __init__(self, model: TextModel) -> None:
        self.model = model
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, sentences: list[str]) -> np.ndarray:
        after, self.model.postprocess = self.model.postprocess, None
        if unknown := [s for s in sentences if s not in self.known]:
            self.known |= dict(zip(unknown, self.model.encode(unknown), strict=True))
        self.model.postprocess = after
        rows = np.stack([self.known[s] for s in sentences])
        if after is None:
            return rows
        with torch.no_grad():
            return np.asarray(after(torch.from_numpy(rows).to(self.model.device)).cpu())


def measure(encode: Any, sts: Path) -> dict[str, float]:
    """Spearman on the seven sets, "all", and their average."""
    report = evaluate_sts(encode, sts)
    return {name: round(scores.all, 2) for name, scores in report.sets.items()} | {"average": round(report.average, 2)}


def train(start: str, method: str, rate: float, seed: int, rows: TextData, sts: Path, test: bool) -> dict[str, Any]:
    """Train once; the best STS-B validation figure and, for the test stage, the seven sets of that checkpoint."""
    set_seed(seed)
    model = TextModel.from_pretrained("minilm", max_length=32, **STARTS[start], **TRAINED[method])
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            METHODS[method](),
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
        dev = [round(entry["eval_stsb_spearman"], 2) for entry in trainer.state.log_history if "eval_loss" not in entry
               and "eval_stsb_spearman" in entry]  # fmt: skip
        found = {"validation": trainer.state.best_metric, "best_step": trainer.state.best_global_step, "dev": dev}
    if test:
        model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # measured in fp32
        found |= measure(model.encode, sts)
    return found | {"seconds": round(seconds, 1)}


def trained(key: dict[str, Any], rows: TextData, sts: Path) -> dict[str, Any]:
    """The training of one key of `trainings`."""
    named = {name: key[name] for name in ("start", "method", "rate", "seed")}
    return train(**named, rows=rows, sts=sts, test=key["stage"] == "test")


def trainings(start: str) -> Iterator[dict[str, Any]]:
    """Every training from one start in order; the seeds' rate depends on what was found before."""
    for method in TRAINED:
        for rate in RATES:
            yield {"stage": "select", "start": start, "method": method, "rate": rate, "seed": 0}
        tried = STUDY.best(lambda row: row["metrics"]["validation"], stage="select", start=start, method=method)
        best = tried["rate"]
        for seed in SEEDS:
            yield {"stage": "test", "start": start, "method": method, "rate": best, "seed": seed}


def table() -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    names = [*STS_SETS, "average"]
    lines = ["| start | what | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in STUDY.rows():
        if row["stage"] == "fit":
            groups.setdefault((row["start"], f"{row['pooling']}, {row['after']}"), []).append(row["metrics"])
        elif row["stage"] == "test":
            groups.setdefault((row["start"], f"{row['method']}, lr {row['rate']:g}"), []).append(row["metrics"])
    for (start, what), found in groups.items():
        values = [[metrics[name] for metrics in found] for name in names]
        cells = [mean_and_deviation(v, 2) for v in values]
        lines.append(f"| {start} | {what} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--parts", nargs="+", choices=("fits", "trainings"), default=["fits", "trainings"])
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    set_verbosity_error()
    disable_progress_bar()
    rows = load_splits("sentences", arguments.data / "wiki_sentences").need("train").sample(SENTENCES, seed=0)
    for start in arguments.starts:
        for pooling in POOLINGS if "fits" in arguments.parts else ():
            keys = [{"stage": "fit", "start": start, "pooling": pooling, "after": after} for after in AFTER]
            if all(STUDY.rows(**key) for key in keys):
                continue
            model = TextModel.from_pretrained("minilm", pooling=pooling, **STARTS[start]).eval()
            encode = Encoded(model)
            for key in keys:
                if not STUDY.rows(**key):
                    fit = AFTER[key["after"]]
                    model.postprocess = None
                    model.postprocess = fit and fit(model, [texts[0] for texts in rows.texts])
                    STUDY.add(key, measure(encode, arguments.data))
        if "trainings" in arguments.parts:
            STUDY.run(trainings(start), lambda key: trained(key, rows, arguments.data))


if __name__ == "__main__":
    main()
