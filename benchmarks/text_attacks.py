"""Time attacks on texts side by side with TextAttack's: same model, same rows, the rules of one recipe.

    python benchmarks/text_attacks.py runs/sst2 sst2/validation.parquet --recipe pruthi --rows 50 \\
        --textattack textattack-env/bin/python

Three ways, one after the other: contraverse (`Edits` by the recipe's rules), TextAttack 0.3.11 as it comes, whose model
wrapper pads every text to the longest that the encoder takes, and TextAttack with a wrapper that pads to the longest of
a batch. TextAttack runs in an environment of its own (docs/tutorials/textattack.md). Prints a table, and appends a line
to --output. Each figure is processor time of the attack alone, on one thread, without imports, loading and the first
forward pass: the wall clock of a machine that does nothing else.

Stop words are scikit-learn's in both; TextAttack also changes those that begin with a capital. It draws one letter at
random where it inserts or replaces; contraverse has all 26 to choose from, and tries fewer texts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPES = {"pruthi": 1, "deepwordbug": 30}
"""Recipes, and the largest number of edits: of pruthi its default, of deepwordbug the edit distance that it allows."""
WORKER = "--worker"


def textattack(folder: str, rows: list[tuple[str, int]], recipe: str, padding: str) -> dict[str, Any]:
    """Attack ``rows`` in TextAttack's environment; ``padding``: to a ``"batch"``, or as it comes."""
    import random

    import numpy as np
    import textattack_attack as wrapper
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    stop_words(wrapper)
    attack = wrapper.build(recipe, Path(folder)) if padding == "batch" else as_it_comes(folder, recipe)
    random.seed(0)
    np.random.seed(0)
    attack.goal_function.model(["a first pass"])
    began = time.process_time()
    outcomes = [wrapper.outcome(attack.attack(text, label)) for text, label in rows]
    return result(time.process_time() - began, outcomes)


def stop_words(wrapper: Any) -> None:
    """Have TextAttack read scikit-learn's stop words in the place of NLTK's."""
    import nltk

    nltk.data.path.clear()
    assert wrapper.provide_stopwords() == "scikit-learn"


def as_it_comes(folder: str, recipe: str) -> Any:
    """TextAttack's own recipe on its own wrapper."""
    from importlib import import_module

    from textattack.attack_args import ATTACK_RECIPE_NAMES
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    module, name = ATTACK_RECIPE_NAMES[recipe].rsplit(".", 1)
    wrapper = HuggingFaceModelWrapper(model, AutoTokenizer.from_pretrained(folder))
    return getattr(import_module(module), name).build(wrapper)


def contraverse(folder: str, rows: list[tuple[str, int]], recipe: str, beam: int, width: int) -> dict[str, Any]:
    """Attack ``rows`` with `contraverse.evasion`."""
    from typing import NamedTuple

    import torch

    from contraverse import TextModel
    from contraverse.data import TextData
    from contraverse.evasion import Edits, ModelTarget, SearchSettings, evade

    class Outcome(NamedTuple):
        kind: str
        queries: int

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = TextModel.load(folder).eval()
    data = TextData.from_rows([text for text, _ in rows], [label for _, label in rows], model.labels)
    target = ModelTarget(model)
    target.scores([("a first pass",)])
    settings = SearchSettings(beam=beam, width=width)
    began = time.process_time()
    report = evade(target, data, Edits(recipe), budgets=[RECIPES[recipe]], settings=settings)
    seconds = time.process_time() - began
    kinds = ["wrong" if not row.attacked else "held" if row.changes is None else "broken" for row in report.rows]
    return result(seconds, [Outcome(kind, row.queries) for kind, row in zip(kinds, report.rows, strict=True)])


def result(seconds: float, outcomes: list[Any]) -> dict[str, Any]:
    """Figures of one way."""
    attacked = [outcome for outcome in outcomes if outcome.kind != "wrong"]
    broken = sum(outcome.kind == "broken" for outcome in attacked)
    return {
        "seconds": seconds,
        "attacked": len(attacked),
        "broken": broken,
        "success_rate": 100 * broken / max(1, len(attacked)),
        "queries": sum(outcome.queries for outcome in attacked) / max(1, len(attacked)),
    }


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do what a worker is started for."""
    rows = [(text, label) for text, label in job["rows"]]
    if job["way"] == "contraverse":
        return contraverse(job["folder"], rows, job["recipe"], job["beam"], job["width"])
    return textattack(job["folder"], rows, job["recipe"], job["way"])


def start(python: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a worker in the environment of ``python``, one thread each way."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if job["way"] != "contraverse":
            environment.pop("PYTHONPATH", None)
        subprocess.run([python, __file__, WORKER, folder], check=True, env=environment, stdout=sys.stderr)
        outcome: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
        return outcome


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run's folder, or a saved classifier's")
    parser.add_argument("data", type=Path, help="labelled rows: .csv, .tsv, .jsonl, .parquet")
    parser.add_argument("--textattack", required=True, help="the Python of TextAttack's environment")
    parser.add_argument("--recipe", choices=RECIPES, default="pruthi")
    parser.add_argument("--rows", type=int, default=50, help="how many rows to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument("--beam", type=int, default=1, help="contraverse: beam (default: %(default)s)")
    parser.add_argument("--width", type=int, default=32, help="contraverse: texts a round (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="append the figures to this .jsonl")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    import textattack_attack as rows_of

    options = parse(arguments)
    folder = rows_of.model_folder(options.model)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = [name for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
    rows = rows_of.draw(rows_of.read_rows(options.data, None, "label", names), options.rows, options.seed)
    job = {"folder": str(folder), "rows": rows, "recipe": options.recipe, "beam": options.beam, "width": options.width}
    ways = {"contraverse": sys.executable, "batch": options.textattack, "longest": options.textattack}
    figures = {way: start(python, {**job, "way": way}) for way, python in ways.items()}
    titles = {"contraverse": "contraverse", "batch": "TextAttack, padding mended", "longest": "TextAttack as it comes"}
    print(f"{options.recipe}, {len(rows)} rows, {options.model}")
    print(f"{'':<28}{'seconds':>9}{'times':>7}{'broken':>11}{'success':>9}{'queries':>9}")
    own = figures["contraverse"]["seconds"]
    for way, title in titles.items():
        f = figures[way]
        print(f"{title:<28}{f['seconds']:>9.1f}{f['seconds'] / own:>7.1f}{f['broken']:>5} of {f['attacked']:<3}"
              f"{f['success_rate']:>8.1f}%{f['queries']:>9.1f}")  # fmt: skip
    if options.output:
        with options.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**{k: v for k, v in job.items() if k != "rows"}, "n": len(rows), **figures}) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    if sys.argv[1:2] == [WORKER]:
        place = Path(sys.argv[2])
        answer = work(json.loads((place / "job.json").read_text(encoding="utf-8")))
        (place / "result.json").write_text(json.dumps(answer), encoding="utf-8")
    else:
        main(sys.argv[1:])
