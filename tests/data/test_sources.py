import gzip
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contraverse.data import Splits, TextData, get_task, load_splits
from contraverse.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "text"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


def write(folder: Path, name: str, rows: int, *, start: int = 0, classes: int = 2) -> Path:
    path = folder / name
    lines = [f"sentence number {i},class {i % classes}" for i in range(start, start + rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def sizes(splits: Splits) -> tuple[int | None, ...]:
    return tuple(data and len(data) for data in (splits.train, splits.validation, splits.test))


def test_all_three_files_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", 40)
    write(tmp_path, "dev.csv", 10, start=100)
    write(tmp_path, "test.csv", 12, start=200)
    splits = load_splits("text", tmp_path)
    assert sizes(splits) == (40, 10, 12)
    assert splits.notes == []
    assert splits.skipped == 0
    train = splits.need("train")
    assert train.texts[:2] == [("sentence number 0",), ("sentence number 1",)]
    assert train.labels is not None
    assert train.labels[:3] == [0, 1, 0]
    assert train.label_names == ("class 0", "class 1")
    assert train.source == str(tmp_path / "train.csv")
    assert splits.task.name == "text"


def test_one_file_is_training_rows_and_gives_a_validation_split(tmp_path: Path) -> None:
    splits = load_splits("text", write(tmp_path, "reviews.csv", 100))
    assert sizes(splits) == (90, 10, None)
    assert sorted(splits.need("validation").labels or []) == [0] * 5 + [1] * 5
    assert any("10 training rows were set aside" in note for note in splits.notes)
    assert any("no labelled test split" in note for note in splits.notes)
    with pytest.raises(UserError, match="there is no test split"):
        splits.need("test")


def test_validation_is_cut_from_training_rows_and_never_from_test(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", 100)
    write(tmp_path, "test.csv", 50, start=1000)
    splits = load_splits("text", tmp_path, validation_fraction=0.2)
    assert sizes(splits) == (80, 20, 50)
    train, validation = (set(splits.need(name).texts) for name in ("train", "validation"))  # type: ignore[arg-type]
    assert not train & validation
    assert train | validation == {(f"sentence number {i}",) for i in range(100)}


def test_the_cut_is_the_seeds(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", 100)
    first, again, other = (load_splits("text", path, seed=seed).need("validation").texts for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_validation_is_cut_for_a_fraction_of_zero(tmp_path: Path) -> None:
    assert sizes(load_splits("text", write(tmp_path, "train.csv", 20), validation_fraction=0)) == (20, None, None)


def test_fewer_training_rows_leave_the_validation_rows_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", 400, classes=4)
    whole = load_splits("text", path)
    part = load_splits("text", path, train_rows=40)
    assert part.need("validation").texts == whole.need("validation").texts
    assert set(part.need("train").texts) < set(whole.need("train").texts)
    labels = part.need("train").labels or []
    assert [labels.count(i) for i in range(4)] == [10, 10, 10, 10]
    assert any("40 of 360 training rows" in note for note in part.notes)
    assert sizes(load_splits("text", path, train_rows=10_000)) == (360, 40, None)


def test_files_may_be_named_for_each_split(tmp_path: Path) -> None:
    one, two = write(tmp_path, "a.csv", 20), write(tmp_path, "b.csv", 10, start=50)
    splits = load_splits("text", {"test": str(two), "train": one}, validation_fraction=0)
    assert sizes(splits) == (20, None, 10)
    assert splits.need("test").texts[0] == ("sentence number 50",)
    for wrong in ({"dev": one}, {}):
        with pytest.raises(UserError, match="files are named as train, validation and test"):
            load_splits("text", wrong)  # type: ignore[arg-type]


def test_labels_are_sorted_as_numbers_where_they_are_numbers(tmp_path: Path) -> None:
    rows = [{"text": "a row", "label": label} for label in (10, 2, "1", -1, 2.0, True)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = load_splits("text", tmp_path, validation_fraction=0).need("train")
    assert train.label_names == ("-1", "1", "2", "10")
    assert train.labels == [3, 2, 1, 0, 2, 1]


def test_numbers_of_a_task_with_numbers_for_names_are_names(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,1\nb,5\nc,3\n")
    stars = replace(get_task("text"), labels=("1", "3", "5"))
    assert load_splits(stars, tmp_path, validation_fraction=0).need("train").labels == [0, 2, 1]


def test_test_rows_without_labels_are_not_used(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", 20)
    for rows in ("text\na\nb\n", "text,label\na,-1\nb,-1\n", "text,label\na,\nb,\n"):
        (tmp_path / "test.csv").write_text(rows)
        splits = load_splits("text", tmp_path)
        assert splits.test is None
        assert any("test.csv: has no labels, so it is not used" in note for note in splits.notes)


def test_validation_rows_must_have_labels(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", 20)
    (tmp_path / "dev.csv").write_text("text,label\na,-1\nb,-1\n")
    with pytest.raises(UserError, match="the label '-1' is unknown"):
        load_splits("text", tmp_path)
    (tmp_path / "dev.csv").write_text("text\na\nb\n")
    with pytest.raises(UserError, match="which column is the label cannot be told"):
        load_splits("text", tmp_path)


def test_a_test_file_alone_is_enough_to_evaluate_on(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\na,positive\nb,negative\nc,1\n")
    splits = load_splits("sst2", tmp_path)
    assert sizes(splits) == (None, None, 3)
    assert splits.need("test").labels == [1, 0, 1]
    (tmp_path / "test.csv").write_text("text,label\na,-1\nb,-1\n")
    with pytest.raises(UserError, match="no labelled rows"):
        load_splits("sst2", tmp_path)


def test_columns_found_on_training_rows_are_those_of_the_other_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "id,utterance,kind\n" + "".join(f"{i},words {i} and more,{i % 2}\n" for i in range(9))
    )
    (tmp_path / "dev.csv").write_text(
        "kind,long_comment,utterance\n" + "".join(f"{i % 2},{'x' * 50},u {i}\n" for i in range(4))
    )
    splits = load_splits("text", tmp_path)
    assert splits.need("validation").texts[0] == ("u 0",)


def test_flags_name_columns(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b,c,text\n" + "".join(f"one {i},two {i},{i % 2},x\n" for i in range(10)))
    splits = load_splits("text", tmp_path, text="b", label="c", validation_fraction=0)
    assert splits.need("train").texts[3] == ("two 3",)
    assert load_splits("pair", tmp_path, text=["b", "a"], label="c").need("train").texts[0][1].startswith("one")
    with pytest.raises(UserError, match="there is no column 'd'"):
        load_splits("text", tmp_path, text="b", label="d")


def test_texts_in_two_splits_are_noted(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", 20)
    write(tmp_path, "dev.csv", 10, start=18)
    write(tmp_path, "test.csv", 10, start=15)
    with (tmp_path / "train.csv").open("a") as file:
        file.write("sentence number 3,class 0\n")
    notes = load_splits("text", tmp_path).notes
    assert "1 of 21 training rows repeat another one's text" in notes
    assert "2 of 10 validation rows have a text that is in the training rows too" in notes
    assert "5 of 10 test rows have a text that is in the training rows too" in notes


def test_a_class_without_training_rows_is_noted(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"row {i},{i % 3}\n" for i in range(12)))
    assert "no training row has the label Sci/Tech" in load_splits("ag_news", tmp_path).notes


def test_a_sample_of_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every training row has the label"):
        load_splits("text", write(tmp_path, "train.csv", 40), train_rows=1)


GLUE = {
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ['1\t7\t8\tHe said " no " .\t" No , " he said .', '0\t9\t10\t" Never " .\tIt rained .'],
        ('He said " no " .', '" No , " he said .'),
        [1, 0],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        ["1\t2\t3\tWhy?\tWhy not?\t0", "2\t3\t4\tWhen?\tAt what time?\t1"],
        ("Why?", "Why not?"),
        [0, 1],
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel",
        ["0\tIt rains.\tIt is dry.\tnot_entailment", "1\tIt pours.\tIt rains.\tentailment"],
        ("It rains.", "It is dry."),
        [1, 0],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel",
        ["0\tWho?\tHim.\tentailment", "1\tWhen?\tThere.\tnot_entailment"],
        ("Who?", "Him."),
        [0, 1],
    ),
    "mnli": (
        "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label",
        ["0\tfiction\tIt rains.\tIt is dry.\tneutral\tcontradiction", "1\tslate\tA.\tB.\tneutral\tneutral"],
        ("It rains.", "It is dry."),
        [2, 1],
    ),
    "sst2": ("sentence\tlabel", ["a ` fine ' film \t1", 'no " film " \t0'], ("a ` fine ' film ",), [1, 0]),
    "cola": ("gj04\t1\t\tHe rode.", ["gj04\t0\t*\tHim rode."], ("He rode.",), [1, 0]),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        ["0\tx\ty\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t5.000", '1\tx\ty\t2012\t2\tn\tn\t"A\tB\t0.75'],
        ("A plane.", "An air plane."),
        [5.0, 0.75],
    ),
}


@pytest.mark.parametrize("task", GLUE)
def test_the_tables_of_glue_load_without_a_flag(tmp_path: Path, task: str) -> None:
    header, rows, first, labels = GLUE[task]
    (tmp_path / "train.tsv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "test.tsv").write_text("index\tsentence1\tsentence2\tsentence\tquestion\n0\ta\tb\tc\td\n")
    splits = load_splits(task, tmp_path, validation_fraction=0)
    assert splits.need("train").texts[0] == first
    assert splits.need("train").labels == labels
    assert splits.test is None
    assert any("test.tsv: has no labels" in note for note in splits.notes)


def test_a_plain_corpus_is_not_cut(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "corpus.txt.gz", "wt") as file:
        file.write("one sentence\n\nanother, with a comma\n")
    splits = load_splits("sentences", tmp_path / "corpus.txt.gz")
    assert sizes(splits) == (2, None, None)
    assert splits.need("train").labels is None
    assert any("1 blank lines passed over" in note for note in splits.notes)


def test_triplets(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sent0,sent1,hard_neg\na,b,c\nd,e,f\n")
    train = load_splits("nli", tmp_path).need("train")
    assert train.texts == [("a", "b", "c"), ("d", "e", "f")]
    assert train.columns == ("anchor", "positive", "negative")


def test_shards_are_joined(tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00002.csv", 10)
    write(tmp_path, "train-00001-of-00002.csv", 10, start=10)
    assert sizes(load_splits("text", tmp_path)) == (18, 2, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction lies in"),
        ({"validation_fraction": -0.1}, "validation_fraction lies in"),
        ({"train_rows": 0}, "train_rows is at least 1"),
        ({"on_bad_row": "ignore"}, "on_bad_row is error or skip"),
    ],
)
def test_impossible_arguments(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_splits("text", write(tmp_path, "train.csv", 10), **arguments)


@pytest.mark.parametrize(
    "source", ["no/such/file.csv", "nothing.csv", "./nothing", "no/such/folder/at all", Path("nothing")]
)
def test_a_path_that_is_not_there_is_never_sought_on_the_hub(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contraverse.data.reading.load_hub", lambda *_: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match="there is no such file or folder"):
        load_splits("text", source)


@needs_shared
@pytest.mark.parametrize(
    ("task", "folder", "rows"),
    [
        ("trec", "trec", (4907, 545, 500)),
        ("sst2", "sst2", (67_349, 872, 1821)),
        ("cola", "cola", (8551, 1043, None)),
        ("mrpc", "mrpc", (3668, 408, 1725)),
        ("stsb", "stsb", (5749, 1500, 1379)),
        ("ag_news", "ag_news", (14_495, 1610, 7600)),
        ("sentences", "wiki_sentences", (124_093, None, None)),
        ("mnli", "anli_a1", (None, 1000, 1000)),
    ],
)
def test_the_shared_sets_load_without_a_flag(task: str, folder: str, rows: tuple[int | None, ...]) -> None:
    start = time.process_time()
    splits = load_splits(task, SHARED / folder)
    assert sizes(splits) == rows
    assert splits.skipped == 0
    assert time.process_time() - start < 5
    for data in (splits.train, splits.validation, splits.test):
        if isinstance(data, TextData) and task in ("trec", "sst2"):
            assert data.label_names == splits.task.labels
