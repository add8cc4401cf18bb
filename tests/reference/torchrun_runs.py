"""Runs in every process that torchrun starts: ``torchrun ... torchrun_runs.py FOLDER``.

Each ``FOLDER/NAME.yaml`` is run into ``FOLDER/NAME`` by the command line, one after the other; those that are called
``interrupted-...`` are stopped by a Ctrl-C that reaches the second process alone, and resumed.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from contraverse import pipeline
from contraverse.cli import main
from contraverse.training import Trainer

RANK = int(os.environ["RANK"])


def call(*arguments: str) -> int:
    """The exit code of ``contraverse ARGUMENTS``."""
    sys.argv = ["contraverse", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def press_at(step: int) -> Any:
    """Ctrl-C on the second process, once, in its next training; gives back what undoes it."""
    before = Trainer.training_step

    def training_step(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if RANK == 1 and self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
            Trainer.training_step = before  # type: ignore[method-assign]
        return before(self, *args, **kwargs)

    Trainer.training_step = training_step  # type: ignore[method-assign]


def run_all(folder: Path) -> None:
    results: dict[str, Any] = {}
    run = pipeline.run

    def kept(*args: Any, **kwargs: Any) -> Any:
        results[name] = (done := run(*args, **kwargs)).metrics
        return done

    pipeline.run = kept
    for file in sorted(folder.glob("*.yaml")):
        name, codes = file.stem, []
        output = ("--output", str(folder / name))
        if name.startswith("interrupted"):
            press_at(3)
            codes.append(call("train", "--config", str(file), *output))
            codes.append(call("train", *output, "--resume"))
        else:
            codes.append(call("train", "--config", str(file), *output))
        results[f"{name} codes"] = codes
    (folder / f"{RANK}.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(Path(sys.argv[1]))
