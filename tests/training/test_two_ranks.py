"""Training on two ranks: the same rows a step give the same weights as one process, one log, one set of checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.ranks import environment, free_port, run_ranks
from reference.tiny import LABELS, rows

from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.noise import NoiseMixture
from contraverse.training import Trainer, read_metrics

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 3, "num_train_epochs": 2, "learning_rate": 1e-2, "logging_steps": 1, "seed": 7,
    "save_strategy": "steps", "save_steps": 6, "save_total_limit": None, "max_grad_norm": 0.0, "optim": "sgd",
    "lr_scheduler_type": "constant", "warmup_steps": 0, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
}  # fmt: skip


def train(folder: Path, name: str, out: Path, resume: str | None = None, **settings: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    model = TextModel.from_pretrained(folder, labels=LABELS, max_length=32)
    trainer = Trainer(model, METHODS[name](), rows(24), output_dir=out, **{**SETTINGS, **settings})
    trainer.train(resume_from_checkpoint=resume)
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def _on_a_rank(number: int, out: Path, folder: Path, port: int) -> None:
    environment(number, port)
    weights = {name: train(folder, name, out / name, ddp_backend="gloo") for name in ("at", "scal")}
    weights["chunks"] = train(folder, "scal", out / "chunks", ddp_backend="gloo", contrast_chunk=2)
    # Mid-way in the second epoch, whose order of rows is not the first's.
    weights["resumed"] = train(folder, "scal", out / "scal", str(out / "scal" / "checkpoint-6"), ddp_backend="gloo")
    torch.save(weights, out / f"{number}.pt")


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_train_as_one_process(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """T18. Three rows on each of two ranks, against six in one process, which are the same six: AT and SCAL."""
    folder = tiny_folder("bert", 0.0)
    run_ranks(_on_a_rank, tmp_path, folder, free_port())
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    for name in ("at", "scal"):
        assert all(torch.equal(value, second[name][key]) for key, value in first[name].items())
        steps = [row["step"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row]
        assert steps == list(range(1, 9))
        assert (tmp_path / name / "checkpoint-6" / "model.safetensors").is_file()
    for key, value in first["scal"].items():
        torch.testing.assert_close(first["resumed"][key], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(first["chunks"][key], value, rtol=1e-4, atol=1e-5)
    for name in ("at", "scal"):
        one = train(folder, name, tmp_path / "one" / name, per_device_train_batch_size=6)
        for key, value in first[name].items():
            torch.testing.assert_close(value, one[key], rtol=1e-4, atol=1e-5)
        two, alone = (
            [row for row in read_metrics(out / name / "metrics.jsonl") if "loss" in row]
            for out in (tmp_path, tmp_path / "one")
        )
        # The loss and every part of it, reduced alike.
        for row, expected in zip(two, alone, strict=True):
            assert row == pytest.approx(expected, rel=1e-3)


NOISE = NoiseMixture(["keyboard", "space-out", "append"], seed=1)


def _with_noise_on_a_rank(number: int, out: Path, folder: Path, port: int) -> None:
    environment(number, port)
    settings: dict[str, Any] = {"ddp_backend": "gloo", "noise": NOISE}
    weights = {name: train(folder, name, out / name, **settings) for name in ("ce", "scal", "consistency")}
    weights["resumed"] = train(folder, "scal", out / "scal", str(out / "scal" / "checkpoint-6"), **settings)
    torch.save(weights, out / f"{number}.pt")


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_see_the_noise_of_one_process(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """A row's draws do not depend on the process: in the place of the clean text, and as a second view."""
    folder = tiny_folder("bert", 0.0)
    run_ranks(_with_noise_on_a_rank, tmp_path, folder, free_port())
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    for key, value in first["scal"].items():
        torch.testing.assert_close(first["resumed"][key], value, rtol=1e-5, atol=1e-6)
    for name in ("ce", "scal", "consistency"):
        assert all(torch.equal(value, second[name][key]) for key, value in first[name].items())
        one = train(folder, name, tmp_path / "one" / name, per_device_train_batch_size=6, noise=NOISE)
        for key, value in first[name].items():
            torch.testing.assert_close(value, one[key], rtol=1e-4, atol=1e-5)
