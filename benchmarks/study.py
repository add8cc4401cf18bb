"""What the studies share: one line of a file for each finished training, and none of them done twice."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import set_seed

from contraverse import Method, TextData, TextModel, Trainer

Row = dict[str, Any]


class Study:
    """A study's results file: JSON lines, each a *key* (what was run) with its ``metrics``.

    Args:
        path: the file; made on the first result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Asked at the start, when the code is loaded: a commit may be made while a study runs.
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        self.commit = found.stdout.strip()

    def rows(self, **key: Any) -> list[Row]:
        """The lines that hold ``key``, in the order of the file."""
        if not self.path.is_file():
            return []
        rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if all(row.get(name) == value for name, value in key.items())]

    def best(self, score: Callable[[Row], float], **key: Any) -> Row:
        """The line with ``key`` whose ``score`` is highest, the first of equals."""
        return max(self.rows(**key), key=score)

    def run(self, plan: Iterable[Row], work: Callable[[Row], dict[str, float]], **noted: Any) -> None:
        """Do each key of ``plan`` that no line holds yet: ``work(key)`` gives its metrics.

        ``plan`` may be a generator that looks at `rows`: what comes later can depend on what was found before. Each
        line is written as soon as it is found, with the commit, the number of threads and what is ``noted``.
        """
        for key in plan:
            if not self.rows(**key):
                self.add(key, work(key), **noted)

    def add(self, key: Row, metrics: dict[str, Any], **noted: Any) -> None:
        """Write the line of ``key``."""
        row = {**key, "metrics": metrics, "threads": torch.get_num_threads(), "commit": self.commit, **noted}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def fine_tune(
    method: Method, data: TextData, *, rate: float, epochs: int, seed: int, bf16: bool = True, **arguments: Any
) -> tuple[TextModel, float]:
    """MiniLM trained by ``method`` on ``data``, saved nowhere: the model in fp32, to be measured, and the seconds.

    ``arguments`` go to `TextModel.from_pretrained`.
    """
    set_seed(seed)
    model = TextModel.from_pretrained("minilm", labels=data.label_names, **arguments)
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            method,
            data,
            output_dir=folder,
            seed=seed,
            learning_rate=rate,
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
    return trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False), round(seconds, 1)


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """``"83.6 ± 1.0"``, the sample standard deviation; the mean alone where there is one value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def averages(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """`mean_and_deviation` of each metric over the lines that have it; ``"-"`` where none has."""
    found = ([row["metrics"][name] for row in rows if name in row["metrics"]] for name in names)
    return [mean_and_deviation(values) if values else "-" for values in found]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [" | ".join(header), " | ".join("---" for _ in header), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
