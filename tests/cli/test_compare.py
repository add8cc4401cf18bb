"""``contraverse compare``: from folders to one page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contraverse.models import TextModel
from contraverse.models.detector import Detector

WORDS = "good very make world still own see men work long get here these people".split()
Make = Callable[..., TextModel]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, size)) for size in random.integers(2, 9, 60)]
    labels = random.choice(["ham", "spam"], 60)
    frame = pd.DataFrame({"text": texts, "label": labels, "language": ["en"] * 30 + ["de"] * 24 + [""] * 6})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


@pytest.fixture
def models(tiny_model: Make, tmp_path: Path) -> list[Path]:
    """Two models whose classes stand in opposite orders, with thresholds."""
    folders = []
    for name, labels in (("one", ("ham", "spam")), ("two", ("spam", "ham"))):
        model = tiny_model(labels=labels, dropout=0.0)
        model.detector = Detector(positive="spam", log_odds=0.1)
        folders.append(model.save(tmp_path / name))
    return folders


def test_two_models_on_one_page(invoke: Any, models: list[Path], rows: Path, tmp_path: Path) -> None:
    flags = ("--task", "text", "--data", rows, "--by", "language", "--by", "length", "--by", "class")
    files = ("--output", tmp_path / "c.json", "--report", tmp_path / "c.html")
    shown = invoke("compare", *models, *flags, *files)
    compared, frame = json.loads((tmp_path / "c.json").read_text()), pd.read_csv(rows)
    right = {}
    for folder in models:
        right[folder.name] = np.array(TextModel.load(folder).predict_proba(frame["text"].tolist()).argmax(1))
        names = np.array(TextModel.load(folder).labels)
        right[folder.name] = names[right[folder.name]] == frame["label"]
    whole, *parts = [part for part in compared["comparisons"] if part["measure"] == "accuracy"]
    assert compared["runs"] == ["one", "two"]
    assert whole["rates"] == pytest.approx({name: 100 * hits.mean() for name, hits in right.items()})
    assert whole["tests"]["two"]["gained"] == (right["two"] & ~right["one"]).sum()
    german = next(part for part in parts if (part["by"], part["value"]) == ("language", "de"))
    assert german["rows"] == 24
    assert german["rates"]["one"] == pytest.approx(100 * right["one"][frame["language"] == "de"].mean())
    assert not next(part for part in parts if part["value"] == "")["tests"]
    assert sum(part["rows"] for part in parts if part["by"] == "length") == 60
    recall = next(part for part in compared["comparisons"] if part["measure"] == "recall")
    assert recall["rows"] == (frame["label"] == "spam").sum()
    page = (tmp_path / "c.html").read_text()
    assert "By language" in page
    assert "(empty)" in page
    assert "src=" not in page
    assert "by language" in shown.stdout
    assert "McNemar" in shown.stderr


def test_what_cannot_be_compared_is_said(
    invoke: Any, models: list[Path], rows: Path, tmp_path: Path, tiny_model: Make
) -> None:
    encoder = tiny_model(labels=None).save(tmp_path / "encoder")
    other = tiny_model(labels=("a", "b")).save(tmp_path / "other")
    flags = ("--task", "text", "--data", rows)
    for wrong, says in (
        (("compare", models[0], *flags), "nothing to be compared with"),
        (("compare", models[0], models[0], *flags), "compared with itself"),
        (("compare", models[0], encoder, *flags), "has no classes"),
        (("compare", models[0], other, *flags), "tells a, b apart, and one other classes"),
        (("compare", *models), "no task is named"),
        (("compare", *models, *flags, "--by", "languages"), 'no column is called "languages"'),
        (("compare", *models, *flags, "--output", tmp_path / "c.txt"), "ends in .json"),
    ):
        result = invoke(*wrong, code=2)
        assert says in result.stderr, result.stderr
        assert not (tmp_path / "c.json").exists()


def test_runs_on_other_rows_are_refused() -> None:
    from contraverse.data import TextData
    from contraverse.errors import UserError
    from contraverse.pipeline.comparison import check_same_rows

    first = TextData.from_rows(["a b", "c d"], ["x", "y"])
    check_same_rows(first, TextData.from_rows(["a b", "c d"], ["X", "Y"]), ("one", "two"))
    for texts, labels, says in (
        (["a b"], ["x"], "2 rows and two on 1"),
        (["a b", "c e"], ["x", "y"], "row 1 of one and of two differ: it is another one there"),
        (["a b", "c d"], ["x", "x"], "another class there"),
    ):
        with pytest.raises(UserError, match=says):
            check_same_rows(first, TextData.from_rows(texts, labels), ("one", "two"))
