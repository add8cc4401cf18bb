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
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_embeddings import SEEDS, SENTENCES, STARTS, measure, train
from study import Study, markdown, mean_and_deviation
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, TextModel, load_splits
from contraverse.evaluation import STS_SETS
from contraverse.models import fit_flow, fit_whitening

STUDY = Study(Path("docs/results/sentence_postprocessing.jsonl"))
POOLINGS = ("cls", "mean", "first-last", "last-two")
AFTER: dict[str, Any] = {
    "none": None,
    "whitening": fit_whitening,
    "whitening-256": partial(fit_whitening, dim=256),
    "flow": fit_flow,
}
RATES = {"consert": (1e-5, 3e-5, 1e-4), "isbert": (1e-6, 5e-6, 2e-5)}
"""IS-BERT at 1e-4 only fell, from what its untrained convolutions give."""
TRAINED: dict[str, dict[str, Any]] = {"consert": {"pooling": "mean"}, "isbert": {"embedding": "ngrams"}}


class Encoded:
    """A model's embeddings of the STS sentences, made once, and then put through what is fitted."""

    def __init__(self, model: TextModel) -> None:
        self.model = model
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        after, self.model.postprocess = self.model.postprocess, None
        if unknown := [s for s in sentences if s not in self.known]:
            self.known |= dict(zip(unknown, self.model.encode(unknown), strict=True))
        self.model.postprocess = after
        rows = np.stack([self.known[s] for s in sentences])
        if after is None:
            return rows
        with torch.no_grad():
            return np.asarray(after(torch.from_numpy(rows).to(self.model.device)).cpu())


def trained(key: dict[str, Any], rows: TextData, sts: Path) -> dict[str, Any]:
    """The training of one key of `trainings`."""
    set_seed(key["seed"])
    model = TextModel.from_pretrained("minilm", max_length=32, **STARTS[key["start"]], **TRAINED[key["method"]])
    model, found = train(model, METHODS[key["method"]](), key["rate"], key["seed"], rows, sts)
    return found | (measure(model.encode, sts) if key["stage"] == "test" else {})


def trainings(start: str) -> Iterator[dict[str, Any]]:
    """Every training from one start in order; the seeds' rate depends on what was found before."""
    for method in TRAINED:
        for rate in RATES[method]:
            yield {"stage": "select", "start": start, "method": method, "rate": rate, "seed": 0}
        tried = STUDY.best(lambda row: row["metrics"]["validation"], stage="select", start=start, method=method)
        best = tried["rate"]
        for seed in SEEDS:
            yield {"stage": "test", "start": start, "method": method, "rate": best, "seed": seed}


def table() -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in STUDY.rows():
        if row["stage"] == "fit":
            groups.setdefault((row["start"], f"{row['pooling']}, {row['after']}"), []).append(row["metrics"])
        elif row["stage"] == "test":
            groups.setdefault((row["start"], f"{row['method']}, lr {row['rate']:g}"), []).append(row["metrics"])
    names = [*STS_SETS, "average"]
    lines = [
        [start, what, str(len(found)), *(mean_and_deviation([one[name] for one in found], 2) for name in names)]
        for (start, what), found in groups.items()
    ]
    return markdown(["start", "what", "seeds", *names], lines)


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
