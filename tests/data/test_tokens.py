"""Tokens of many rows: compact, kept in a file that processes share, and equal to those of one call."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from contraverse.data import Collator, EncodedText, TextData, load_splits, tokens
from contraverse.data.tables import Strings, Texts
from contraverse.data.tokens import NONE, Tokens, encode_texts, tokenize
from contraverse.errors import UserError
from tests.conftest import tiny_tokenizer

WORDS = "the man and so".split()


def rows(count: int, width: int) -> list[tuple[str, ...]]:
    return [tuple(" ".join(WORDS[: 1 + (i + j) % 4]) for j in range(width)) for i in range(count)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 3 rows, and files from 5 rows on."""
    monkeypatch.setattr(tokens, "CHUNK", 3)
    monkeypatch.setattr(tokens, "CACHED_ROWS", 5)


def plain(found: Tokens) -> list[object]:
    return [found[i] for i in range(len(found))]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("type_ids", [True, False])
@pytest.mark.parametrize("count", [5, 6, 10])
def test_chunks_in_memory_and_in_a_file_are_the_tokens_of_one_call(
    tmp_path: Path, width: int, type_ids: bool, count: int
) -> None:
    tokenizer, texts = tiny_tokenizer(type_ids=type_ids), rows(count, width)
    views = encode_texts(tokenizer, texts, 6)
    expected = [[{name: ids[i] for name, ids in view.items()} for view in views] for i in range(count)]
    in_memory, in_file = (tokenize(tokenizer, texts, 6, cache) for cache in (NONE, str(tmp_path)))
    assert plain(in_memory) == plain(in_file) == expected
    assert (in_memory.path is None, in_file.path is not None) == (True, True)
    assert in_file.lengths().tolist() == [sum(len(view["input_ids"]) for view in row) for row in expected]
    assert plain(pickle.loads(pickle.dumps(in_file))) == expected


@pytest.mark.usefixtures("small")
def test_batches_are_to_the_bit_those_of_lists(tmp_path: Path) -> None:
    tokenizer, texts = tiny_tokenizer(type_ids=True), rows(7, 2)
    encoded = EncodedText(TextData(texts, [0, 1] * 3 + [0], ("a", "b"), ("a", "b"), cache=str(tmp_path)), tokenizer, 9)
    (view,) = encode_texts(tokenizer, texts, 9)
    lists = [{name: ids[i] for name, ids in view.items()} | {"index": i, "label": i % 2} for i in range(7)]
    ours, theirs = encoded.collate([encoded[i] for i in range(7)]), Collator(tokenizer)(lists)
    assert {name: (value.dtype, value.tolist()) for name, value in ours.items()} == {
        name: (value.dtype, value.tolist()) for name, value in theirs.items()
    }


@pytest.mark.usefixtures("small")
def test_a_file_is_found_again_and_changes_with_all_that_decides_its_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, texts = tiny_tokenizer(type_ids=True), rows(6, 1)
    first = tokenize(tokenizer, texts, 6, str(tmp_path))
    others = [
        tokenize(tokenizer, texts, 5, str(tmp_path)).path,
        tokenize(tiny_tokenizer(type_ids=False), texts, 6, str(tmp_path)).path,
        tokenize(tokenizer, [*texts[:-1], ("so",)], 6, str(tmp_path)).path,
    ]
    assert len({first.path, *others}) == 4
    again = tiny_tokenizer(type_ids=True)
    again(["the man"], truncation=True, max_length=3)  # leaves its mark on the tokenizer, and decides nothing
    monkeypatch.setattr(tokens, "_encode", lambda *_: iter(()))  # none are needed
    assert plain(tokenize(again, texts, 6, str(tmp_path))) == plain(first)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_is_written_anew(tmp_path: Path, damage: str) -> None:
    tokenizer, texts = tiny_tokenizer(type_ids=True), rows(8, 1)
    first = tokenize(tokenizer, texts, 6, str(tmp_path))
    expected, path = plain(first), first.path
    assert path is not None
    content = path.read_bytes()
    del first
    path.unlink()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"no arrow at all"}[damage])
    assert plain(tokenize(tokenizer, texts, 6, str(tmp_path))) == expected
    assert path.read_bytes() == content
    assert not list(tmp_path.glob(".*.partial"))


def _in_process(folder: str, queue: "multiprocessing.Queue[tuple[int, int]]") -> None:
    tokens.CHUNK, tokens.CACHED_ROWS = 3, 5
    calls, encode = [0], tokens.encode_texts

    def counted(*args: object) -> object:
        calls[0] += 1
        return encode(*args)  # type: ignore[arg-type]

    tokens.encode_texts = counted  # type: ignore[assignment]
    result = tokenize(tiny_tokenizer(type_ids=True), rows(9, 1), 6, folder)
    queue.put((calls[0], len(result)))


def test_of_several_processes_one_tokenizes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    processes = [context.Process(target=_in_process, args=(str(tmp_path), queue)) for _ in range(3)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert results == [(0, 9), (0, 9), (3, 9)]


@pytest.mark.usefixtures("small")
def test_a_folder_that_cannot_be_written_is_refused_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    tokenizer, texts = tiny_tokenizer(type_ids=True), rows(6, 1)
    with pytest.raises(UserError):
        tokenize(tokenizer, texts, 6, str(blocked / "inside"))
    monkeypatch.setattr(tokens, "cache_folder", lambda: blocked / "inside")
    assert tokenize(tokenizer, texts, 6).path is None


def test_a_row_takes_less_than_eight_kilobytes() -> None:
    """Counted: text and ids of 256 tokens, against 65 KB as lists of Python's numbers."""
    data = TextData([(" ".join(WORDS * 64),)] * 100, None, None, ("text",), cache=NONE)
    encoded = EncodedText(data, tiny_tokenizer(type_ids=True), 256)
    assert encoded.lengths.tolist() == [256] * 100
    ids = sum(a.nbytes for chunk in encoded._tokens._chunks for v in chunk for a in (v.offsets, *v.ids.values()))
    assert (ids + len(pickle.dumps(data.texts))) / 100 < 8192 / 2


def test_the_folder_of_a_run_reaches_every_split_and_what_is_made_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)))
    splits = load_splits("text", file, cache="none")
    assert splits.train is not None
    assert splits.validation is not None
    assert {splits.train.cache, splits.validation.cache, splits.train.select([0, 1]).cache} == {"none"}


def test_strings_are_those_that_were_appended() -> None:
    values = ["", "a", "é\u2028", "\ud800 broken", "x" * 300]
    strings = Strings(values)
    assert list(strings) == [strings[i] for i in range(5)] == strings[:] == values
    assert strings[-1] == values[-1]
    assert strings[1:3] == values[1:3]
    with pytest.raises(IndexError):
        strings[5]


def test_texts_are_equal_to_a_list_of_tuples() -> None:
    listed = [("a", "b"), ("c", "")]
    texts = Texts(listed, 2)
    assert texts == listed
    assert listed == texts
    assert texts != listed[:1]
    assert (texts[1], texts[-1], texts[:1], texts + texts) == (listed[1], listed[1], listed[:1], listed + listed)
    assert repr(texts) == repr(listed)
    assert np.array_equal(TextData(listed * 2, None, None, ("a", "b")).contents[:2], [hash(row) for row in listed])
