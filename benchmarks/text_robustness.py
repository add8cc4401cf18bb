"""The shape of CARL/RAR's Tables 2, 4 and 5 at a small scale: eight methods on SST-2, AG News and Yelp sentences.

    python benchmarks/text_robustness.py --data ../shared/data/text               # everything, goes on where it stopped
    python benchmarks/text_robustness.py --data ../shared/data/text --tasks sst2
    python benchmarks/text_robustness.py --stage matched                          # also: longer, for SST-2; options
    python benchmarks/text_robustness.py --table                                  # print the tables from what is there

Two stages. *select*: per task, each method tries three settings with one seed, cross-entropy three learning rates, the
others settings of their own at the rate that cross-entropy chose; scored on validation rows alone by the mean of
accuracy clean and under APGD at the smallest epsilon. *test*: the winners, three seeds, measured on test rows: accuracy
clean and under attack, how far the attack moves the representation, and seconds of training. Two more, to tell what the
terms of CARL and RAR add: *matched*, FreeLB with the step sizes that were chosen for them; *longer*, SST-2 with nearly
four times the steps, and one step size for the three. And *options*: what the paper leaves open of CARL, tried one by
one on validation rows, three seeds, for its defaults.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from study import Row, Study, averages, fine_tune, markdown, mean_and_deviation
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, load_splits, robust_accuracy
from contraverse.evaluation import TaskEvaluator, representation_shift

STUDY = Study(Path("docs/results/text_robustness.jsonl"))
SEEDS = (1, 2, 3)
EPSILONS = (0.1, 0.3, 1.0)
TRAIN, VALIDATION, TEST, ATTACKED, EPOCHS = 1000, 300, 2000, 200, 4
TOKENS = {"sst2": 128, "ag_news": 32, "yelp": 128}
"""Where texts are cut: AG News's have 54 tokens, the sentences of SST-2 25 and of Yelp 12."""
FILES = {
    "sst2": {"train": "sst2/train_sentences.parquet", "test": "sst2/test.parquet"},
    "ag_news": {"train": "ag_news/train_part.parquet", "test": "ag_news/test.parquet"},
    "yelp": {"train": "yelp_sentences/part.parquet"},
}
ATTACKED_BY = {"attack": "apgd", "steps": 10}
# The virtual attacks' paper value of 1e-5 moves nothing in MiniLM: their start is a quarter of the radius, so that bf16
# does not swallow it.
VIRTUAL = [{"epsilon": e, "step_size": e, "sigma": e / 4} for e in (0.01, 0.02, 0.05)]
LONGER: dict[str, dict[str, Any]] = {
    "ce": {},
    "freelb": {"step_size": 0.05},
    "carl": {"step_size": 0.05, "start": 3, "weight": 0.1},
    "rar": {"step_size": 0.05},
}
LONGER_ROWS, LONGER_EPOCHS = 3000, 5
OPTIONS: dict[str, dict[str, Any]] = {
    "weight .1, the last adversary, [CLS]": {},
    "weight .03": {"weight": 0.03},
    "the first adversary": {"adversary": "first"},
    "the pooler's output": {"features": "pooled"},
}
OPEN = {"step_size": 0.05, "start": 2, "weight": 0.1, "adversary": "last", "features": "h"}
"""What `OPTIONS` are tried with."""
GRID: dict[str, list[dict[str, Any]]] = {
    "ce": [{"rate": 5e-5}, {"rate": 1e-4}, {"rate": 2e-4}],
    "scal": [{"epsilon": 0.1}, {"epsilon": 0.2}, {"epsilon": 0.3}],
    "freelb": [{"step_size": 0.05}, {"step_size": 0.1}, {"step_size": 0.2}],
    "rar": [{"step_size": 0.05}, {"step_size": 0.1}, {"step_size": 0.2}],
    "carl": [
        {"step_size": 0.05, "start": 2, "weight": 0.03},
        {"step_size": 0.05, "start": 2, "weight": 0.1},
        {"step_size": 0.1, "start": 2, "weight": 0.03},
    ],
    "smart": VIRTUAL,
    "alum": VIRTUAL,
    "infobert": [
        {"gamma": 0.0, "step_size": 0.1},
        {"gamma": 0.0, "step_size": 0.3},
        {"gamma": 0.0, "step_size": 0.3, "alpha": 0.05},
    ],
}


