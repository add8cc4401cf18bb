"""Evaluation by two processes: each computes half of the batches, and gets what one process gets, to the last bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.images import tiny
from reference.ranks import run_ranks
from reference.tiny import LABELS, rows, sentences

from contraverse.data import ImageData
from contraverse.evaluation import (
    NoiseSettings,
    evaluate,
    noise_robustness,
    predict,
    representation_shift,
    robust_accuracy,
)
from contraverse.evaluation.images import (
    auto_attack,
    corruption_accuracy,
    find_clusters,
    linear_separability,
    unforeseen_accuracy,
)
from contraverse.evasion import ModelTarget, Suite, evade_suite
from contraverse.functional import rank, sharers, sharing
from contraverse.models import AnyModel, ImageModel, TextModel

ATTACK: dict[str, Any] = {"attack": "apgd", "steps": 2, "restarts": 2, "random_start": True, "batch_size": 4}


def pixels(count: int, seed: int = 0, side: int = 8) -> ImageData:
    random = np.random.default_rng(seed)
    return ImageData.from_arrays(
        random.integers(0, 256, (count, 3, side, side), dtype=np.uint8), np.arange(count) % 3, ("cat", "dog", "ship")
    )


def text_model(folder: Path) -> TextModel:
    torch.manual_seed(1)
    return TextModel.from_pretrained(folder, labels=LABELS, max_length=32).eval()


class Counted:
    """Rows that pass through a model, and rows that ``progress`` is told of."""

    def __init__(self, model: AnyModel) -> None:
        self.rows = self.told = 0
        model.register_forward_hook(self._hook)

    def _hook(self, module: Any, args: Any, out: Any) -> None:
        self.rows += len(next(iter(args[0].values())))

    def progress(self, rows: int) -> None:
        self.told += rows


def measured(folder: Path) -> dict[str, Any]:
    model, data = text_model(folder), rows(19)
    counted = Counted(model)
    logits = predict(model, data, 4, progress=counted.progress)
    found: dict[str, Any] = {"logits": logits, "half": counted.rows, "predicted": counted.told}
    counted.told = 0
    report = robust_accuracy(model, data, [0.3, 1.0], diagnostics=8, progress=counted.progress, **ATTACK)
    found |= {"robust": report.to_dict(), "told": counted.told, "correct": [at.correct for at in report.at.values()]}
    counted.told = 0
    shift = representation_shift(model, data, [0.3], progress=counted.progress, **ATTACK)
    found |= {"shift": [shift.at[0.3].cosine, shift.at[0.3].euclidean], "shift told": counted.told}
    counted.told = 0
    noise = NoiseSettings(("keyboard", "leet"), (2, 5), draws=2)
    found["noise"] = noise_robustness(model, data, noise, batch_size=4, progress=counted.progress).to_dict()
    found["noise told"] = counted.told
    found["metrics"] = evaluate(model, data, metrics=("accuracy", "macro_f1", "mcc"), batch_size=4)
    found["encoded"] = model.encode(sentences(11), batch_size=4)
    # One batch: a process has nothing to do.
    found["few"] = predict(model, rows(3), 4)
    found |= {"few robust": robust_accuracy(model, rows(3), [1.0], **ATTACK).to_dict()}
    images: ImageModel = tiny()
    found["images"] = robust_accuracy(images, pixels(10), [0.01], norm="linf", **ATTACK).to_dict()
    found["corrupted"] = corruption_accuracy(
        images, pixels(5, side=32), corruptions=("gaussian_noise", "contrast", "fog"), severities=(1, 5), batch_size=3
    ).to_dict()
    unforeseen = unforeseen_accuracy(images, pixels(7), {"l2": [400.0]}, steps=2, batch_size=3)
    found["unforeseen"] = unforeseen.to_dict()
    state = folder.parent / f"{rank()}-{sharers()}.json"
    auto = auto_attack(images, pixels(11), 0.02, attacks=("apgd-ce", "square"), queries=20, batch_size=3, state=state)
    found["auto"] = [auto.to_dict() | {"seconds": 0}, auto.correct]
    evasion = evade_suite(ModelTarget(model, "gradients", 4), rows(9), Suite("edits", (1, 2), diagnostics=False))
    found["evasion"] = [report.to_dict() | {"seconds": 0} for report in evasion.values()]
    probed = linear_separability(images, pixels(14), pixels(9, 1), batch_size=4)
    found["probe"] = [*probed.to_dict().values(), probed.classifier.weight]
    found["clusters"] = find_clusters(images, pixels(14), 3, batch_size=4)
    return found


def _on_a_rank(number: int, out: Path, folder: Path) -> None:
    apart = measured(folder) if number == 1 else None  # outside of sharing, each by itself: the other does not wait
    with sharing():
        torch.save((measured(folder), apart), out / f"{number}.pt")


@pytest.mark.ddp
def test_two_processes_measure_what_one_does(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_folder("bert", 0.1)
    run_ranks(_on_a_rank, tmp_path, folder, timeout=600)
    ranks = [torch.load(tmp_path / f"{number}.pt", weights_only=False) for number in range(2)]
    one = measured(folder)
    assert one["half"] == 19
    assert sorted(shared["half"] for shared, _ in ranks) == [8, 11]
    for found in (ranks[0][0], ranks[1][0], ranks[1][1]):
        for name in one.keys() - {"half"}:
            assert _same(found[name], one[name]), name


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(_same(a, b) for a, b in zip(found, expected, strict=True))
    if isinstance(expected, np.ndarray | torch.Tensor):
        return np.array_equal(np.asarray(found), np.asarray(expected))
    return bool(found == expected)
