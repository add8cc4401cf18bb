"""The shape of SCAL's Tables 4 and 5 at a small scale: CE, +CL, +AT and SCAL on TREC, CoLA, MRPC and SST-2.

    python benchmarks/text_classification.py --data ../shared/data/text  # everything, goes on where it stopped
    python benchmarks/text_classification.py --data ../shared/data/text --tasks trec
    python benchmarks/text_classification.py --table                               # print the tables from what is there
    python benchmarks/text_classification.py --figure docs/images/trec.svg         # draw the README's picture

Two stages. *select*: per task, cross-entropy tries three learning rates; at the best one each other method tries
three settings (as many trials for each method), one seed, scored on validation rows alone by the mean of the task's
metric clean and under PGD at .3: accuracy on TREC and SST-2, MCC on CoLA and F1 on MRPC, where predicting the larger
class always is robust, often right and worth nothing. *test*: the winners, five seeds, measured on test rows. Each
finished training is a line of the results file; lines that are there are not done again.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from study import Row, Study, fine_tune, markdown, mean_and_deviation
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, TextData, load_splits, robust_accuracy
from contraverse.data import get_task
from contraverse.evaluation import METRICS, TaskEvaluator
from contraverse.reporting.curve import accuracy_curve
from contraverse.reporting.figures import Measured

STUDY = Study(Path("docs/results/text_classification.jsonl"))
SEEDS = (1, 2, 3, 4, 5)
EPSILONS = (0.1, 0.3, 1.0)
RATES = (1e-4, 3e-4, 6e-4)
GRID: dict[str, list[dict[str, Any]]] = {
    "ce": [{}],
    "cl": [{"alpha": 0.03}, {"alpha": 0.1}, {"alpha": 0.3}],
    "at": [{"epsilon": 0.3}, {"epsilon": 0.6}, {"epsilon": 1.0}],
    "scal": [
        {"epsilon": 0.3, "alpha": 0.1},
        {"epsilon": 0.6, "alpha": 0.1},
        {"epsilon": 1.0, "alpha": 0.03},
    ],
}
# An attack of .3 and more leaves a model of CoLA constant from its first steps on: its second search is below that.
SMALL: dict[str, list[dict[str, Any]]] = {
    "at": [{"epsilon": 0.03}, {"epsilon": 0.1}, {"epsilon": 0.2}],
    "scal": [
        {"epsilon": 0.03, "alpha": 0.1},
        {"epsilon": 0.1, "alpha": 0.1},
        {"epsilon": 0.1, "alpha": 0.03},
    ],
}
SHOWN = {"ce": "cross-entropy", "at": "AT", "scal": "SCAL"}
GRIDS = {"cola": GRID | SMALL}
LITERAL = {"contrast": "literal"}


class Setting(NamedTuple):
    """What is trained and attacked for one task: rows to train on, epochs, rows to attack."""

    train: int
    epochs: int
    attacked: int


TASKS = {
    "trec": Setting(1000, 4, 300),
    "cola": Setting(3000, 3, 200),
    "sst2": Setting(1000, 4, 200),
    "mrpc": Setting(1000, 4, 200),
}


def parts(task: str, folder: Path) -> tuple[TextData, TextData, TextData]:
    """Training, validation and test rows; the draw does not depend on the seed of training.

    CoLA has no labelled test set: its validation set is the test here, and validation is cut from training, as for
    every task. SST-2 trains on whole sentences, not on the phrases of GLUE.
    """
    splits = load_splits(task, folder / task)
    train, test = splits.train, splits.test or splits.validation
    if task == "sst2":
        train = load_splits(task, folder / task / "train_sentences.parquet").train
    assert test is not None
    rest, validation = train.sample(TASKS[task].train + 300, seed=0).split(300 / (TASKS[task].train + 300), seed=0)
    return rest, validation, test


def trial(key: Row, train: TextData, measured: TextData, bf16: bool) -> dict[str, Any]:
    """Train once and measure."""
    task, method = TASKS[key["task"]], METHODS[key["method"]](**key["settings"])
    model, seconds = fine_tune(method, train, rate=key["rate"], epochs=task.epochs, seed=key["seed"], bf16=bf16)
    metrics = TaskEvaluator(measured, get_task(key["task"]).metrics)(model)
    attacked = measured.sample(task.attacked, seed=0)
    robust = robust_accuracy(model, attacked, EPSILONS)
    metrics |= {name: value for name, value in robust.metrics.items() if "@" in name}
    if (name := under_attack(key["task"])) != "accuracy":
        labels = np.asarray(attacked.labels)
        for epsilon, found in robust.at.items():  # of two classes, a row that is not right is the other one
            predicted = np.where(found.correct, labels, 1 - labels)
            metrics[f"{name}@pgd-{epsilon:g}"] = METRICS[name](np.eye(2)[predicted], labels)
    return metrics | {"seconds": seconds}


def under_attack(task: str) -> str:
    """The metric that is looked at under attack: the task's own, where that is not a share of rows."""
    return get_task(task).metric if get_task(task).metric in ("mcc", "f1") else "accuracy"


