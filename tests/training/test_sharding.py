"""Weights split over two processes by FSDP2: the same gradients, checkpoints and weights as whole copies."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from reference.draws import Still
from reference.driving import make, needed, ready
from reference.ranks import environment, free_port, run_ranks
from reference.tiny import LABELS, random_batch, rows, take, with_pairs
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from contraverse.errors import UserError
from contraverse.evaluation import TaskEvaluator
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.training import Trainer, step
from contraverse.training.sharding import shard, sharding_settings

NAMES = [name for name, method in METHODS.items() if method.modality != "images" and not method().needs_reference_model]
ADAPTED = "simcse by lora"


def start(folder: Path, method: Any, **settings: Any) -> TextModel:
    torch.manual_seed(0)
    labels = LABELS if method.requires == "labels" else None
    model = TextModel.from_pretrained(folder, labels=labels, max_length=32, **settings)
    model.add_heads(method.heads)
    if method.trainable == "classifier":
        model.freeze_encoder()
    return model.eval()


def differing_gradients(number: int, folder: Path, name: str) -> dict[str, Any]:
    """Weights whose gradient is not the mean of both processes' on whole copies: this process has half of the rows."""
    settings: dict[str, Any] = {"peft": "lora"} if name == ADAPTED else {}
    method = make(name.split()[0])
    model = start(folder, method, **settings)
    plain, same = copy.deepcopy(model), copy.deepcopy(method)
    batch = take(needed(method, with_pairs(random_batch(8))), slice(4 * number, 4 * number + 4))
    ready(same, plain)
    with Still():
        step(same, plain, batch, backward=lambda loss: loss.backward())
    shard(model)
    with Still():
        step(method, model, batch, backward=lambda loss: loss.backward())
    differences = {}
    own = dict(model.named_parameters())
    for key, parameter in plain.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        dist.all_reduce(expected)
        split = own[key].grad
        assert split is None or isinstance(split, DTensor)
        actual = torch.zeros_like(expected) if split is None else split.full_tensor()
        # The keys' biases of attention have no effect: their gradient is rounding.
        if not torch.allclose(actual, expected / 2, rtol=1e-3, atol=1e-5):
            differences[key] = float((actual - expected / 2).abs().max())
    return differences


def train(folder: Path, output: Path, fsdp: bool, steps: int = 4, resume: bool = False) -> Trainer:
    torch.manual_seed(0)
    model = TextModel.from_pretrained(folder, labels=LABELS, max_length=32)
    evaluator = TaskEvaluator(rows(9), ("accuracy",), 4)
    trainer = Trainer(
        model, METHODS["scal"](), rows(16), output_dir=output, fsdp=fsdp, max_steps=steps, save_steps=2, eval_steps=2,
        save_strategy="steps", eval_strategy="steps", evaluators={"dev": evaluator}, report_to="none",
        per_device_train_batch_size=2, learning_rate=1e-3, use_cpu=True, disable_tqdm=True, logging_steps=1,
        load_best_model_at_end=True, metric_for_best_model="accuracy", warmup_steps=0, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    assert not any(isinstance(value, DTensor) for value in model.state_dict().values())
    return trainer


def _on_a_rank(number: int, out: Path, folder: Path, port: int) -> None:
    environment(number, port)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    result: dict[str, Any] = {name: differing_gradients(number, folder, name) for name in [*NAMES, ADAPTED]}
    copies = train(folder, out / "copies", fsdp=False)
    split = train(folder, out / "split", fsdp=True)
    own, other = copies.model.state_dict(), split.model.state_dict()
    result["trained"] = {key: float((own[key] - other[key]).abs().max()) for key in own}
    result["metrics"] = [[row.get("eval_accuracy") for row in t.state.log_history] for t in (copies, split)]
    train(folder, out / "resumed", fsdp=True, steps=2)
    resumed = train(folder, out / "resumed", fsdp=True, resume=True).model.state_dict()
    result["resumed"] = [key for key in other if not torch.equal(other[key], resumed[key])]
    (out / f"{number}.json").write_text(json.dumps(result))


@pytest.mark.ddp
def test_split_weights_are_those_of_whole_copies(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Every method's gradients, a run with evaluations, its best checkpoint, and the run that was resumed."""
    run_ranks(_on_a_rank, tmp_path, tiny_folder("bert", 0.0), free_port(), timeout=600)
    for number in range(2):
        result = json.loads((tmp_path / f"{number}.json").read_text())
        assert {name: result[name] for name in [*NAMES, ADAPTED]} == {name: {} for name in [*NAMES, ADAPTED]}
        # Adam divides a gradient by its size, also one that is rounding alone: attention's keys need no bias.
        assert max(value for key, value in result["trained"].items() if "key.bias" not in key) < 1e-4
        assert result["metrics"][0] == result["metrics"][1]
        assert any(value is not None for value in result["metrics"][0])
        assert result["resumed"] == []
    whole = load_file(tmp_path / "split" / "checkpoint-4" / "model.safetensors")
    assert {key: value.shape for key, value in whole.items()} == {
        key: value.shape for key, value in load_file(tmp_path / "copies" / "checkpoint-4" / "model.safetensors").items()
    }


@pytest.mark.parametrize(
    ("asked", "config", "words"),
    [
        ("offload", None, "no way to split weights"),
        (True, {"cpu_offload": True}, "cpu_offload=True is not supported"),
        (True, {"version": 1}, "version=1 is not supported"),
        (None, {"version": 2}, "beside train.fsdp=true alone"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused(asked: Any, config: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        sharding_settings(asked, config)


def test_one_process_and_what_cannot_be_split_is_refused_at_the_start(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TextModel.from_pretrained(tiny_folder("bert"), labels=LABELS)
    settings: dict[str, Any] = {"output_dir": tmp_path, "use_cpu": True, "fsdp": True, "report_to": "none"}
    with pytest.raises(UserError, match=r"there is one process[\s\S]*torchrun"):
        Trainer(model, METHODS["ce"](), rows(), **settings)
    monkeypatch.setattr("contraverse.training.sharding.processes", lambda: 2)
    with pytest.raises(UserError, match="dynacl keeps a second copy"):
        Trainer(model, METHODS["dynacl"](), rows(), **settings)
    with pytest.raises(UserError, match="takes norms of whole weights"):
        Trainer(model, METHODS["ce"](), rows(), optimizer={"name": "lars"}, **settings)
