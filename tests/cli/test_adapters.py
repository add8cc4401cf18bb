"""A run that trains adapters, and the commands on its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.models import TextModel

SMALL = ("--set", "train.num_train_epochs=1", "--set", "train.use_cpu=true", "--set", "evaluation.epsilons=[]")


def test_a_run_by_lora_from_start_to_finish(
    invoke: Any, tiny_folder: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    run, start = tmp_path / "run", tiny_folder("bert")
    train = ("train", "ce", "--task", "text", "--data", rows, "--model", start, *SMALL)
    shown = invoke(*train, "--set", "model.peft={type: lora, r: 4}", "--output", run)
    assert "lora on query, value: " in shown.output
    assert (run / "model" / "adapter" / "adapter_model.safetensors").is_file()
    invoke("evaluate", run / "model", "--data", rows, "--eps", "0.1", "--steps", "1")
    invoke("predict", run / "model", rows, "--output", tmp_path / "p.csv")
    invoke("encode", run / "model", rows, "--output", tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").shape == (20, 32)
    invoke("harden", run / "model", "--output", tmp_path / "hard")
    assert TextModel.load(tmp_path / "hard").labels == ["no", "yes"]


def test_a_target_that_is_not_there_is_an_error_before_training(
    invoke: Any, tiny_folder: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    train = ("train", "ce", "--task", "text", "--data", rows, "--model", tiny_folder("bert"), *SMALL)
    peft = "model.peft={type: lora, target_modules: [q_proj]}"
    shown = invoke(*train, "--set", peft, "--output", tmp_path / "run", "--dry-run", code=2)
    assert "no linear layer of the encoder is called 'q_proj'" in " ".join(shown.output.split())
