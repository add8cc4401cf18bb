"""Attack a saved classifier with a recipe of TextAttack: a second opinion from words, not from embeddings.

    python benchmarks/textattack_attack.py runs/sst2 sst2/validation.parquet --recipe deepwordbug --rows 100

Runs in TextAttack's own environment (docs/tutorials/textattack.md), without contraverse: the classifier is read by
plain transformers. Prints a table, and appends a line with the figures and all versions to --output.
"""

import argparse
import hashlib
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

OFFLINE = ("deepwordbug", "pruthi", "input-reduction")
"""Recipes that need no download but the stop words, which scikit-learn has too."""
PACKAGES = ("textattack", "transformers", "tokenizers", "torch", "nltk", "numpy")
READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".tsv": lambda file: pd.read_csv(file, sep="\t"),
    ".jsonl": lambda file: pd.read_json(file, lines=True),
    ".parquet": pd.read_parquet,
}


class Outcome(NamedTuple):
    """What became of one row: ``kind`` is wrong (before any attack), held or broken; ``changed`` a share of words."""

    kind: str
    changed: float
    queries: int


def stop(message: str) -> None:
    """End with a mistake of the user's."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def check_environment() -> None:
    """Refuse to run where TextAttack is missing."""
    if importlib.util.find_spec("textattack") is None:
        stop(
            "TextAttack is not installed here. It needs an environment of its own, because it pins transformers below "
            "5:\n"
            "  python -m venv textattack-env\n"
            '  textattack-env/bin/pip install torch "textattack==0.3.11" "transformers<5" "huggingface_hub<1"\n'
            "  textattack-env/bin/python benchmarks/textattack_attack.py ...\n"
            "See docs/tutorials/textattack.md."
        )


def model_folder(name: str) -> Path:
    """The classifier's folder, given it or a run's."""
    folder = Path(name)
    folder = folder / "model" if (folder / "model" / "config.json").is_file() else folder
    if not (folder / "config.json").is_file():
        stop(f"{name}: no model here; give a run's folder or a saved classifier's")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not any(kind.endswith("ForSequenceClassification") for kind in config.get("architectures") or ()):
        stop(f"{name}: not a classifier, but {', '.join(config.get('architectures') or ['of unknown kind'])}")
    return folder


def read_rows(file: Path, text: str | None, label: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """The texts of a file and their classes; labels are the model's class names, or their numbers."""
    if file.suffix not in READERS or not file.is_file():
        stop(f"{file}: no such file, or none of {', '.join(READERS)}")
    table = READERS[file.suffix](file)
    text = text or next((name for name in ("text", "sentence") if name in table), None)
    if text not in table or label not in table:
        stop(f"{file}: has the columns {', '.join(map(str, table))}; name them with --text and --label")
    known = {name: i for i, name in enumerate(names)} | {str(i): i for i in range(len(names)) if str(i) not in names}
    unknown = sorted({str(value) for value in table[label]} - set(known))
    if unknown:
        stop(f"{file}: label {unknown[0]!r} is none of the model's classes, {', '.join(names)}")
    return [(str(row), known[str(value)]) for row, value in zip(table[text], table[label], strict=True)]


def draw(rows: Sequence[Any], count: int, seed: int) -> list[Any]:
    """``count`` rows without repeats, in their order; for one seed a smaller draw is part of a larger one."""
    return [rows[i] for i in sorted(np.random.default_rng(seed).permutation(len(rows))[:count])]


def outcome(result: Any) -> Outcome:
    """One result of TextAttack's in three figures."""
    kind = {"SkippedAttackResult": "wrong", "FailedAttackResult": "held"}.get(type(result).__name__, "broken")
    before, after = result.original_result.attacked_text, result.perturbed_result.attacked_text
    changed = len(before.all_words_diff(after)) / max(1, len(before.words)) if kind == "broken" else 0.0
    return Outcome(kind, changed, int(result.num_queries))


