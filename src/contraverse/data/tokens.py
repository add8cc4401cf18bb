"""Token ids of many rows, in arrays of four bytes a token: in memory, or in an Arrow file that processes share."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from contraverse.errors import UserError
from contraverse.writing import explain, whole_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AUTO, NONE = "auto", "none"
"""Values of `data.cache` beside a folder: the usual folder, and no file."""
CHUNK = 512
"""Rows that are tokenized at once: a tokenizer takes about 25 KB for a row of 256 tokens until it is copied."""
CACHED_ROWS = 50_000
"""Rows from which on tokens are kept in a file."""
VIEWS = ("", "positive_", "negative_")
_VERSION = "1"

Row = list[dict[str, list[int]]]
"""Ids of one row by their names, one table for each sentence that is encoded apart."""


def encode_texts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[Sequence[str]], max_length: int
) -> list[dict[str, list[list[int]]]]:
    """Token ids, and type ids where the model takes them, of each row, not padded, by their names.

    A list of one such table for sentences and pairs, and of three for triplets, whose sentences are encoded apart.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: one or more rows of as many texts.
        max_length: tokens at which a row is cut.
    """
    columns = [[row[i] for row in texts] for i in range(len(texts[0]))]
    types = "token_type_ids" in tokenizer.model_input_names
    names = ("input_ids", "token_type_ids") if types else ("input_ids",)
    views = []
    for together in [[column] for column in columns] if len(columns) == 3 else [columns]:
        tokens = tokenizer(
            *together,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=types,
            verbose=False,
        )
        views.append({name: tokens[name] for name in names})
    return views


class _View(NamedTuple):
    """One sentence of each row of a chunk: row i has ``ids[name][offsets[i]:offsets[i + 1]]``."""

    offsets: np.ndarray  # (rows + 1,) int32
    ids: dict[str, np.ndarray]  # int32 each


Chunk = list[_View]


class Tokens:
    """Token ids of rows, in chunks of `CHUNK`; of a file, the arrays are views of the mapped file.

    A copy in another process opens the file again.
    """

    def __init__(self, chunks: Sequence[Chunk], path: Path | None = None) -> None:
        self._chunks, self.path = chunks, path

    def __getitem__(self, row: int) -> Row:
        number, place = divmod(row, CHUNK)
        return [
            {name: ids[view.offsets[place] : view.offsets[place + 1]].tolist() for name, ids in view.ids.items()}
            for view in self._chunks[number]
        ]

    def __len__(self) -> int:
        return sum(len(chunk[0].offsets) - 1 for chunk in self._chunks)

    def lengths(self) -> np.ndarray:
        """(rows,) int64 tokens of each row, all its sentences together."""
        counts = [sum(np.diff(view.offsets).astype(np.int64) for view in chunk) for chunk in self._chunks]
        return np.concatenate(counts) if counts else np.empty(0, dtype=np.int64)

    def __reduce__(self) -> Any:
        return (Tokens, (self._chunks,)) if self.path is None else (_open, (self.path,))


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[Sequence[str]], max_length: int, cache: str | None = AUTO
) -> Tokens:
    """Tokens of ``texts``, as `encode_texts` makes them.

    Of `CACHED_ROWS` rows and more they are kept in a file of the folder ``cache``, whose name is a digest of the texts,
    the tokenizer and ``max_length``. The first process that needs it writes it, others wait, and all map it into
    memory; later runs find it. Tokenizers in Python alone have no digest, and their tokens stay in memory.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: rows of as many texts.
        max_length: tokens at which a row is cut.
        cache: a folder; ``auto`` for the usual one (`cache_folder`); ``none`` to keep tokens in memory.

    Raises:
        UserError: the folder that is named cannot be written to. In the usual one, tokens stay in memory then.
    """
    chunks = _encode(tokenizer, texts, max_length)
    if cache == NONE or len(texts) < CACHED_ROWS or (known := _tokenizer_digest(tokenizer)) is None:
        return Tokens(list(chunks))
    folder = cache_folder() if cache in (None, AUTO) else Path(str(cache)).expanduser()
    path = folder / f"{_digest(texts, known, max_length)}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            tokens = _opened(path, len(texts))
            if tokens is None:
                _write(path, chunks)
                tokens = _open(path)
        return tokens
    except OSError as error:
        if cache in (None, AUTO):
            return Tokens(list(_encode(tokenizer, texts, max_length)))
        fault = explain(error, path)
        raise fault or UserError(f"cannot be used: {error.strerror}", where=f"data.cache: {folder}") from error


def cache_folder() -> Path:
    """Folder of the files: ``contraverse/tokens`` in ``HF_HOME``, which is ``~/.cache/huggingface`` by default."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "contraverse" / "tokens"


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[Sequence[str]], max_length: int) -> Iterator[Chunk]:
    for first in range(0, len(texts), CHUNK):
        yield [_compact(view) for view in encode_texts(tokenizer, texts[first : first + CHUNK], max_length)]


