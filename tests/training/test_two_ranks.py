"""Training on two ranks: the same rows a step give the same weights as one process, one log, one set of checkpoints."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.ranks import run_ranks
from reference.tiny import LABELS, rows

from contraverse.methods import METHODS
from contraverse.models import TextModel
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
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    weights = {name: train(folder, name, out / name, ddp_backend="gloo") for name in ("at", "scal")}
    # Mid-way in the second epoch, whose order of rows is not the first's.
    weights["resumed"] = train(folder, "scal", out / "scal", str(out / "scal" / "checkpoint-6"), ddp_backend="gloo")
    torch.save(weights, out / f"{number}.pt")


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_train_as_one_process_that_accumulates(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """T18. Three rows on each of two ranks, against three rows twice: adversarial training is a mean over rows."""
    folder = tiny_folder("bert", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_ranks(_on_a_rank, tmp_path, folder, port)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    for name in ("at", "scal"):
        assert all(torch.equal(value, second[name][key]) for key, value in first[name].items())
        steps = [row["step"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row]
        assert steps == list(range(1, 9))
        assert (tmp_path / name / "checkpoint-6" / "model.safetensors").is_file()
    for key, value in first["scal"].items():
        torch.testing.assert_close(first["resumed"][key], value, rtol=1e-5, atol=1e-6)
    one = train(folder, "at", tmp_path / "one", gradient_accumulation_steps=2)
    for key, value in first["at"].items():
        torch.testing.assert_close(value, one[key], rtol=1e-4, atol=1e-5)
    logs = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row]
        for name in ("at", "one")
    ]
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)