CHOOSING = ("select", "options")
"""Stages that are measured on validation rows."""


def parts(task: str, folder: Path, count: int = TRAIN) -> tuple[TextData, TextData, TextData]:
    """Training, validation and test rows; the draw does not depend on the seed of training."""
    files = {split: str(folder / file) for split, file in FILES[task].items()}
    splits = load_splits("text" if task == "yelp" else task, files)
    rows, test = splits.need("train").sample(count + VALIDATION + (1000 if task == "yelp" else 0), seed=0), splits.test
    if test is None:
        rows, test = rows.split(1000 / len(rows), seed=0)
    train, validation = rows.split(VALIDATION / len(rows), seed=0)
    return train, validation, test.sample(TEST, seed=0)


def trial(key: Row, train: TextData, measured: TextData) -> dict[str, float]:
    """Train once and measure."""
    model, seconds = fine_tune(
        METHODS[key["method"]](**key["settings"]),
        train,
        rate=key["rate"],
        epochs=key.get("epochs", EPOCHS),
        seed=key["seed"],
        max_length=TOKENS[key["task"]],
    )
    found = TaskEvaluator(measured, ("accuracy",))(model)
    attacked = measured.sample(ATTACKED, seed=0)
    robust = robust_accuracy(model, attacked, EPSILONS if key["stage"] != "select" else EPSILONS[:1], **ATTACKED_BY)
    found |= {name: value for name, value in robust.metrics.items() if "@" in name}
    if key["stage"] not in CHOOSING:
        shift = representation_shift(model, attacked, EPSILONS[:2]).to_dict()["at"]
        for moved in shift:
            found |= {f"{name}@{moved['epsilon']:g}": moved[name] for name in ("cosine", "euclidean")}
    return found | {"seconds": seconds}


def score(row: Row) -> float:
    """What settings are chosen by.

    At 0.1: at 0.3 so little is left of any method that a constant classifier, which nothing breaks, would be chosen.
    """
    return (row["metrics"]["accuracy"] + row["metrics"]["accuracy@apgd-0.1"]) / 2


def _rate(task: str) -> float:
    """The learning rate that cross-entropy chose."""
    return float(STUDY.best(score, stage="select", task=task, method="ce")["rate"])


def plan(task: str, methods: list[str]) -> Iterator[Row]:
    """Every training of a task in order; what comes later depends on what was found before."""

    def row(stage: str, method: str, settings: Row, rate: float, seed: int) -> Row:
        return {"stage": stage, "task": task, "method": method, "settings": settings, "rate": rate, "seed": seed}

    def best(method: str) -> Row:
        return STUDY.best(score, stage="select", task=task, method=method, rate=_rate(task))

    for choice in GRID["ce"]:
        yield row("select", "ce", {}, choice["rate"], 0)
    for method in methods:
        for settings in GRID[method] if method != "ce" else ():
            yield row("select", method, settings, _rate(task), 0)
    for seed in SEEDS:
        for method in methods:
            yield row("test", method, best(method)["settings"], _rate(task), seed)


def matched(task: str, methods: list[str]) -> Iterator[Row]:
    """FreeLB with the step sizes that CARL and RAR were found best with, where these are not its own."""
    freelb, *others = (
        STUDY.best(score, stage="select", task=task, method=name, rate=_rate(task))
        for name in ("freelb", "carl", "rar")
    )
    sizes = dict.fromkeys(other["settings"]["step_size"] for other in others)
    for seed in SEEDS if "freelb" in methods else ():
        for size in sizes:
            if size != freelb["settings"]["step_size"]:
                key: Row = {"stage": "matched", "task": task, "method": "freelb", "settings": {"step_size": size}}
                yield {**key, "rate": freelb["rate"], "seed": seed}


def longer(task: str, methods: list[str]) -> Iterator[Row]:
    """SST-2 on more rows and for more epochs."""
    for seed in SEEDS if task == "sst2" else ():
        for method, settings in LONGER.items():
            if method in methods:
                key: Row = {"stage": "longer", "task": task, "method": method, "settings": settings}
                yield {**key, "rate": _rate(task), "seed": seed, "rows": LONGER_ROWS, "epochs": LONGER_EPOCHS}