def _compact(view: dict[str, list[list[int]]]) -> _View:
    rows = view["input_ids"]
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    ids = {
        name: np.fromiter(chain.from_iterable(column), dtype=np.int32, count=offsets[-1])
        for name, column in view.items()
    }
    return _View(offsets, ids)


def _tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Digest of all that decides a tokenizer's output; None where that cannot be known."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    try:
        state = json.loads(backend.to_str())
    except Exception:  # a part in Python, which tokenizers cannot write down
        return None
    state |= {"truncation": None, "padding": None}  # of the last call
    import tokenizers
    import transformers

    settings = [
        _VERSION,
        type(tokenizer).__qualname__,
        transformers.__version__,
        tokenizers.__version__,
        tokenizer.model_input_names,
        tokenizer.truncation_side,
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        {name: value for name, value in tokenizer.init_kwargs.items() if isinstance(value, bool | int | str)},
    ]
    return hashlib.blake2b(json.dumps([settings, state], sort_keys=True).encode()).hexdigest()


def _digest(texts: Sequence[Sequence[str]], tokenizer: str, max_length: int) -> str:
    digest = hashlib.blake2b(f"{tokenizer} {max_length} {len(texts)}".encode(), digest_size=16)
    for row in texts:
        for text in row:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        digest.update(b"\n")
    return digest.hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file: one process at a time is inside."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # a file system without locks: each process writes, and the last file stays
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, chunks: Iterator[Chunk]) -> None:
    """Write the chunks as an Arrow stream of one record batch each, whole or not at all."""
    import pyarrow as pa

    writer = None
    with whole_file(path) as partial, partial.open("wb") as file:
        for chunk in chunks:
            columns = {
                prefix + name: pa.ListArray.from_arrays(pa.array(view.offsets), pa.array(ids))
                for prefix, view in zip(VIEWS, chunk, strict=False)
                for name, ids in view.ids.items()
            }
            batch = pa.record_batch(columns)
            writer = writer or pa.ipc.new_stream(file, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()


def _opened(path: Path, rows: int) -> Tokens | None:
    """The tokens in a file; None where there is none, or where it is damaged or has another number of rows."""
    import pyarrow as pa

    if not path.exists():
        return None
    try:
        tokens = _open(path)
    except (pa.ArrowException, OSError, KeyError):
        return None
    return tokens if len(tokens) == rows else None


def _open(path: Path) -> Tokens:
    import pyarrow as pa

    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        return Tokens([_mapped(batch) for batch in reader], path)


def _mapped(batch: Any) -> Chunk:
    """Arrays of one record batch, which are views of its buffers."""
    views = []
    for prefix in VIEWS:
        if prefix + "input_ids" in batch.schema.names:
            columns = {
                name: batch.column(prefix + name)
                for name in ("input_ids", "token_type_ids")
                if prefix + name in batch.schema.names
            }
            ids = {name: column.values.to_numpy(zero_copy_only=True) for name, column in columns.items()}
            views.append(_View(columns["input_ids"].offsets.to_numpy(zero_copy_only=True), ids))
    return views
