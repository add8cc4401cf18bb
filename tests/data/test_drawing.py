"""How many rows: a paper's draw, the rows that are kept of a split, and adversaries that are added."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from contraverse.data import TextData, get_task, load_splits
from contraverse.errors import UserError
from contraverse.recipes import configure, parse

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "text"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
TINY = replace(get_task("ag_news"), paper_rows={"train": 15, "validation": 4, "test": 5})
"""AG News with a draw a thousandth of the paper's size."""


def write(path: Path, rows: int, weights: tuple[int, ...] = (1, 2, 3, 4)) -> Path:
    """Rows of four classes in unequal shares."""
    classes = [label for label, share in enumerate(weights) for _ in range(share)]
    lines = [f"{path.stem} {i},{classes[i % len(classes)]}" for i in range(rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def counts(data: TextData) -> list[int]:
    found = Counter(data.labels or ())
    return [found[i] for i in range(len(data.label_names or ()))]


@given(labels=st.lists(st.integers(0, 2), min_size=9, max_size=60), wanted=st.integers(1, 3), seed=st.integers(0, 50))
@examples(max_examples=40)
def test_a_draw_is_exact_and_parts_the_rows(labels: list[int], wanted: int, seed: int) -> None:
    labels = [*labels, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    data = TextData.from_rows([f"row {i}" for i in range(len(labels))], labels)
    rest, part = data.draw(wanted, seed)
    assert counts(part) == [wanted] * 3
    assert sorted(rest.texts + part.texts) == sorted(data.texts)
    place = {text: i for i, text in enumerate(data.texts)}
    for one in (rest, part):
        assert [place[text] for text in one.texts] == sorted(place[text] for text in one.texts)
        assert [labels[place[text]] for text in one.texts] == one.labels
    assert data.draw(wanted, seed)[1].texts == part.texts


def test_a_draw_is_the_seeds_and_not_the_first_rows() -> None:
    data = TextData.from_rows([f"row {i}" for i in range(200)], [i % 2 for i in range(200)])
    one, two = (data.draw(10, seed)[1].texts for seed in (1, 2))
    assert one != two
    assert one != data.texts[:20]


def test_a_draw_needs_enough_rows_of_classes() -> None:
    data = TextData.from_rows(["a", "b", "c"], ["x", "x", "y"])
    with pytest.raises(UserError, match="2 rows of each class are drawn, and 'y' has 1"):
        data.draw(2, 0)
    with pytest.raises(UserError, match="drawn by class, and these have none"):
        TextData.from_rows(["a"]).draw(1, 0)


def test_the_papers_draw_takes_validation_rows_from_the_training_split(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 400)
    write(tmp_path / "test.csv", 100)
    splits = load_splits(TINY, tmp_path, rows="paper", seed=3)
    train, validation, test = splits.need("train"), splits.need("validation"), splits.need("test")
    assert (counts(train), counts(validation), counts(test)) == ([15] * 4, [4] * 4, [5] * 4)
    assert not set(train.texts) & set(validation.texts)
    assert all(text.startswith("train") for (text,) in train.texts + validation.texts)
    assert all(text.startswith("test") for (text,) in test.texts)
    assert "60 of 384 training rows are used (seed 3)" in splits.notes
    assert "20 of 100 test rows are used (seed 3)" in splits.notes
    other = load_splits(TINY, tmp_path, rows="paper", seed=4)
    assert other.need("train").texts != train.texts
    part = load_splits(TINY, tmp_path, rows="paper", seed=3, train_rows=8)
    assert set(part.need("train").texts) < set(train.texts)
    assert counts(part.need("train")) == [2] * 4
    assert part.need("validation").texts == validation.texts


def test_the_papers_draw_takes_validation_rows_from_their_own_split(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv", 200)
    splits = load_splits(TINY, tmp_path, rows="paper")
    assert counts(splits.need("validation")) == [4] * 4
    assert all(text.startswith("dev") for (text,) in splits.need("validation").texts)


def test_a_draw_that_is_not_possible_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 100)
    with pytest.raises(UserError, match=r"15 rows of each class are drawn, and 'World' has 6"):
        load_splits(TINY, tmp_path, rows="paper")
    with pytest.raises(UserError, match="no paper's draw is known for task 'trec'") as error:
        load_splits("trec", tmp_path, rows="paper")
    assert "There is one for sst2, ag_news, yelp_polarity, yahoo_answers." in str(error.value)
    with pytest.raises(UserError, match="rows is all or paper, not 'some'"):
        load_splits("trec", tmp_path, rows="some")  # type: ignore[arg-type]


def test_rows_are_kept_of_every_split(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv", 200)
    splits = load_splits("ag_news", tmp_path, train_rows=40, validation_rows=30, test_rows=20)
    assert [counts(splits.need(name)) for name in ("train", "validation", "test")] == [  # type: ignore[arg-type]
        [4, 8, 12, 16],
        [3, 6, 9, 12],
        [2, 4, 6, 8],
    ]
    for name in ("validation_rows", "test_rows"):
        with pytest.raises(UserError, match=f"{name} is at least 1, not 0"):
            load_splits("ag_news", tmp_path, **{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [1, 7, 99])
def test_validation_rows_are_cut_to_their_number(tmp_path: Path, wanted: int) -> None:
    path = write(tmp_path / "train.csv", 100, (1, 1, 1, 1))
    if wanted == 99:
        with pytest.raises(UserError, match="every training row has the label"):
            load_splits("ag_news", path, validation_rows=wanted)
        return
    splits = load_splits("ag_news", path, validation_rows=wanted)
    assert (len(splits.need("train")), len(splits.need("validation"))) == (100 - wanted, wanted)


def test_more_validation_rows_than_there_are_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="100 of 100 training rows cannot be set aside"):
        load_splits("ag_news", write(tmp_path / "train.csv", 100), validation_rows=100)


def test_the_settings_reach_the_data(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 100)
    given = parse([f"data.source={tmp_path}", "data.train_rows=20", "data.validation_rows=8", "data.test_rows=5"])
    config = configure("ce", task="ag_news", settings=given)
    splits = load_splits("ag_news", **config.data.where())
    assert (len(splits.need("train")), len(splits.need("validation"))) == (20, 8)
    assert configure("ce", task="ag_news", settings=parse(["data.rows=paper"])).data.rows == "paper"
    with pytest.raises(UserError, match=r"data.rows: 'papers' is not possible"):
        configure("ce", settings=parse(["data.rows=papers"]))


@needs_shared
def test_the_shared_files_of_other_names() -> None:
    yelp = {"train": SHARED / "yelp_sentences" / "part.parquet", "test": SHARED / "yelp_polarity" / "test_1000.parquet"}
    splits = load_splits("yelp_polarity", yelp, train_rows=100, validation_rows=50)
    assert [len(splits.need(name)) for name in ("train", "validation", "test")] == [100, 50, 1000]  # type: ignore
    assert counts(splits.need("test")) == [518, 482]
    yahoo = load_splits("text", SHARED / "yahoo_answers")
    assert [len(yahoo.need(name)) for name in ("train", "validation", "test")] == [3600, 400, 418]  # type: ignore
    with pytest.raises(UserError, match=r"there is no train split\n.*--set data.source='\{train: FILE"):
        load_splits("yelp_polarity", SHARED / "yelp_polarity").need("train")
    with pytest.raises(UserError, match="15,000 rows of each class are drawn, and 'World' has 3,541"):
        load_splits("ag_news", SHARED / "ag_news", rows="paper")


# --- adversaries


def reviews(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", 20), ("dev", 6), ("test", 6)):
        lines = [f"{name} {i},{('negative', 'positive')[i % 2]}" for i in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder


def adversaries(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_adversaries_are_added_to_the_training_rows_alone(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "data")
    file = adversaries(
        tmp_path / "adv.jsonl",
        {"original": "train 1", "rewritten": "tram 1", "label": "positive", "similarity": 0.9},
        {"original": "train 2", "rewritten": "trait 2", "label": 0},
    )
    plain, more = load_splits("sst2", folder), load_splits("sst2", folder, adversaries=file)
    assert more.need("train").texts == [*plain.need("train").texts, ("tram 1",), ("trait 2",)]
    assert more.need("train").labels == [*(plain.need("train").labels or []), 1, 0]
    assert more.need("validation").texts == plain.need("validation").texts
    assert more.need("test").texts == plain.need("test").texts
    assert f"{file}: 2 adversaries added to 20 training rows" in more.notes


def test_adversaries_are_added_after_the_draw_and_without_weight(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "data")
    file = adversaries(tmp_path / "adv.jsonl", {"rewritten": "x", "label": "positive"})
    source = [{"source": str(folder), "weight": 3}]
    train = load_splits("sst2", source, train_rows=4, adversaries=file).need("train")
    assert train.repeats == [3, 3, 3, 3, 1]
    assert train.texts[-1] == ("x",)


def test_adversaries_of_measured_rows_are_left_out(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "data")
    rows = [{"original": f"{name} 1", "rewritten": f"adv {name}", "label": 1} for name in ("train", "dev", "test")]
    splits = load_splits("sst2", folder, adversaries=adversaries(tmp_path / "adv.jsonl", *rows))
    assert splits.need("train").texts[-1] == ("adv train",)
    assert len(splits.need("train")) == 21
    assert any("1 adversaries added to 20 training rows, 2 left out that were" in note for note in splits.notes)
    with pytest.raises(UserError, match="no row can be added, 2 left out that were rewritten from validation or test"):
        load_splits("sst2", folder, adversaries=adversaries(tmp_path / "adv.jsonl", *rows[1:]))


def test_adversaries_of_pairs_have_two_texts(tmp_path: Path) -> None:
    lines = [{"premise": "p", "hypothesis": f"h {i}", "label": "enc"[i % 3]} for i in range(30)]
    train = adversaries(tmp_path / "train.jsonl", *lines)
    file = adversaries(
        tmp_path / "adv.jsonl", {"rewritten": ["q", "h 3"], "original": ["p", "h 3"], "label": "neutral"}
    )
    data = load_splits("snli", train, adversaries=file, validation_rows=3, seed=1)
    held = ("p", "h 3") in data.need("validation").texts
    assert not held
    assert data.need("train").texts[-1] == ("q", "h 3")
    with pytest.raises(UserError, match=r"line 1: 'rewritten' is 'one text'(.|\n)*2 text\(s\)"):
        load_splits("snli", train, adversaries=adversaries(file, {"rewritten": "one text", "label": "neutral"}))


def test_where_nothing_is_trained_the_file_is_not_read(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "data")
    splits = load_splits("sst2", {"test": folder / "test.csv"}, adversaries=tmp_path / "gone.jsonl")
    assert len(splits.need("test")) == 6


@pytest.mark.parametrize(
    ("name", "rows", "says"),
    [
        ("adv.jsonl", [], "has no rows\ncontraverse adversaries MODEL DATA"),
        ("adv.jsonl", [{"text": "x", "label": 1}], "has no field 'rewritten'"),
        ("adv.jsonl", [{"text": "x"}], "has no field 'rewritten' and no field 'label'"),
        ("adv.jsonl", [{"rewritten": "x", "label": 1}, "{broken"], "1 rows cannot be used:\n  line 2 is not JSON"),
        ("adv.jsonl", ["[]"], "1 rows cannot be used:\n  line 1 is a JSON list"),
        ("adv.jsonl", [{"rewritten": " ", "label": 1}], "line 1: 'rewritten' is ' '"),
        ("adv.jsonl", [{"rewritten": None, "label": 1}], "line 1: 'rewritten' is None"),
        ("adv.jsonl", [{"rewritten": "x", "label": "good"}], "line 1: the label 'good' is unknown"),
        ("adv.jsonl", [{"rewritten": "x", "label": 2}], "line 1: the label 2 is unknown"),
        ("adv.jsonl", [{"rewritten": "x", "label": -1}], "line 1: the label -1 is unknown"),
        ("adv.jsonl", [{"rewritten": "x", "label": True}], "line 1: the label True is unknown"),
        ("adv.csv", [{"rewritten": "x", "label": 1}], r"the file ends in .jsonl"),
    ],
)
def test_a_file_of_adversaries_that_is_none(tmp_path: Path, name: str, rows: list[Any], says: str) -> None:
    folder = reviews(tmp_path / "data")
    with pytest.raises(UserError, match=says) as error:
        load_splits("sst2", folder, adversaries=adversaries(tmp_path / name, *rows))
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_file_and_rows_without_classes(tmp_path: Path) -> None:
    folder = reviews(tmp_path / "data")
    with pytest.raises(UserError, match="there is no such file"):
        load_splits("sst2", folder, adversaries=tmp_path / "gone.jsonl")
    (tmp_path / "corpus.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="training rows with classes, and these have none"):
        load_splits("sentences", tmp_path / "corpus.txt", adversaries=tmp_path / "gone.jsonl")
