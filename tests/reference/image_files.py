"""Image data sets as their original files have them, written byte by byte; and what runs on them share."""

import gzip
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(7).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)


class _Python2(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes bytes as Python 2 wrote its strings, which is what CIFAR's files hold."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value: Any) -> bytes:
    out = io.BytesIO()
    _Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def planar(pixels: np.ndarray) -> np.ndarray:
    """(N, 3072): all of red, then green, then blue, row by row."""
    return np.stack([np.concatenate([one[:, :, c].reshape(-1) for c in range(3)]) for one in pixels])


def idx(array: np.ndarray, packed: bool = False) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(struct.pack(">I", n) for n in array.shape)
    data = head + array.astype(np.uint8).tobytes()
    return gzip.compress(data) if packed else data


def encoded(pixels: np.ndarray, kind: str = "PNG", **settings: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **settings)
    return out.getvalue()


def write_folder(folder: Path, classes: dict[str, int], start: int = 0, side: int = 8) -> None:
    """``{"cat": 3}``: three images ``cat/0.png``, ... of ``side`` pixels, taken from `PIXELS` in turn."""
    i = start
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for k in range(count):
            (folder / name / f"{k}.png").write_bytes(encoded(PIXELS[i, :side, :side]))
            i += 1


FEW = (
    "--set", "train.num_train_epochs=1", "--set", "train.per_device_train_batch_size=8",
    "--set", "evaluation.steps=2", "--set", "train.disable_tqdm=true",
    "--set", "train.report_to=none", "--set", "train.logging_steps=1",
)  # fmt: skip
"""Options of ``contraverse train`` for a run of a moment."""


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
