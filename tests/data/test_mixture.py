import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from reference.tiny import tiny_tokenizer
from torch.utils.data import DataLoader

from contraverse.data import Collator, EncodedText, LengthGroupedSampler, Splits, TextData, load_splits
from contraverse.errors import UserError
from contraverse.methods import CrossEntropy
from contraverse.models import TextModel
from contraverse.recipes import configure, parse
from contraverse.training import Trainer
from contraverse.types import Loss, TrainingInfo

BERT_LARGE = "google-bert/bert-large-uncased"
ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared" / "data" / "text"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
LETTERS = "enc"


def nli(folder: Path, name: str, rows: int, label: Any = lambda i: LETTERS[i % 3]) -> Path:
    """``rows`` pairs whose hypothesis names the file and the row; ``label(i)`` is the class of row i."""
    folder.mkdir(exist_ok=True)
    lines = [{"premise": "p", "hypothesis": f"{name} {i}", "label": label(i)} for i in range(rows)]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / name


def seen(data: TextData) -> Counter[str]:
    """How often training sees each hypothesis in an epoch, by the items that it is given."""
    encoded = EncodedText(data, tiny_tokenizer(type_ids=True), 16)
    return Counter(data.texts[encoded[i]["index"]][1] for i in range(len(encoded)))


def mixed(source: Any, **arguments: Any) -> Splits:
    return load_splits("snli", source, validation_fraction=0, **arguments)


def test_a_list_mixes_the_training_rows_of_its_sources(tmp_path: Path) -> None:
    one, two = nli(tmp_path / "one", "train.jsonl", 6), nli(tmp_path, "two.jsonl", 9)
    nli(tmp_path / "one", "dev.jsonl", 3)
    splits = mixed([str(one.parent), {"source": str(two)}])
    train = splits.need("train")
    assert train.texts == [("p", f"train.jsonl {i}") for i in range(6)] + [("p", f"two.jsonl {i}") for i in range(9)]
    assert train.labels == [0, 1, 2] * 5
    assert train.repeats is None
    assert splits.validation is None
    assert splits.test is None


def test_classes_are_joined_by_name_and_not_by_number(tmp_path: Path) -> None:
    first = nli(tmp_path, "first.jsonl", 3, lambda i: ("b", "c", "a")[i])
    second = nli(tmp_path, "second.jsonl", 3, lambda i: ("c", "a", "b")[i])
    pair = load_splits("pair", [str(first), str(second)], validation_fraction=0).need("train")
    assert [pair.label_names[label] for label in pair.labels or ()] == ["b", "c", "a", "c", "a", "b"]  # type: ignore
    # A task of another order, in which the ids of the run's task stand elsewhere.
    anli = nli(tmp_path, "anli.jsonl", 3)
    words = nli(tmp_path, "words.jsonl", 3, lambda i: ("neutral", "contradiction", "entailment")[i])
    both = load_splits("pair", [str(words), {"task": "anli_a1", "source": str(anli)}], validation_fraction=0)
    train = both.need("train")
    assert train.label_names == ("contradiction", "entailment", "neutral")
    assert train.labels == [2, 0, 1, 1, 2, 0]


def test_other_classes_are_refused(tmp_path: Path) -> None:
    words, binary = nli(tmp_path, "a.jsonl", 4), nli(tmp_path, "b.jsonl", 4, lambda i: ("yes", "no")[i % 2])
    with pytest.raises(UserError, match="the label 'yes' is unknown"):
        mixed([str(words), str(binary)])
    with pytest.raises(UserError, match=r"data.source\[1\] .*its classes are entailment, not_entailment, and not ent"):
        mixed([str(words), {"task": "rte", "source": str(nli(tmp_path, "c.jsonl", 4, lambda i: i % 2))}])
    with pytest.raises(UserError, match=r"the label '1' is unknown"):  # numbers are no words
        load_splits("pair", [str(words), str(nli(tmp_path, "d.jsonl", 4, lambda i: i % 2))])


def test_a_task_of_other_rows_is_refused(tmp_path: Path) -> None:
    file = str(nli(tmp_path, "a.jsonl", 4))
    for task in ("sst2", "stsb"):
        with pytest.raises(UserError, match=rf"data.source\[1\]: task '{task}' has other rows than 'snli'"):
            mixed([file, {"task": task, "source": file}])