def options(task: str, methods: list[str]) -> Iterator[Row]:
    """CARL with each of its options."""
    for seed in SEEDS if "carl" in methods else ():
        for option in OPTIONS.values():
            key: Row = {"stage": "options", "task": task, "method": "carl", "settings": OPEN | option}
            yield {**key, "rate": _rate(task), "seed": seed}


PLANS = {"test": plan, "matched": matched, "longer": longer, "options": options}
"""What ``--stage`` runs; *test* with the search before it."""


def table(task: str, stage: str = "test") -> str:
    """One stage of one task as Markdown: mean and standard deviation over seeds.

    Without seconds: trainings run side by side. Times beside cross-entropy's are measured in turns by cost.py.
    """
    rows = sorted(STUDY.rows(stage=stage, task=task), key=lambda row: list(GRID).index(row["method"]))
    if not rows:
        return ""
    names = ["accuracy", *(f"accuracy@apgd-{e:g}" for e in EPSILONS)]
    moved = [f"{name}@{e:g}" for name in ("cosine", "euclidean") for e in EPSILONS[:2]]
    lines = []
    for method, said in dict.fromkeys((r["method"], str(r["settings"])) for r in rows):
        mine = [r for r in rows if (r["method"], str(r["settings"])) == (method, said)]
        settings = ", ".join(f"{k} {v:g}" for k, v in {"lr": mine[0]["rate"], **mine[0]["settings"]}.items())
        columns = {name: [r["metrics"][name] for r in mine] for name in [*names, *moved]}
        lines.append(
            [
                method,
                settings,
                str(len(mine)),
                *(mean_and_deviation(columns[name]) for name in names),
                *(mean_and_deviation(columns[name], 3 if "cos" in name else 2) for name in moved),
            ]
        )
    attacks = [f"APGD {e:g}" for e in EPSILONS]
    shifts = [f"{name} {e:g}" for name in ("cosine", "distance") for e in EPSILONS[:2]]
    header = ["method", "settings", "seeds", "clean", *attacks, *shifts]
    return f"### {task}{'' if stage == 'test' else ', ' + stage}\n\n{markdown(header, lines)}\n"


def overview() -> str:
    """Means of the test stage over seeds: one line a method, clean and at the middle epsilon, every task."""
    lines = []
    for method in GRID:
        cells = []
        for task in FILES:
            mine = [row["metrics"] for row in STUDY.rows(stage="test", task=task, method=method)]
            for name in ("accuracy", f"accuracy@apgd-{EPSILONS[1]:g}"):
                cells.append(f"{statistics.mean(one[name] for one in mine):.1f}" if mine else "-")
        lines.append([method, METHODS[method]().cost, *cells])
    columns = [f"{task} {name}" for task in FILES for name in ("clean", f"APGD {EPSILONS[1]:g}")]
    return f"{markdown(['method', 'cost', *columns], lines)}\n"


def options_table() -> str:
    """CARL's options, on validation rows: mean and standard deviation over seeds."""
    names = {"clean": "accuracy", **{f"APGD {e:g}": f"accuracy@apgd-{e:g}" for e in EPSILONS[:2]}}
    lines = []
    for said, option in OPTIONS.items():
        cells = [said]
        for task in FILES:
            cells += averages(STUDY.rows(stage="options", task=task, settings=OPEN | option), names.values())
        lines.append(cells)
    header = ["carl", *(f"{task} {name}" for task in FILES for name in names)]
    return f"### options\n\n{markdown(header, lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--tasks", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--methods", nargs="+", choices=GRID, default=list(GRID))
    parser.add_argument("--stage", choices=PLANS, default="test")
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    arguments = parser.parse_args()
    if arguments.table:
        by_task = [table(task, stage) for task in FILES for stage in ("test", "matched", "longer")]
        print("\n".join(filter(None, [overview(), *by_task, options_table()])))
        return
    set_verbosity_error()
    disable_progress_bar()
    for task in arguments.tasks:
        train, validation, test = parts(task, arguments.data, LONGER_ROWS if arguments.stage == "longer" else TRAIN)
        STUDY.run(
            PLANS[arguments.stage](task, arguments.methods),
            lambda key, t=train, v=validation, s=test: trial(key, t, v if key["stage"] in CHOOSING else s),
            attack=ATTACKED_BY,
            bf16=True,
            device="cpu" if not torch.cuda.is_available() else "cuda",
        )


if __name__ == "__main__":
    main()
