"""The shape of SCAL's Table 7 at a small scale: trained on SNLI and SICK, measured on ANLI, which no method has seen.

    python benchmarks/nli.py --data ../shared/data/text            # everything, goes on where it stopped
    python benchmarks/nli.py --methods ce scal --rows 2000 --seeds 1 2
    python benchmarks/nli.py --table                               # print the table from what is there

Training rows are drawn from a mixture of two sources, SNLI's validation and test sets and SICK's training set:
``--rows`` of them, and 500 others as validation rows. *select*: cross-entropy tries three learning rates; at the best
one each other method tries three settings (as many trials for each method), one seed, chosen by accuracy on the
validation rows alone. Accuracy under PGD has no say: a model that gives every row one class is hard to attack.
*test*: the winners, several seeds, on ANLI's dev and test sets. Each finished training is a line of the results file;
lines that are there are not done again.
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

from contraverse import METHODS, Splits, TextModel, Trainer, evaluate, load_splits
from contraverse.evaluation import evaluate_nli, load_anli

RESULTS = Path("docs/results/nli.jsonl")
RATES = (5e-5, 1e-4, 2e-4)
GRID: dict[str, list[dict[str, Any]]] = {
    "ce": [{}],
    "at": [{"epsilon": 0.3}, {"epsilon": 0.6}, {"epsilon": 1.0}],
    "scal": [{"epsilon": 0.3, "alpha": 0.1}, {"epsilon": 0.6, "alpha": 0.1}, {"epsilon": 1.0, "alpha": 0.03}],
}
"""What each method tries: three trials each. A method that is not here runs with ``--methods NAME --try SETTINGS``."""
VALIDATION = 500


def parts(folder: Path, rows: int) -> Splits:
    """``rows`` training rows of the mixture and 500 validation rows; the seed of training does not draw them."""
    sources = [
        {"task": "snli", "source": str(folder / "snli"), "split": ["validation", "test"]},
        {"task": "snli", "source": str(folder / "sick" / "train.parquet")},
    ]
    return load_splits("snli", sources, seed=0, train_rows=rows, validation_rows=VALIDATION)


def train(splits: Splits, key: dict[str, Any], epochs: int, bf16: bool) -> tuple[TextModel, float]:
    """One training from MiniLM; the model in fp32, and the seconds that it took."""
    rows = splits.need("train")
    set_seed(key["seed"])
    model = TextModel.from_pretrained("minilm", labels=rows.label_names)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            METHODS[key["method"]](**key["settings"]),
            rows,
            output_dir=folder,
            seed=key["seed"],
            learning_rate=key["rate"],
            num_train_epochs=epochs,
            save_strategy="no",
            report_to="none",
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    return trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False), seconds


def trial(key: dict[str, Any], splits: Splits, folder: Path, epochs: int, bf16: bool) -> dict[str, Any]:
    """Train and measure: on validation rows to choose settings, on ANLI to report them."""
    model, seconds = train(splits, key, epochs, bf16)
    found: dict[str, Any] = {"validation": evaluate(model, splits.need("validation")), "seconds": round(seconds, 1)}
    if key["stage"] == "test":
        found["anli"] = evaluate_nli(model, load_anli(folder)).to_dict()
    return found


def read() -> list[dict[str, Any]]:
    """The lines of the results file."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def best(method: str, rows: int, epochs: int) -> dict[str, Any]:
    """The trial of a method with the best accuracy on validation rows; of equal ones the first."""
    wanted = {"stage": "select", "method": method, "rows": rows, "epochs": epochs}
    tried = [row for row in read() if wanted.items() <= row.items()]
    return max(tried, key=lambda row: row["validation"]["accuracy"])


def plan(
    methods: list[str], grid: dict[str, list[dict[str, Any]]], seeds: list[int], rows: int, epochs: int
) -> Iterator[dict[str, Any]]:
    """Every training in order; what comes later depends on what was found before."""
    base = {"rows": rows, "epochs": epochs}
    for rate in RATES:
        yield {"stage": "select", "method": "ce", "settings": {}, "rate": rate, "seed": 0, **base}
    rate = best("ce", rows, epochs)["rate"]
    for method in methods:
        for settings in grid[method] if method != "ce" else ():
            yield {"stage": "select", "method": method, "settings": settings, "rate": rate, "seed": 0, **base}
    for seed in seeds:
        for method in methods:
            settings = best(method, rows, epochs)["settings"]
            yield {"stage": "test", "method": method, "settings": settings, "rate": rate, "seed": seed, **base}


def table() -> str:
    """The test stage as Markdown: mean and standard deviation over seeds, for each number of rows apart."""
    tested = [row for row in read() if row["stage"] == "test"]
    columns = [(split, name) for split in ("validation", "test") for name in ("a1", "a2", "a3", "pooled", "mean")]
    names = [f"{'dev' if split == 'validation' else split} {name}" for split, name in columns]
    lines = ["| method | settings | rows | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 4) + "|"]
    for rows, epochs, method in dict.fromkeys((row["rows"], row["epochs"], row["method"]) for row in tested):
        mine = [row for row in tested if (row["rows"], row["epochs"], row["method"]) == (rows, epochs, method)]
        cells = []
        for split, name in columns:
            found = [row["anli"][split] for row in mine]
            values = [one[name] if name in one else one["accuracy"][name] for one in found]
            cells.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}")
        settings = "; ".join([f"lr {mine[0]['rate']:g}", *(f"{k} {v}" for k, v in mine[0]["settings"].items())])
        lines.append(f"| {method} | {settings} | {rows} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(GRID))
    parser.add_argument("--try", dest="settings", nargs=3, type=json.loads, help="three settings, JSON, of one method")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--fp32", action="store_true", help="train in fp32, not in bf16 autocast")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()
    globals()["RESULTS"] = arguments.results
    if arguments.table:
        print(table())
        return
    grid = dict(GRID)
    if arguments.settings is not None:
        if len(arguments.methods) != 1:
            parser.error("--try gives the settings of one method")
        grid[arguments.methods[0]] = arguments.settings
    if absent := [name for name in arguments.methods if name not in grid]:
        parser.error(f"no settings to try for {', '.join(absent)}: give them with --try")
    set_verbosity_error()
    disable_progress_bar()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    splits = parts(arguments.data, arguments.rows)
    for key in plan(arguments.methods, grid, arguments.seeds, arguments.rows, arguments.epochs):
        if any(key.items() <= row.items() for row in read()):
            continue
        found = trial(key, splits, arguments.data, arguments.epochs, bf16=not arguments.fp32)
        row = {**key, **found, "threads": torch.get_num_threads(), "bf16": not arguments.fp32, "commit": commit}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