def test_a_whole_weight_shows_every_row_so_often(tmp_path: Path) -> None:
    """ANLI's official weights are 1, 1, 1, 10, 20, 10."""
    files = [nli(tmp_path, f"{name}.jsonl", 3 + i) for i, name in enumerate("abcdef")]
    weights = [1, 1, 1, 10, 20, 10]
    splits = mixed([{"source": str(file), "weight": w} for file, w in zip(files, weights, strict=True)])
    train = splits.need("train")
    expected = {
        f"{name}.jsonl {j}": w for i, (name, w) in enumerate(zip("abcdef", weights, strict=True)) for j in range(3 + i)
    }
    assert seen(train) == expected
    assert len(train) == 3 + 4 + 5 + 6 + 7 + 8
    assert any("weight 20, 7 rows are seen 140 times" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("weight", "counts"), [(2.25, {2: 9, 3: 3}), (0.5, {1: 6}), (1.5, {1: 6, 2: 6}), (0.01, {1: 1})]
)
def test_what_a_weight_is_over_is_a_sample(tmp_path: Path, weight: float, counts: dict[int, int]) -> None:
    file, other = nli(tmp_path, "a.jsonl", 12), nli(tmp_path, "b.jsonl", 6)
    source = [{"source": str(file), "weight": weight}, str(other)]
    found, again, elsewhere = (seen(mixed(source, seed=seed).need("train")) for seed in (1, 1, 2))
    assert Counter(count for name, count in found.items() if name.startswith("a.")) == counts
    assert found == again
    assert weight == 0.01 or found != elsewhere
    assert all(found[f"b.jsonl {i}"] == 1 for i in range(6))


def test_the_sample_of_a_weight_is_stratified(tmp_path: Path) -> None:
    train = mixed([{"source": str(nli(tmp_path, "a.jsonl", 30)), "weight": 0.5}]).need("train")
    assert Counter(train.labels or ()) == {0: 5, 1: 5, 2: 5}
    more = mixed([{"source": str(tmp_path / "a.jsonl"), "weight": 3.5}]).need("train")
    over = [label for label, count in zip(more.labels or (), more.repeats or (), strict=True) if count == 4]
    assert Counter(over) == {0: 5, 1: 5, 2: 5}


def test_by_split_each_may_be_one_source_or_several(tmp_path: Path) -> None:
    for name, rows in (("train.jsonl", 3), ("dev.jsonl", 4), ("test.jsonl", 5)):
        nli(tmp_path / "set", name, rows)
    other = nli(tmp_path, "other.jsonl", 6)
    splits = mixed(
        {
            "train": [{"source": str(tmp_path / "set"), "split": ["validation", "test"]}, str(other)],
            "validation": {"source": str(tmp_path / "set"), "split": "train"},
            "test": str(tmp_path / "set"),
        }
    )
    assert (len(splits.need("train")), len(splits.need("validation")), len(splits.need("test"))) == (15, 3, 5)
    assert splits.need("train").texts[0] == ("p", "dev.jsonl 0")
    assert splits.need("test").texts[0] == ("p", "test.jsonl 0")


def test_validation_rows_are_cut_from_a_mixture_once_each(tmp_path: Path) -> None:
    source = [{"source": str(nli(tmp_path, "a.jsonl", 30)), "weight": 5}]
    splits = load_splits("snli", source, validation_fraction=0.2)
    train, validation = splits.need("train"), splits.need("validation")
    assert (len(train), len(validation)) == (24, 6)
    assert not set(train.texts) & set(validation.texts)
    assert train.repeats == [5] * 24
    assert validation.repeats is None
    assert load_splits("snli", source, train_rows=6).need("train").repeats == [5] * 6


def test_a_row_has_one_number_however_often_it_is_seen() -> None:
    data = TextData.from_rows([f"the man {'and ' * i}" for i in range(7)], ["a", "b", "a", "b", "a", "b", "a"])
    data.repeats = [1, 3, 1, 2, 1, 1, 4]
    tokenizer = tiny_tokenizer(type_ids=True)
    encoded = EncodedText(data, tokenizer, 32)
    once = EncodedText(TextData(data.texts, data.labels, data.label_names, data.columns), tokenizer, 32)
    assert len(encoded) == len(encoded.lengths) == 13
    assert encoded.labels is not None
    assert encoded.labels.tolist() == data.labels
    for i in range(13):
        item = encoded[i]
        assert item == once[item["index"]]
        assert encoded.lengths[i] == len(item["input_ids"])
    for epoch in range(3):
        sampler = LengthGroupedSampler(encoded.lengths, 4, seed=1)
        sampler.set_epoch(epoch)
        batches = DataLoader(encoded, batch_size=4, sampler=sampler, collate_fn=Collator(tokenizer))  # type: ignore
        index, labels = (np.concatenate([batch[name].numpy() for batch in batches]) for name in ("index", "labels"))
        assert np.bincount(index).tolist() == data.repeats
        assert np.array_equal(encoded.labels[index], labels)