def summary(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Accuracy in percent of all rows; the share of words changed is of rows broken, queries are of rows attacked."""
    broken = [row for row in outcomes if row.kind == "broken"]
    attacked = [row for row in outcomes if row.kind != "wrong"]
    return {
        "rows": len(outcomes),
        "accuracy": 100 * len(attacked) / len(outcomes),
        "accuracy_under_attack": 100 * (len(attacked) - len(broken)) / len(outcomes),
        "success_rate": 100 * len(broken) / len(attacked) if attacked else None,
        "words_changed": 100 * sum(row.changed for row in broken) / len(broken) if broken else None,
        "queries": sum(row.queries for row in attacked) / len(attacked) if attacked else None,
    }


def provide_stopwords() -> str:
    """Where TextAttack's stop words come from: NLTK's, if they are there, or else scikit-learn's in their place.

    TextAttack reads them when it is imported, and NLTK gets them from the network.
    """
    import nltk

    try:
        nltk.data.find("corpora/stopwords")
        return "nltk"
    except LookupError:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        folder = Path(tempfile.mkdtemp(prefix="stopwords-"))
        (folder / "corpora" / "stopwords").mkdir(parents=True)
        words = "\n".join(sorted(ENGLISH_STOP_WORDS))
        (folder / "corpora" / "stopwords" / "english").write_text(words + "\n", encoding="utf-8")
        nltk.data.path.insert(0, str(folder))
        return "scikit-learn"


def build(recipe: str, folder: Path) -> Any:
    """The attack of that name on the classifier in ``folder``."""
    import torch
    from textattack.attack_args import ATTACK_RECIPE_NAMES
    from textattack.models.wrappers import ModelWrapper
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    class Classifier(ModelWrapper):
        """TextAttack's own wrapper pads every text to the longest that the encoder takes."""

        def __init__(self) -> None:
            self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            self.model.to("cuda" if torch.cuda.is_available() else "cpu")
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            own = folder / "contraverse.json"
            settings = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
            self.max_seq_length = settings.get("max_length") or min(self.tokenizer.model_max_length, 512)

        @torch.no_grad()
        def __call__(self, texts: Sequence[str]) -> Any:
            parts = []
            for first in range(0, len(texts), 64):
                batch = self.tokenizer(
                    list(texts[first : first + 64]),
                    padding=True,
                    truncation=True,
                    max_length=self.max_seq_length,
                    return_tensors="pt",
                )
                parts.append(self.model(**batch.to(self.model.device)).logits.softmax(-1).cpu())
            return torch.cat(parts)

    if recipe not in ATTACK_RECIPE_NAMES:
        stop(f"no recipe is called {recipe!r}; there are {', '.join(sorted(ATTACK_RECIPE_NAMES))}")
    module, name = ATTACK_RECIPE_NAMES[recipe].rsplit(".", 1)
    try:
        return getattr(importlib.import_module(module), name).build(Classifier())
    except (OSError, LookupError) as error:
        stop(f"{recipe} needs a download that failed ({type(error).__name__}); without one: {', '.join(OFFLINE)}")


def attack_rows(attack: Any, rows: Sequence[tuple[str, int]]) -> list[Outcome]:
    """Attack one row after the other, and say how far it is."""
    outcomes = []
    for done, (text, label) in enumerate(rows, 1):
        outcomes.append(outcome(attack.attack(text, label)))
        if done % 10 == 0:
            print(f"{done} of {len(rows)} rows", file=sys.stderr, flush=True)
    return outcomes


def table(found: dict[str, float | None]) -> str:
    """The figures as lines of text."""
    titles = {
        "rows": "rows",
        "accuracy": "accuracy, clean (%)",
        "accuracy_under_attack": "accuracy under attack (%)",
        "success_rate": "attacks that succeeded (%)",
        "words_changed": "words changed where they did (%)",
        "queries": "queries a row",
    }
    cells = {name: "-" if value is None else f"{value:g}" if name == "rows" else f"{value:.1f}"
             for name, value in found.items()}  # fmt: skip
    return "\n".join(f"{title:<34}{cells[name]:>8}" for name, title in titles.items())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run's folder, or a saved classifier's")
    parser.add_argument("data", type=Path, help=f"labelled rows: {', '.join(READERS)}")
    parser.add_argument("--recipe", default="deepwordbug", help="TextAttack's name of it (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=100, help="how many rows to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of the attack (default: %(default)s)")
    parser.add_argument("--text", help="text column (default: text or sentence)")
    parser.add_argument("--label", default="label", help="label column (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="append the figures to this .jsonl")
    given = parser.parse_args(arguments)
    if given.rows < 1:
        parser.error("--rows is at least 1")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    folder = model_folder(given.model)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = [name for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
    rows = draw(read_rows(given.data, given.text, given.label, names), given.rows, given.seed)
    check_environment()
    stopwords = provide_stopwords()
    import torch

    attack = build(given.recipe, folder)
    random.seed(given.seed)
    np.random.seed(given.seed)
    torch.manual_seed(given.seed)
    began = time.perf_counter()
    found = summary(attack_rows(attack, rows))
    print(f"{given.recipe} on {given.model}, seed {given.seed}\n{table(found)}")
    line = {
        "model": given.model,
        "weights": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12],
        "data": given.data.name,
        "recipe": given.recipe,
        "seed": given.seed,
        **found,
        "seconds": round(time.perf_counter() - began, 1),
        "stopwords": stopwords,
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    if given.output:
        with given.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
