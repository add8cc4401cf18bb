import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference import sts_reference

from contraverse.data import TextData
from contraverse.data.tables import Table
from contraverse.errors import UserError
from contraverse.evaluation import STS_SETS, StsbDev, StsReport, StsScores, StsSet, evaluate_sts, find_sts, sts_sets
from contraverse.models import TextModel

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"


def on_circle(sentences: list[str]) -> np.ndarray:
    """A sentence "0.3" is the vector whose cosine with "1" is 0.3."""
    return np.array([[float(s), math.sqrt(1 - float(s) ** 2)] for s in sentences])


def against_one(cosines: list[float]) -> list[tuple[str, str]]:
    return [("1", str(cosine)) for cosine in cosines]


# Sub-set A agrees with the gold scores, B reverses them.
CRAFTED = StsSet(against_one([0.1, 0.2, 0.3, 0.4, 0.8, 0.7]), [1, 2, 3, 4, 1, 2], ["A", "A", "A", "A", "B", "B"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All seven sets and a validation split of STS-B, the crafted pairs in each."""
    for name in STS_SETS:
        frame = pd.DataFrame(CRAFTED.pairs, columns=["sentence1", "sentence2"])
        frame["score"] = CRAFTED.scores
        if name != "sick":
            frame["subset"] = CRAFTED.subsets
        (tmp_path / name).mkdir()
        frame.to_parquet(tmp_path / name / "test.parquet")
        if name == "stsb":
            frame.to_parquet(tmp_path / name / "validation.parquet")
    return tmp_path


def test_the_three_aggregates_differ_as_computed_by_hand() -> None:
    # A has rho 1 (4 pairs), B has -1 (2 pairs). Together the ranks of the golds are 1.5 3.5 5 6 1.5 3.5 and of the
    # cosines 1 2 3 4 6 5: covariance .5, squared deviations 16.5 and 17.5.
    scores = evaluate_sts(on_circle, {"sts12": CRAFTED}, ["sts12"]).sets["sts12"]
    assert scores.mean == pytest.approx(0)
    assert scores.wmean == pytest.approx(100 * (4 - 2) / 6)
    assert scores.all == pytest.approx(100 * 0.5 / math.sqrt(16.5 * 17.5))


def test_the_aggregates_equal_their_definitions() -> None:
    random = np.random.default_rng(0)
    sentences = [str(i) for i in range(60)]
    vectors = dict(zip(sentences, random.normal(size=(60, 5)), strict=True))
    pairs = [(sentences[i], sentences[j]) for i, j in random.integers(60, size=(40, 2))]
    golds = random.integers(0, 11, size=40) / 2
    subsets = [str(name) for name in random.choice(["a", "b", "c"], size=40, p=[0.6, 0.3, 0.1])]
    report = evaluate_sts(
        lambda texts: np.array([vectors[text] for text in texts]), {"x": StsSet(pairs, golds, subsets)}, ["x"]
    )
    cosines = [1.0 if a == b else sts_reference.cosine(vectors[a], vectors[b]) for a, b in pairs]
    expected = sts_reference.aggregates(cosines, list(golds), subsets)
    found = report.sets["x"]
    assert (found.all, found.mean, found.wmean) == pytest.approx(expected, abs=1e-9)


def test_identical_sentences_tie() -> None:
    def encode(sentences: list[str]) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(sentences), 7))

    pairs = [(c, c) for c in "abcdefgh"]
    assert evaluate_sts(encode, {"x": StsSet(pairs, range(8))}, ["x"]).sets["x"].all == 0.0


def test_the_average_is_of_rounded_figures() -> None:
    report = StsReport({"sts12": StsScores(10.004, 0, 0), "sts13": StsScores(20.004, 0, 0)})
    assert report.average == 15.0
    assert report.metrics == {"sts12": 10.004, "sts13": 20.004, "average": 15.0}
    assert report.to_dict()["sets"]["sts12"] == {"all": 10.004, "mean": 0, "wmean": 0}


def test_a_folder_holds_seven_sets_and_stsb_and_sick_have_no_subsets(folder: Path) -> None:
    report = evaluate_sts(on_circle, folder)
    assert tuple(report.sets) == STS_SETS
    assert report.sets["sts16"].mean != report.sets["sts16"].all
    for name in ("stsb", "sick"):
        assert report.sets[name].mean == report.sets[name].wmean == report.sets[name].all
    assert report.average == pytest.approx(2.94, abs=1e-9)


def test_each_distinct_sentence_is_encoded_once_over_all_sets(folder: Path) -> None:
    seen: Counter[str] = Counter()

    def encode(sentences: list[str]) -> np.ndarray:
        seen.update(sentences)
        return on_circle(sentences)

    evaluate_sts(encode, folder)
    assert set(seen) == {sentence for pair in CRAFTED.pairs for sentence in pair}
    assert set(seen.values()) == {1}


def test_pairs_without_a_gold_score_are_left_out() -> None:
    pairs, scores, subsets = list(CRAFTED.pairs), list(CRAFTED.scores), list(CRAFTED.subsets)
    holed = StsSet([*pairs, ("1", "0.9")], [*scores, math.nan], [*subsets, "C"])
    expected = evaluate_sts(on_circle, {"sts12": CRAFTED}, ["sts12"])
    assert evaluate_sts(on_circle, {"sts12": holed}, ["sts12"]) == expected


def test_missing_sets_are_all_named(folder: Path) -> None:
    (folder / "sts13" / "test.parquet").unlink()
    (folder / "sick" / "test.parquet").unlink()
    with pytest.raises(UserError, match="sts13, sick"):
        evaluate_sts(on_circle, folder, STS_SETS)
    with pytest.raises(UserError, match="sts14"):
        evaluate_sts(on_circle, {"sts12": CRAFTED}, ["sts12", "sts14"])
    with pytest.raises(UserError, match="stsb"):
        StsbDev(folder / "sts12")
    with pytest.raises(UserError, match="no such file or folder"):
        StsbDev(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="no STS set sts12, sts13, sts14, sts15, sts16, stsb, sick"):
        evaluate_sts(on_circle, folder / "empty")
    with pytest.raises(UserError, match="differ in number"):
        StsbDev(TextData.from_rows([("a", "b")]))


def test_the_sets_that_are_there_are_scored_and_the_others_named(folder: Path) -> None:
    for name in ("sts13", "sick"):
        (folder / name / "test.parquet").unlink()
    report = evaluate_sts(on_circle, folder)
    assert list(report.sets) == ["sts12", "sts14", "sts15", "sts16", "stsb"]
    (absent, *_) = find_sts(folder).notes
    assert absent == "STS: no sts13, sick; the average is of 5 of 7 sets"


@pytest.mark.parametrize("within", ["sts12", "stsb"])
def test_one_sets_own_folder_is_that_set(folder: Path, within: str) -> None:
    sources = find_sts(folder / within)
    assert list(sources.test) == [within]
    assert (sources.dev is not None) == (within == "stsb")
    expected = evaluate_sts(on_circle, folder).sets[within]
    assert evaluate_sts(on_circle, folder / within).sets == {within: expected}


def test_without_subsets_a_set_is_scored_by_all_alone(folder: Path) -> None:
    """The Hub's copies of STS12 to STS16 have no column subset."""
    whole = evaluate_sts(on_circle, folder).sets["sts12"].all
    for name in STS_SETS:
        file = folder / name / "test.parquet"
        pd.read_parquet(file).drop(columns="subset", errors="ignore").to_parquet(file)
    report = evaluate_sts(on_circle, folder)
    assert report.sets["sts12"] == StsScores(whole, None, None)
    assert report.sets["stsb"] == StsScores(whole, whole, whole)  # which has none to begin with
    assert any("sts12, sts13, sts14, sts15, sts16 without sub-sets" in note for note in find_sts(folder).notes)


def test_a_set_of_another_size_than_the_papers_is_noted(folder: Path) -> None:
    assert "STS: sick has 6 scored pairs, where the papers' set has 4,927" in find_sts(folder).notes


@pytest.mark.parametrize("header", ["sentence1,sentence2,score", "left,right,gold", "text_a,text_b,similarity"])
def test_pairs_of_ones_own_are_scored_whatever_their_columns_and_scale(tmp_path: Path, header: str) -> None:
    golds = [10, 20, 30, 40, 15, 25]
    lines = [f"word {a},word {b},{gold}" for (a, b), gold in zip(CRAFTED.pairs, golds, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join([header, *lines]) + "\n")
    sources = find_sts(tmp_path / "mine.csv")
    assert (list(sources.test), sources.dev, sources.notes) == (["pairs"], None, [])

    def encode(sentences: list[str]) -> np.ndarray:
        return on_circle([sentence.removeprefix("word ") for sentence in sentences])

    expected = sts_reference.spearman([float(b) for _, b in CRAFTED.pairs], golds)
    assert evaluate_sts(encode, tmp_path / "mine.csv").sets["pairs"].all == pytest.approx(100 * expected)
    # A folder with files called test and validation: these choose a checkpoint.
    (tmp_path / "own").mkdir()
    for split in ("test", "validation"):
        (tmp_path / "own" / f"{split}.csv").write_text((tmp_path / "mine.csv").read_text())
    sources = find_sts(tmp_path / "own")
    assert list(sources.test) == ["pairs"]
    assert sources.dev == sources.test["pairs"]


def test_a_file_without_scores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("left,right\ngood work,no good\nthe way,the house\n")
    with pytest.raises(UserError, match="score"):
        find_sts(tmp_path / "mine.csv")


def test_the_sets_of_the_hub_are_read_by_their_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies without sub-sets; STS-B's validation rows choose."""

    def load(source: str, task: Any) -> dict[str, list[Table]]:
        columns = {"sentence1": ["1", "1"], "sentence2": ["0.1", "0.9"], "score": [1.0, 4.0]}
        splits = ["train", "validation", "test"] if source == "mteb/stsbenchmark-sts" else ["test"]
        table = Table(f"{source} test", tuple(columns), lambda name: columns[name], [1, 2])
        return {split: [table] for split in splits}

    monkeypatch.setattr(sts_sets, "load_hub", load)
    sources = find_sts("hub")
    assert tuple(sources.test) == STS_SETS
    assert sources.dev is not None
    assert (sources.dev.pairs, sources.dev.scores) == ([("1", "0.1"), ("1", "0.9")], [1.0, 4.0])
    assert evaluate_sts(on_circle, "hub").average == 100


def test_a_missing_column_and_unequal_numbers_are_refused(folder: Path) -> None:
    file = folder / "sts12" / "test.parquet"
    pd.read_parquet(file).drop(columns="score").to_parquet(file)
    with pytest.raises(UserError, match="no column score"):
        evaluate_sts(on_circle, folder)
    with pytest.raises(UserError, match="differ in number"):
        evaluate_sts(on_circle, {"x": StsSet([("1", "0")], [1.0, 2.0])}, ["x"])
    with pytest.raises(UserError, match="gold"):
        evaluate_sts(on_circle, {"x": StsSet([("1", "0")], [math.nan])}, ["x"])


def test_other_formats_are_read_and_empty_golds_left_out(folder: Path) -> None:
    (folder / "sick" / "test.parquet").unlink()
    text = "sentence1\tsentence2\tscore\n1\t0.1\t2\n1\t0.9\t\n1\t0.2\t1\n"
    (folder / "sick" / "test.tsv").write_text(text)
    assert evaluate_sts(on_circle, folder).sets["sick"].all == pytest.approx(-100)


@pytest.mark.parametrize(("row", "says"), [("1\t0.2\tmuch", "'much'"), ("\t0.2\t1", "sentence"), ("1\t2", "fields")])
def test_a_bad_row_is_named(folder: Path, row: str, says: str) -> None:
    (folder / "sick" / "test.parquet").unlink()
    (folder / "sick" / "test.tsv").write_text(f"sentence1\tsentence2\tscore\n1\t0.1\t2\n{row}\n1\t0.3\t3\n")
    with pytest.raises(UserError, match=f"line 3.*{says}"):
        evaluate_sts(on_circle, folder)


def test_stsb_dev_is_spearman_of_the_models_cosines(
    tiny_model: Callable[..., TextModel], sentences: Callable[..., list[str]]
) -> None:
    model = tiny_model(labels=None, pooling="mean").train()
    pairs = list(zip(sentences(12), sentences(12, seed=1), strict=True))
    golds = [float(i % 5) for i in range(12)]
    cosines = [sts_reference.cosine(*model.encode(list(pair)).tolist()) for pair in pairs]
    found = StsbDev(StsSet(pairs, golds))(model)
    assert found == {"stsb_spearman": pytest.approx(100 * sts_reference.spearman(cosines, golds))}
    assert model.training
    assert StsbDev(TextData.from_rows(pairs, labels=golds))(model) == found


def test_stsb_dev_reads_the_validation_split(folder: Path, tiny_model: Callable[..., TextModel]) -> None:
    (folder / "stsb" / "test.parquet").unlink()
    assert StsbDev(folder)(tiny_model(labels=None)).keys() == {"stsb_spearman"}


def test_sentences_are_not_cut_at_the_length_of_training(tiny_model: Callable[..., TextModel]) -> None:
    model = tiny_model(labels=None, pooling="mean", max_length=4)
    short, long = "the way of the", "the way of the world " * 8
    encode = model.encode
    assert np.abs(encode([long]) - encode([long + "people"])).max() > 1e-4
    assert np.abs(encode([short]) - encode([long])).max() > 1e-4
    assert encode(["the " * 500]).shape == (1, 32)  # more than the encoder has positions for
    assert model.max_length == 4


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/text")
def test_minilm_has_its_published_figures() -> None:
    model = TextModel.from_pretrained("minilm", pooling="mean")
    report = evaluate_sts(model.encode, SHARED)
    published = dict(zip(STS_SETS, (72.37, 80.60, 75.59, 85.39, 78.99, 82.03, 77.15), strict=True))
    assert {name: scores.all for name, scores in report.sets.items()} == pytest.approx(published, abs=0.02)
    assert report.average == pytest.approx(78.87, abs=0.02)