class Counting(CrossEntropy):
    """Cross-entropy that remembers which rows it was given, and what it was told of them."""

    def prepare(self, training_info: TrainingInfo) -> None:
        self.training_info, self.seen = training_info, Counter[int]()

    def losses(self, model: Any, batch: Any) -> Iterator[Loss]:
        self.seen.update(batch["index"].tolist())
        return super().losses(model, batch)


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_training_sees_each_row_as_often_as_its_weight(
    tiny_model: Callable[..., TextModel], tmp_path: Path, strategy: str
) -> None:
    files = [nli(tmp_path, "a.jsonl", 9), nli(tmp_path, "b.jsonl", 6)]
    data = mixed([str(files[0]), {"source": str(files[1]), "weight": 3}]).need("train")
    method = Counting()
    trainer = Trainer(
        tiny_model(labels=data.label_names),
        method,
        data,
        output_dir=tmp_path / "run",
        num_train_epochs=2,
        per_device_train_batch_size=4,
        train_sampling_strategy=strategy,
        save_strategy="no",
        report_to="none",
    )
    trainer.train()
    assert method.seen == {i: 2 if i < 9 else 6 for i in range(15)}
    assert trainer.state.global_step == 2 * 7  # 27 items of an epoch in batches of 4
    assert method.training_info.num_examples == 15
    assert method.training_info.labels is not None
    assert method.training_info.labels.tolist() == data.labels


