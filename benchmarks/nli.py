"""The shape of SCAL's Table 7 at a small scale: trained on SNLI and SICK, measured on ANLI, which no method has seen.

    python benchmarks/nli.py --data ../shared/data/text            # everything, goes on where it stopped
    python benchmarks/nli.py --methods ce scal --seeds 1 2
    python benchmarks/nli.py --table                               # print the table from what is there

4,000 training rows and 500 validation rows are drawn from a mixture of two sources: SNLI's validation and test sets,
and SICK's training set. *select*: cross-entropy tries three learning rates; at the best one each other method tries
three settings, one seed, chosen by accuracy on the validation rows alone. Accuracy under PGD has no say: a model that
gives every row one class is hard to attack. *test*: the winners, three seeds, on ANLI's dev and test sets.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from study import Row, Study, fine_tune, markdown, mean_and_deviation
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, Splits, evaluate, load_splits
from contraverse.evaluation import evaluate_nli, load_anli

STUDY = Study(Path("docs/results/nli.jsonl"))
RATES = (5e-5, 1e-4, 2e-4)
GRID: dict[str, list[dict[str, Any]]] = {
    "ce": [{}],
    "at": [{"epsilon": 0.03}, {"epsilon": 0.1}, {"epsilon": 0.3}],
    "scal": [{"epsilon": 0.03, "alpha": 0.1}, {"epsilon": 0.1, "alpha": 0.1}, {"epsilon": 0.3, "alpha": 0.1}],
}
TRAIN, VALIDATION, EPOCHS = 4000, 500, 3
SEEDS = (1, 2, 3)


def parts(folder: Path) -> Splits:
    """Training and validation rows of the mixture; the seed of training does not draw them."""
    sources = [
        {"task": "snli", "source": str(folder / "snli"), "split": ["validation", "test"]},
        {"task": "snli", "source": str(folder / "sick" / "train.parquet")},
    ]
    return load_splits("snli", sources, seed=0, train_rows=TRAIN, validation_rows=VALIDATION)


def trial(key: Row, splits: Splits, folder: Path) -> dict[str, Any]:
    """Train from MiniLM and measure: on validation rows to choose settings, on ANLI to report them."""
    rows = splits.need("train")
    method = METHODS[key["method"]](**key["settings"])
    model, seconds = fine_tune(method, rows, rate=key["rate"], epochs=EPOCHS, seed=key["seed"])
    found: dict[str, Any] = {"validation": evaluate(model, splits.need("validation")), "seconds": seconds}
    if key["stage"] == "test":
        found["anli"] = evaluate_nli(model, load_anli(folder)).to_dict()
    return found


def score(row: Row) -> float:
    """What settings are chosen by."""
    return float(row["metrics"]["validation"]["accuracy"])


def plan(methods: list[str], seeds: list[int]) -> Iterator[Row]:
    """Every training in order; what comes later depends on what was found before."""

    def row(stage: str, method: str, settings: dict[str, Any], rate: float, seed: int) -> Row:
        return {"stage": stage, "method": method, "settings": settings, "rate": rate, "rows": TRAIN, "seed": seed}

    for rate in RATES:
        yield row("select", "ce", {}, rate, 0)
    rate = STUDY.best(score, stage="select", method="ce", rows=TRAIN)["rate"]
    for method in methods:
        for settings in GRID[method] if method != "ce" else ():
            yield row("select", method, settings, rate, 0)
    for seed in seeds:
        for method in methods:
            settings = STUDY.best(score, stage="select", method=method, rate=rate, rows=TRAIN)["settings"]
            yield row("test", method, settings, rate, seed)


def table() -> str:
    """The test stage as Markdown: mean and standard deviation over seeds."""
    columns = [(split, name) for split in ("validation", "test") for name in ("a1", "a2", "a3", "pooled", "mean")]
    lines = []
    for method in GRID:
        mine = STUDY.rows(stage="test", method=method, rows=TRAIN)
        if not mine:
            continue
        settings = ", ".join([f"lr {mine[0]['rate']:g}", *(f"{k} {v}" for k, v in mine[0]["settings"].items())])
        seen = mean_and_deviation([score(row) for row in mine])
        cells = []
        for split, name in columns:
            found = [row["metrics"]["anli"][split] for row in mine]
            cells.append(mean_and_deviation([one[name] if name in one else one["accuracy"][name] for one in found]))
        lines.append([method, settings, str(len(mine)), seen, *cells])
    names = [f"{'dev' if split == 'validation' else split} {name}" for split, name in columns]
    return markdown(["method", "settings", "seeds", "SNLI and SICK", *names], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--methods", nargs="+", choices=GRID, default=list(GRID))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    set_verbosity_error()
    disable_progress_bar()
    splits = parts(arguments.data)
    STUDY.run(
        plan(arguments.methods, arguments.seeds),
        lambda key: trial(key, splits, arguments.data),
        bf16=True,
        device="cpu" if not torch.cuda.is_available() else "cuda",
    )


if __name__ == "__main__":
    main()
