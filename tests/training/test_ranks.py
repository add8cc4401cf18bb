"""Two processes with the draws that they really make: apart in these, one in all that is decided."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.draws import _LIKE, _SIZED
from reference.ranks import environment, free_port, run_ranks
from reference.tiny import LABELS, rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from contraverse.data import ImageData
from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import ImageModel, TextModel
from contraverse.training import StopOnInterrupt, Trainer, read_metrics
from contraverse.training.ranks import batch_of_process, over_processes, rank_seed, refuse_split_weights
from contraverse.types import Method

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 1e-2, "logging_steps": 1, "seed": 7,
    "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True,
}  # fmt: skip
TEXTS = {"scal": {}, "uscal": {}, "freelb": {}, "carl": {"start": 1.0}, "mlm": {}, "smart": {}}
IMAGES = {"acl-ds": {"steps": 1}, "trades": {"steps": 1}, "selfie": {}}


class Draws(TorchDispatchMode):
    """Keeps what is drawn inside."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in _LIKE | _SIZED:
            drawn = out[1] if isinstance(out, tuple) else out
            if drawn.numel() > 3:
                self.kept.append(drawn.detach().float().clone())
        return out


def images(count: int = 16) -> ImageData:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = random.integers(0, 100, (count, 3, 8, 8)) + 60 * labels[:, None, None, None]
    return ImageData.from_arrays(pixels.astype(np.uint8), labels, ("dark", "light"))


def build(name: str, folder: Path, out: Path, method: Method | None = None, **settings: Any) -> Trainer:
    torch.manual_seed(1)
    method = method or METHODS[name](**(TEXTS | IMAGES).get(name, {}))
    if "RANK" in os.environ:
        settings = {"ddp_backend": "gloo", **settings}
    if name in TEXTS:
        # All rows as long as the batch: a row's draws can be compared with any other's.
        model: Any = TextModel.from_pretrained(folder, labels=LABELS, max_length=4)
        return Trainer(model, method, rows(16), output_dir=out, **{**SETTINGS, **settings})
    labels = ("dark", "light") if method.requires == "labels" else None
    model = ImageModel.from_pretrained("resnet8", labels=labels, dual=name == "acl-ds")
    return Trainer(model, method, images(), output_dir=out, **{**SETTINGS, **settings})


def _draws_of_two_steps(name: str, folder: Path, out: Path) -> dict[str, Any]:
    trainer = build(name, folder, out / name, max_steps=4 if name == "carl" else 2)
    with Draws() as draws:
        trainer.train()
    assert isinstance(trainer.model, torch.nn.Module)
    state = dict(trainer.model.named_parameters())
    return {"draws": draws.kept, "weights": {key: value.detach().clone() for key, value in state.items()}}


def _order(name: str, folder: Path, out: Path, **settings: Any) -> list[list[int]]:
    """The rows of each step of this process."""
    seen = []

    class Kept(METHODS["ce"]):  # type: ignore[misc, valid-type]
        def losses(self, model: Any, batch: Any) -> Iterator[Any]:
            seen.append(batch["index"].tolist())
            yield from super().losses(model, batch)

    build(name, folder, out / "order" / name, Kept(), num_train_epochs=2, **settings).train()
    return seen