@given(repeats=st.lists(st.integers(1, 5), min_size=1, max_size=20), seed=st.integers(0, 99))
@examples(max_examples=25)
def test_a_selection_keeps_each_rows_own_count(repeats: list[int], seed: int) -> None:
    data = TextData.from_rows([f"row {i}" for i in range(len(repeats))])
    data.repeats = repeats
    chosen = data.sample(max(1, len(repeats) // 2), seed)
    assert chosen.repeats == [repeats[int(text.split()[1])] for (text,) in chosen.texts]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([], r"data.source: the list of sources is empty"),
        ({"train": []}, r"data.source.train: the list of sources is empty"),
        ([3], r"data.source\[0\]: a source is a path, a Hub id or settings, not 3"),
        (3, r"data.source: a source is a path, a Hub id, files by split or a list, not 3"),
        ([{"wieght": 2}], r"data.source\[0\]: no setting of a source is called \"wieght\"\ndid you mean \"weight\"?"),
        ([{}, {"task": "snl"}], r"data.source\[1\]: no task is called \"snl\"\ndid you mean \"snli\"?"),
        ([{"task": 3}], r"data.source\[0\]: task is a name, not 3"),
        ([{"label": ["a"]}], r"data.source\[0\]: label is a name, not"),
        ([{"source": {"train": "x"}}], r"data.source\[0\]: source is a path or a Hub id"),
        ([{"split": "dev"}], r"data.source\[0\]: split is train, validation or test, not dev"),
        ([{"split": 3}], r"data.source\[0\]: split is a name or a list of names, not 3"),
        ([{"text": [1]}], r"data.source\[0\]: text is a name or a list of names"),
        ([{"weight": 0}], r"data.source\[0\]: a weight is a number above 0, not 0"),
        ([{"weight": -1}], "a weight is a number above 0"),
        ([{"weight": True}], "a weight is a number above 0"),
        ([{"weight": float("inf")}], "a weight is a number above 0"),
        ([{"weight": "10"}], "a weight is a number above 0, not '10'"),
        ({"train": "a.csv", "test": {"weight": 2}}, r"data.source.test\[0\]: a weight is for training rows"),
        ({"dev": {"task": "snli"}}, "files are named as train, validation and test, not dev"),
        ({"task": "snli", "weight": 2}, r"A source with settings of its own is one of a list: \[\{task: snli\}\]"),
    ],
)
def test_a_mistake_is_named_before_anything_is_read(source: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        mixed(source)
    with pytest.raises(UserError, match=says):
        configure("scal", task="snli", settings={"data.source": source})


def test_what_a_source_lacks_is_named(tmp_path: Path) -> None:
    file = nli(tmp_path / "set", "train.jsonl", 6)
    with pytest.raises(UserError, match=r"data.source\[0\] \(.*set\): it has no labelled test rows"):
        mixed([{"source": str(file.parent), "split": "test"}])
    with pytest.raises(UserError, match="one file is one split"):
        mixed([{"source": str(file), "split": ["train", "test"]}])
    with pytest.raises(UserError, match="there is no such file"):
        mixed([{"source": str(tmp_path / "none.jsonl")}])


def test_splits_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    file = nli(tmp_path / "set", "train.jsonl", 6)
    (file.parent / "test.jsonl").write_text('{"premise": "", "hypothesis": "x", "label": "e"}\n')
    assert len(mixed([str(file.parent)]).need("train")) == 6


def test_columns_of_a_source_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("left,right,verdict\n" + "".join(f"l{i},r{i},{'enc'[i % 3]}\n" for i in range(6)))
    given = {"source": str(tmp_path / "a.csv"), "text": ["right", "left"], "label": "verdict"}
    train = mixed([given, str(nli(tmp_path, "b.jsonl", 3))]).need("train")
    assert train.texts[0] == ("r0", "l0")
    assert len(train) == 9


def test_files_by_split_reach_the_data_from_the_command_line(tmp_path: Path) -> None:
    train, test = nli(tmp_path, "a.jsonl", 9), nli(tmp_path, "b.jsonl", 6)
    given = parse([f"data.source={{train: {train}, test: {test}}}"])
    config = configure("ce", task="snli", settings=given)
    splits = load_splits("snli", **config.data.where())
    assert (len(splits.need("train")), len(splits.need("test"))) == (8, 6)


def test_a_mixture_comes_back_from_the_configuration_that_a_run_writes(tmp_path: Path) -> None:
    source = [
        {"source": str(nli(tmp_path, "a.jsonl", 12)), "weight": 2.5},
        {"source": str(nli(tmp_path, "b.jsonl", 6))},
    ]
    config = configure("ce", task="snli", settings={"data.source": source})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    again = configure(file=tmp_path / "config.yaml")
    assert again == config
    assert again.data.source == source


@pytest.mark.parametrize("name", ["scal", "freelb", "infobert"])
@pytest.mark.parametrize(
    ("example", "trained"),
    [("anli", ["snli", "mnli", "fever-nli", "anli_a1", "anli_a2", "anli_a3"]), ("anli-unseen", ["snli", "mnli"])],
)
def test_the_examples_of_anli_are_tables_7_and_8_for_every_row(name: str, example: str, trained: list[str]) -> None:
    """SCAL 4.6, the two settings of InfoBERT, neither of which shows a row more than once in an epoch."""
    config = configure(name, file=ROOT / "examples" / f"{example}.yaml")
    assert isinstance(config.data.source, dict)
    assert config.data.source["train"] == [{"task": task} for task in trained]
    assert config.task == config.data.source["test"]["task"] == config.data.source["validation"]["task"] == "anli"
    expected = configure(name, task="anli", paper=True)
    # Of fewer rows a third of the training is over earlier.
    later = {"eval_delay": 20_000} if example == "anli-unseen" else {}
    assert config.train.arguments == expected.train.arguments | later
    assert config == expected.model_copy(update={"data": config.data, "train": config.train})
    large = configure(name, file=ROOT / "examples" / f"{example}.yaml", settings={"model.name": BERT_LARGE})
    assert (large.model.name, large.train) == (BERT_LARGE, config.train)


@needs_shared
def test_the_shared_sets_mix() -> None:
    sources = [
        {"source": SHARED / "snli", "split": ["validation", "test"]},
        {"source": SHARED / "sick" / "train.parquet", "weight": 2},
    ]
    rounds = [SHARED / f"anli_a{i}" for i in (1, 2, 3)]
    splits = load_splits("anli", {"train": sources, "validation": rounds, "test": rounds})
    train = splits.need("train")
    assert len(train) == 9842 + 9824 + 4500
    assert sum(train.repeats or ()) == 9842 + 9824 + 9000
    assert Counter(train.labels or ())[0] == 3329 + 3368 + 1299
    assert len(splits.need("validation")) == len(splits.need("test")) == 3200