def score(row: Row) -> float:
    """What settings are chosen by: the mean of the metric clean and under PGD at .3.

    An MCC below zero counts as zero: a model that learned something and is broken is not worse than a constant one.
    """
    name = under_attack(row["task"])
    return (row["metrics"][name] + max(0.0, row["metrics"][f"{name}@pgd-0.3"])) / 2


def plan(task: str) -> Iterator[Row]:
    """Every training of a task in order; what comes later depends on what was found before."""

    def best(method: str) -> Row:
        return STUDY.best(score, stage="select", task=task, method=method)

    for rate in RATES:
        yield {"stage": "select", "task": task, "method": "ce", "settings": {}, "rate": rate, "seed": 0}
    rate = best("ce")["rate"]
    for method, grid in GRIDS.get(task, GRID).items():
        for settings in grid if method != "ce" else ():
            yield {"stage": "select", "task": task, "method": method, "settings": settings, "rate": rate, "seed": 0}
    chosen = best("scal")["settings"]
    yield {"stage": "literal", "task": task, "method": "scal", "settings": chosen | LITERAL, "rate": rate, "seed": 0}
    for seed in SEEDS:
        for method in GRID:
            settings = best(method)["settings"]
            yield {"stage": "test", "task": task, "method": method, "settings": settings, "rate": rate, "seed": seed}


def table(task: str) -> str:
    """The test stage of one task as Markdown: mean and standard deviation over seeds."""
    names = [get_task(task).metric, *(f"{under_attack(task)}@pgd-{e:g}" for e in EPSILONS)]
    lines = []
    for method in GRID:
        if mine := STUDY.rows(stage="test", task=task, method=method):
            settings = ", ".join(f"{k} {v}" for k, v in mine[0]["settings"].items()) or "-"
            cells = (mean_and_deviation([r["metrics"][name] for r in mine]) for name in names)
            lines.append([method, f"lr {mine[0]['rate']:g}; {settings}", str(len(mine)), *cells])
    return f"### {task}\n\n{markdown(['method', 'settings', 'seeds', *names], lines)}\n" if lines else ""


def figure() -> str:
    """Accuracy on TREC against epsilon as an SVG, over the seeds of the test stage."""
    rows = [
        (name, row) for method, name in SHOWN.items() for row in STUDY.rows(stage="test", task="trec", method=method)
    ]
    keys = ("accuracy", *(f"accuracy@pgd-{epsilon:g}" for epsilon in EPSILONS))
    svg = accuracy_curve([Measured(name, {key: row["metrics"][key] for key in keys}) for name, row in rows])
    # On a white ground with a margin: a page in dark mode shows the picture as it is.
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" viewBox="0 0 ([\d.]+) ([\d.]+)"', _widened, svg, count=1)
    return svg.replace(">", '><rect x="-8" y="-6" width="100%" height="100%" fill="#fff"/>', 1)


def _widened(match: re.Match[str]) -> str:
    width, height = (float(size) for size in match.groups())
    return f'width="{width + 16:g}pt" height="{height + 12:g}pt" viewBox="-8 -6 {width + 16:g} {height + 12:g}"'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/text"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--fp32", action="store_true", help="train in fp32, not in bf16 autocast")
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    parser.add_argument("--figure", type=Path, help="draw TREC's test stage to this SVG file and stop")
    arguments = parser.parse_args()
    if arguments.figure:
        arguments.figure.write_text(figure(), encoding="utf-8")
        return
    if arguments.table:
        print("\n".join(filter(None, map(table, TASKS))))
        return
    set_verbosity_error()
    disable_progress_bar()
    bf16 = not arguments.fp32
    for task in arguments.tasks:
        train, validation, test = parts(task, arguments.data)
        STUDY.run(
            plan(task),
            lambda key, t=train, v=validation, s=test: trial(key, t, s if key["stage"] == "test" else v, bf16),
            bf16=bf16,
        )


if __name__ == "__main__":
    main()