class _Ends(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self.seen.append(metrics["eval_score"])


class _StopsAlone(TrainerCallback):
    """A user's own, that tells the first process alone to stop."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = args.process_index == 0 and state.global_step >= 4


def _statistics(model: Any) -> dict[str, float]:
    """A figure of batch norm's statistics, which a step leaves different on every process."""
    return {"score": float(model.encoder.layer3[0].bn2.running_mean.sum())}


def _stopped(folder: Path, out: Path, **settings: Any) -> dict[str, Any]:
    ends = _Ends()
    chosen = {"metric_for_best_model": "score", "greater_is_better": True, "load_best_model_at_end": True}
    every = {"num_train_epochs": 30, "eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1}
    callbacks = [ends, *settings.pop("callbacks", ())]
    trainer = build(
        "ce", folder, out, evaluators={"s": _statistics}, callbacks=callbacks, **{**chosen, **every, **settings}
    )
    trainer.train()
    state = trainer.state
    return {"seen": ends.seen, "step": state.global_step, "best": (state.best_global_step, state.best_metric)}


class _Press(TrainerCallback):
    """Ctrl-C, on one process alone."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGINT)


def _interrupted(folder: Path, out: Path) -> dict[str, Any]:
    stop = StopOnInterrupt()
    with stop:
        trainer = build("scal", folder, out, num_train_epochs=4, callbacks=[_Press(), stop], save_total_limit=1)
        trainer.train()
    again = build("scal", folder, out, num_train_epochs=4)
    again.train(resume_from_checkpoint=str(out / f"checkpoint-{trainer.state.global_step}"))
    whole = build("scal", folder, out / "whole", num_train_epochs=4)
    whole.train()
    states = [{k: v.clone() for k, v in t.model.state_dict().items()} for t in (again, whole)]  # type: ignore[union-attr]
    return {"interrupted": stop.interrupted, "step": trainer.state.global_step, "resumed": states}


def _on_a_rank(number: int, out: Path, folder: Path, port: int) -> None:
    environment(number, port)
    kept: dict[str, Any] = {name: _draws_of_two_steps(name, folder, out) for name in [*TEXTS, *IMAGES]}
    kept["order"] = {name: _order(name, folder, out) for name in ("scal", "trades")}
    kept["patience"] = _stopped(folder, out / "patience", early_stopping_patience=2)
    kept["alone"] = _stopped(folder, out / "alone", callbacks=[_StopsAlone()])
    kept["interrupted"] = _interrupted(folder, out / "interrupted")
    kept["synced"] = build("acl-ds", folder, out / "synced", sync_batch_norm=True, max_steps=1).model
    kept["synced"] = {type(part).__name__ for part in kept["synced"].modules() if "BatchNorm" in type(part).__name__}
    torch.save(kept, out / f"{number}.pt")


@pytest.fixture(scope="module")
def ranks(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """What two processes did, in one start of them; a process that waits for another ends the test."""
    out = tmp_path_factory.mktemp("ranks")
    run_ranks(_on_a_rank, out, tiny_folder("bert", 0.1), free_port(), timeout=900)
    return out, [torch.load(out / f"{number}.pt") for number in range(2)]


@pytest.mark.ddp
@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_every_process_and_every_step_draws_for_itself(ranks: tuple[Path, list[Any]], name: str) -> None:
    """Dropout, random starts, gamma, negatives, masks, views: the row beside, a negative, has draws of its own."""
    first, second = (rank[name]["draws"] for rank in ranks[1])
    assert len(first) == len(second) > 1
    alike = [a for a, b in zip(first, second, strict=True) if a.shape == b.shape and torch.equal(a, b)]
    assert not [drawn for drawn in alike if drawn.unique().numel() > 1]
    half = len(first) // 2  # the second step
    steps = [(a, b) for a, b in zip(first[:half], first[half:], strict=False) if a.unique().numel() > 1]
    assert not any(torch.equal(a, b) for a, b in steps)


@pytest.mark.ddp
@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_weights_are_the_same_on_every_process(ranks: tuple[Path, list[Any]], name: str) -> None:
    first, second = (rank[name]["weights"] for rank in ranks[1])
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.ddp
@pytest.mark.parametrize("name", ["scal", "trades"])
def test_rows_of_a_step_are_those_of_one_process(
    ranks: tuple[Path, list[Any]], name: str, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """With the whole batch: texts by length, images at random."""
    one = _order(name, tiny_folder("bert", 0.1), tmp_path, per_device_train_batch_size=8)
    joined = [a + b for a, b in zip(*(rank["order"][name] for rank in ranks[1]), strict=True)]
    assert joined == one


@pytest.mark.ddp
@pytest.mark.parametrize("case", ["patience", "alone"])
def test_all_stop_at_the_same_step(ranks: tuple[Path, list[Any]], case: str) -> None:
    first, second = (rank[case] for rank in ranks[1])
    assert first == second
    if case == "alone":
        assert first["step"] == 4
    else:
        assert first["step"] < 60
        assert first["best"][1] == max(first["seen"])


@pytest.mark.ddp
def test_an_interrupt_of_one_process_ends_all_at_the_same_step(ranks: tuple[Path, list[Any]]) -> None:
    first, second = (rank["interrupted"] for rank in ranks[1])
    assert first["interrupted"]
    assert second["interrupted"]
    assert first["step"] == second["step"] in (2, 3)
    for rank in (first, second):
        again, whole = rank["resumed"]
        assert all(torch.equal(value, whole[key]) for key, value in again.items())
    logs = [read_metrics(ranks[0] / "interrupted" / part / "metrics.jsonl") for part in ("", "whole")]
    assert logs[0] == logs[1]


@pytest.mark.ddp
def test_a_run_is_not_resumed_by_another_number(
    ranks: tuple[Path, list[Any]], tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = next((ranks[0] / "interrupted").glob("checkpoint-*"))
    with pytest.raises(UserError, match=r"written by 2 processes[\s\S]*torchrun --nproc-per-node 2"):
        build("scal", tiny_folder("bert", 0.1), tmp_path).train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.ddp
def test_batch_norm_is_synchronised_on_request(ranks: tuple[Path, list[Any]]) -> None:
    assert ranks[1][0]["synced"] == {"DualBatchNorm", "SyncedBatchNorm1d", "SyncedBatchNorm2d"}


def test_seeds_differ_by_process_and_by_seed() -> None:
    seeds = [rank_seed(seed, rank) for seed in range(20) for rank in range(20)]
    assert len(set(seeds)) == len(seeds)


def test_one_process_draws_by_its_seed(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """As ever: nothing is drawn or seeded in between."""
    folder = tiny_folder("bert", 0.1)
    build("scal", folder, tmp_path / "a")
    expected = torch.rand(3)
    states = []

    class Keep(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            states.append(torch.get_rng_state())

    build("scal", folder, tmp_path / "b", callbacks=[Keep()], max_steps=1).train()
    torch.set_rng_state(states[0])
    assert torch.equal(torch.rand(3), expected)


def test_a_batch_is_divided_by_processes_and_accumulation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch_of_process(512) == 512
    assert batch_of_process(512, 2) == 256
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert batch_of_process(512) == 64
    assert batch_of_process(512, 4) == 16
    with pytest.raises(UserError, match=r"batch of 100 rows .* 8 processes[\s\S]*multiple of 8"):
        batch_of_process(100)
    with pytest.raises(UserError, match=r"8 processes and 3 accumulated batches"):
        batch_of_process(512, 3)


def test_a_trainer_takes_one_size_of_a_batch(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_folder("bert", 0.1)
    with pytest.raises(UserError, match="as well as per_device"):
        build("scal", folder, tmp_path, global_batch_size=8)
    model = TextModel.from_pretrained(folder, labels=LABELS)
    settings = {key: value for key, value in SETTINGS.items() if "batch" not in key}
    trainer = Trainer(
        model, METHODS["ce"](), rows(16), output_dir=tmp_path, global_batch_size=8, gradient_accumulation_steps=2,
        **settings,
    )  # fmt: skip
    assert trainer.args.per_device_train_batch_size == 4


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_split_weights_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_split_weights()
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(UserError, match=r"cannot be used here[\s\S]*torchrun"):
        refuse_split_weights()


def test_parts_are_means_and_counts_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "contraverse.training.ranks.from_all",
        lambda mine: [mine, {"ce": (6.0, 2), "zero_grad_rows": (4.0, 2), "late": (1.0, 1)}],
    )
    whole = over_processes({"ce": (torch.tensor(2.0), 2), "zero_grad_rows": (torch.tensor(2), 2)}, {"zero_grad_rows"})
    assert whole == {"ce": 2.0, "zero_grad_rows": 3.0, "late": 1.0}
