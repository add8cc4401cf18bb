"""Pipes, devices, paths that lead away, and metadata that is none."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from contraverse.data import load_images, load_splits
from contraverse.data.images.load import read_images
from contraverse.errors import UserError


def png(light: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), light, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name, light in (("dark", 10), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            (folder / name / f"{i}.png").write_bytes(png(light + i))
    return folder


def other(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(path.with_name("p"))
        path.symlink_to(path.with_name("p"))


KINDS = ["pipe", "device", "link to a pipe"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_a_bad_image(classes: Path, kind: str) -> None:
    other(kind, classes / "dark" / "x.png")
    with pytest.raises(UserError, match="pipe, a device"):
        load_images("images", classes, on_bad_row="error")
    with pytest.raises(UserError, match="pipe, a device"):
        read_images(str(classes))
    (classes / "dark" / "p").unlink(missing_ok=True)
    splits = load_images("images", classes, on_bad_row="skip")
    assert splits.skipped == 1
    assert len(splits.need("train")) + len(splits.need("validation")) == 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_what_is_no_file_is_no_source_of_images(tmp_path: Path, kind: str, name: str) -> None:
    other(kind, tmp_path / name)
    with pytest.raises(UserError, match="pipe, a device"):
        load_images("images", tmp_path / name)
    with pytest.raises(UserError, match="pipe, a device"):
        read_images(str(tmp_path / name))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.txt", "x.parquet", "x.csv.gz"])
def test_what_is_no_file_is_no_source_of_texts(tmp_path: Path, kind: str, name: str) -> None:
    other(kind, tmp_path / name)
    with pytest.raises(UserError, match="pipe, a device"):
        load_splits("text", tmp_path / name)


def table(folder: Path, paths: list[Any]) -> Path:
    rows = [{"bytes": None, "path": str(path)} for path in paths]
    columns = {"image": rows, "label": [i % 2 for i in range(len(rows))]}
    parquet.write_table(pa.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


def test_paths_in_the_folder_of_a_table_are_read(classes: Path) -> None:
    paths = [f"{name}/{i}.png" for i in range(6) for name in ("dark", "light")]
    paths[0] = str(classes / paths[0])
    paths[1] = f"dark/../{paths[1]}"
    train = load_images("images", table(classes, paths), validation_fraction=0).need("train")
    assert train.pixels[:, 0, 0, 0].tolist() == [light + i for i in range(6) for light in (10, 200)]


@pytest.mark.parametrize("how", ["absolute", "up", "link", "nul", "device"])
def test_paths_that_lead_out_of_the_folder_are_refused(classes: Path, tmp_path: Path, how: str) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(77))
    (classes / "link").symlink_to(tmp_path)
    path = {
        "absolute": str(secret),
        "up": "../secret.png",
        "link": "link/secret.png",
        "nul": "a\0b.png",
        "device": "/dev/zero",
    }[how]
    file = table(classes, ["dark/0.png", "light/0.png", path, "light/1.png"])
    for on_bad_row in ("error", "skip"):
        with pytest.raises(UserError, match=r"row 3: .*leads out of the folder"):
            load_images("images", file, on_bad_row=on_bad_row)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="leads out of the folder"):
        read_images(str(file))


def cifar(folder: Path, meta: Any, name: str = "batches.meta") -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for batch in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = {b"data": random.integers(0, 255, (4, 3072), dtype=np.uint8), b"labels": [0, 1, 2, 3]}
        (folder / batch).write_bytes(pickle.dumps(data))
    (folder / name).write_bytes(meta if isinstance(meta, bytes) else pickle.dumps(meta))
    return folder


BAD_NAMES = [5, b"\xff", "cat", [b"\xff", b"b"], [1, 2], [None], ["a", "a"], ["", "b"], {"a": {}}.values()]


@pytest.mark.parametrize("names", BAD_NAMES[:-1], ids=repr)
def test_metadata_without_names_is_refused(tmp_path: Path, names: Any) -> None:
    with pytest.raises(UserError, match=r"batches.meta: holds no class names"):
        load_images("cifar10", cifar(tmp_path / "c", {b"label_names": names}))


def test_binary_metadata_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    for batch in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (folder / batch).write_bytes(bytes(3073 * 2))
    (folder / "batches.meta.txt").write_bytes(b"\xff\xfe\ncat\n")
    with pytest.raises(UserError, match=r"batches.meta.txt: holds no class names"):
        load_images("cifar10", folder)


def test_names_as_text_or_bytes_are_read(tmp_path: Path) -> None:
    names = [f"class{i}" for i in range(10)]
    meta = {b"label_names": [name.encode() if i % 2 else name for i, name in enumerate(names)]}
    splits = load_images("images", cifar(tmp_path / "c", meta), validation_fraction=0)
    assert splits.need("train").label_names == tuple(names)
