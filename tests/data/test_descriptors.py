"""Files that a shell hands over as open descriptors: ``--data <(zcat rows.gz)``."""

import bz2
import gzip
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from contraverse.data import TextData, load_splits
from contraverse.errors import UserError

FRAME = pd.DataFrame({"text": [f"text {i}" for i in range(40)], "label": ["a", "b"] * 20})


def parquet() -> bytes:
    buffer = io.BytesIO()
    FRAME.to_parquet(buffer)
    return buffer.getvalue()


@contextmanager
def descriptor(data: bytes) -> Iterator[str]:
    """The path of a pipe into which ``data`` is written, as bash makes of ``<(...)``."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield f"/dev/fd/{reading}"
    finally:
        thread.join()
        os.close(reading)


CSV = FRAME.to_csv(index=False).encode()


@pytest.mark.parametrize(
    "data",
    [
        CSV,
        FRAME.to_csv(index=False, sep="\t").encode(),
        FRAME.to_csv(index=False, sep=";").encode(),
        FRAME.to_json(orient="records", lines=True).encode(),
        json.dumps(FRAME.to_dict("records"), indent=1).encode(),
        parquet(),
        gzip.compress(CSV),
        bz2.compress(CSV),
    ],
    ids=["csv", "tsv", "semicolons", "jsonl", "json", "parquet", "gz", "bz2"],
)
def test_its_kind_is_told_by_its_first_bytes(data: bytes) -> None:
    with descriptor(data) as path:
        train = load_splits("text", path, validation_fraction=0).need("train")
    assert train.texts == [(text,) for text in FRAME["text"]]
    assert train.labels == [0, 1] * 20


def test_bad_rows_name_it() -> None:
    with (
        descriptor(b"text,label\na,x\n,y\n") as path,
        pytest.raises(UserError, match=f"{path}, line 3: 'text' is empty"),
    ):
        TextData.from_csv(path)
    with descriptor(b"") as path, pytest.raises(UserError, match="is empty"):
        TextData.from_csv(path)


def test_a_pipe_that_lies_in_a_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(UserError, match="pipe, a device"):
        load_splits("text", tmp_path / "rows.csv")
