"""The first run: cross-entropy and SCAL on real text, attacked and compared, in a few minutes on a laptop."""

import csv
import shlex
from dataclasses import dataclass
from pathlib import Path

from contraverse.data import TextData, TextSplits, quickstart_data
from contraverse.pipeline.folder import new_folder
from contraverse.pipeline.report import write_comparison
from contraverse.pipeline.result import Counting, RunResult, Say, silent, uncounted
from contraverse.pipeline.run import run
from contraverse.recipes import configure

METHODS = {"ce": "cross-entropy", "scal": "SCAL"}
SETTINGS = {
    "data.train_rows": 640,
    "evaluation.epsilons": [0.1, 0.3],
    "evaluation.attack": "pgd",
    "evaluation.rows": 64,
    "evaluation.diagnostics": 8,
    "evaluation.batch_size": 32,
    "evaluation.noise": ["keyboard", "swap", "space-out", "homoglyph"],
    "evaluation.noise_strengths": [1, 3, 5],
    "evaluation.evasion": ["edits"],
    "evaluation.evasion_budgets": [1, 2],
    "evaluation.evasion_rows": 8,
    "train.num_train_epochs": 2,
    "train.learning_rate": 1e-4,
}
"""Few rows and small budgets: this is a first look, and not a measurement."""


@dataclass(frozen=True)
class QuickstartResult:
    """The finished runs by method, and the page that compares them."""

    runs: dict[str, RunResult]
    report: Path


def quickstart(
    output: str | Path = "runs/quickstart", *, say: Say = silent, counting: Counting = uncounted
) -> QuickstartResult:
    """Train ``ce`` and ``scal`` from the bundled encoder on bundled tweets, and compare them.

    Measured are accuracy, accuracy under an attack on embeddings, under noise, and under the worst edits of characters.

    The rows are written to ``output/data`` as CSV, and each method's folder is an ordinary run that its
    ``config.yaml`` repeats.

    Raises:
        UserError: the data's package is not installed, or ``output`` is not empty.
    """
    output = Path(output)
    rows = quickstart_data()
    runs = {}
    with new_folder(output, say):
        source = _write_rows(rows, output / "data")
        for method in METHODS:
            say(f"[{method}]")
            config = configure(method, task="text", source=str(source), settings=SETTINGS)
            runs[method] = run(config, output / method, say=say, counting=counting)
        report = _compare(runs, output)
    return QuickstartResult(runs, report)


def _compare(runs: dict[str, RunResult], output: Path) -> Path:
    return write_comparison(
        output / "report.html",
        {METHODS[method]: result.folder for method, result in runs.items()},
        title="Cross-entropy and SCAL on tweets",
        command=f"contraverse quickstart --output {shlex.quote(str(output))}",
    )


def _write_rows(splits: TextSplits, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if rows is not None:
            _write_csv(folder / f"{name}.csv", rows)
    return folder


def _write_csv(path: Path, rows: TextData) -> None:
    assert rows.labels is not None
    assert rows.label_names is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for texts, label in zip(rows.texts, rows.labels, strict=True):
            writer.writerow([*texts, rows.label_names[int(label)]])
