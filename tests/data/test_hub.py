import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from contraverse.data import load_splits
from contraverse.data.files import is_hub_id
from contraverse.errors import UserError

Splits = dict[str, dict[str, list[Any]]]
Asked = list[tuple[Any, ...]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """``hub(splits)``: a Hub whose every data set holds these columns; gives the list of what was asked of it."""

    def serve(splits: Splits, classes: list[str] | None = None, error: Exception | None = None) -> Asked:
        asked: Asked = []

        def load_dataset(*arguments: Any) -> datasets.DatasetDict:
            asked.append(arguments)
            if error:
                raise error
            made = datasets.DatasetDict({name: datasets.Dataset.from_dict(rows) for name, rows in splits.items()})
            return made.cast_column("label", datasets.ClassLabel(names=classes)) if classes else made

        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def rows(labels: list[Any], column: str = "sentence") -> dict[str, list[Any]]:
    return {
        column: [f"{column} {i} of {len(labels)}" for i in range(len(labels))],
        "label": labels,
        "idx": list(range(len(labels))),
    }


def test_the_tasks_own_set_with_hidden_test_labels(hub: Callable[..., Asked]) -> None:
    asked = hub(
        {"test": rows([-1] * 5), "train": rows([0, 1] * 10), "validation": rows([1, 0, 1])}, ["negative", "positive"]
    )
    splits = load_splits("sst2", None)
    assert asked == [("nyu-mll/glue", "sst2")]
    assert splits.need("train").labels == [0, 1] * 10
    assert splits.need("validation").labels == [1, 0, 1]
    assert splits.need("train").columns == ("text",)
    assert splits.test is None
    assert "nyu-mll/glue:sst2 test: has no labels, so it is not used as a test split" in splits.notes


def test_class_names_of_the_source_are_matched_and_not_its_numbers(hub: Callable[..., Asked]) -> None:
    names = ["ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"]
    hub({"train": rows([0, 1, 2, 3, 4, 5], "text")}, names)
    train = load_splits("trec", "someone/trec", validation_fraction=0).need("train")
    assert train.labels == [0, 2, 1, 3, 4, 5]
    assert train.label_names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")


def test_numbers_stand_where_the_source_has_other_names(hub: Callable[..., Asked]) -> None:
    hub({"train": rows([0, 1, 1], "text")}, ["neg", "pos"])
    assert load_splits("sst2", "stanfordnlp/imdb", validation_fraction=0).need("train").labels == [0, 1, 1]
    assert load_splits("text", "stanfordnlp/imdb", validation_fraction=0).need("train").label_names == ("neg", "pos")


def test_mnli_takes_its_own_validation_split(hub: Callable[..., Asked]) -> None:
    def pairs(count: int) -> dict[str, list[Any]]:
        return {
            "premise": ["p"] * count,
            "hypothesis": [f"h {i}" for i in range(count)],
            "label": [i % 3 for i in range(count)],
        }

    sizes = {"train": 9, "validation_matched": 3, "validation_mismatched": 4, "test_matched": 5, "test_mismatched": 6}
    hub({name: pairs(size) for name, size in sizes.items()})
    for task, validation, test in (("mnli", 3, 5), ("mnli-mm", 4, 6)):
        splits = load_splits(task, None)
        assert (len(splits.need("validation")), len(splits.need("test"))) == (validation, test)


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("nyu-mll/glue", ("nyu-mll/glue", "sst2")),
        ("nyu-mll/glue:cola", ("nyu-mll/glue", "cola")),
        ("imdb", ("imdb", None)),
        ("owner/set:part", ("owner/set", "part")),
    ],
)
def test_a_configuration_follows_a_colon(hub: Callable[..., Asked], source: str, asked: tuple[str, str | None]) -> None:
    seen = hub({"train": rows([0, 1] * 5)})
    load_splits("sst2", source)
    assert seen == [asked]


def test_what_is_a_hub_id() -> None:
    assert all(map(is_hub_id, ("imdb", "nyu-mll/glue", "a.b/c_d-e", "a/b:c")))
    assert not any(map(is_hub_id, ("a/b/c", "/a/b", "a b", "", "a/", "C:\\data", "~/data")))


def test_bad_rows_of_the_hub_are_named_by_row(hub: Callable[..., Asked]) -> None:
    hub({"train": {"text": ["a", "", "b"], "label": [0, 1, 1]}})
    with pytest.raises(UserError, match=r"someone/set train, row 2: 'text' is empty"):
        load_splits("text", "someone/set")


def test_a_set_of_one_split_and_one_of_strange_splits(hub: Callable[..., Asked]) -> None:
    hub({"everything": rows([0, 1] * 5)})
    assert len(load_splits("sst2", "a/b", validation_fraction=0).need("train")) == 10
    hub({"one": rows([0, 1]), "two": rows([0, 1])})
    with pytest.raises(UserError, match="no split is called train, validation or test: one, two"):
        load_splits("sst2", "a/b")


ANSWER: Any = SimpleNamespace(request=None, headers={}, status_code=404)


@pytest.mark.parametrize(
    ("error", "says", "way_out"),
    [
        (
            lambda: RepositoryNotFoundError("404", response=ANSWER),
            "there is no such data set on the Hub",
            "--data",
        ),
        (lambda: ConnectionError("Couldn't reach 'a/b'"), "cannot be loaded.*Couldn't reach", "--data"),
        (lambda: ValueError("Config name is missing. Please pick one"), "Config name is missing", "a/b:CONFIGURATION"),
        (lambda: RuntimeError("Dataset scripts are no longer supported"), "no longer supported", "--data"),
    ],
)
def test_every_failure_is_one_error_with_the_way_out(
    hub: Callable[..., Asked], error: Callable[[], Exception], says: str, way_out: str
) -> None:
    hub({}, error=error())
    with pytest.raises(UserError, match=says) as raised:
        load_splits("text", "a/b")
    assert str(raised.value).startswith("a/b: ")
    assert way_out in str(raised.value)


def test_offline_the_cache_is_used_without_a_question(
    hub: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OfflineModeIsEnabled("offline")

    hub({"train": rows([0, 1] * 5)})
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    assert load_splits("sst2", None).train is not None


def test_a_task_without_a_set_of_its_own_asks_for_data() -> None:
    with pytest.raises(UserError, match="task 'text' has no data set of its own") as error:
        load_splits("text", None)
    assert "--data" in str(error.value)


def test_a_hub_that_does_not_answer_fails_in_seconds() -> None:
    code = """
import time
from contraverse.data import load_splits
from contraverse.errors import UserError
start = time.monotonic()
try:
    load_splits("mrpc", None)
except UserError as error:
    print(time.monotonic() - start, error)
"""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    start = time.monotonic()
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert float(out.split()[0]) < 15, time.monotonic() - start
    assert "nyu-mll/glue:mrpc: the Hub's data set cannot be loaded" in out
    assert "--data" in out
