"""The engine: Hugging Face's `Trainer`, whose training step drives a method."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback, is_tensorboard_available
from transformers.trainer_callback import PrinterCallback

from contraverse.data import Encoded, EncodedText, ImageData, LengthGroupedSampler, Rows, TextData
from contraverse.data.images import OneView, SimCLRAugment, TwoViews
from contraverse.errors import UserError
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.models.modes import without_autocast
from contraverse.training.callbacks import Progress
from contraverse.training.finite import WatchedTrainer
from contraverse.training.lars import build_optimizer
from contraverse.training.log import MetricsLog
from contraverse.training.schedules import build_schedule
from contraverse.training.step import step
from contraverse.types import Batch, Evaluator, Facts, Method
from contraverse.writing import sync

Views = OneView | TwoViews
METHOD_STATE = "method.safetensors"

DEFAULTS: dict[str, Any] = {
    "learning_rate": 3e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "per_device_train_batch_size": 32,
    "optim": "adamw_torch_fused",
    "train_sampling_strategy": "group_by_length",
    "save_total_limit": 2,
    "save_strategy": "epoch",
    "logging_steps": 10,
    "logging_nan_inf_filter": False,  # it would hide them, and wait for the device at every step
    "dataloader_pin_memory": torch.cuda.is_available(),
    # Without it transformers refuses bf16 and trains apart, not together, what torchrun starts.
    "use_cpu": not torch.accelerator.is_available(),
}
"""SCAL 4.1, and what makes it fast: the fused optimizer and batches of like length."""


class Trainer(WatchedTrainer):
    """Trains ``model`` with ``method``; checkpoints, resume, accumulation, DDP and precision are transformers'.

    Args:
        model: gets the heads that the method needs.
        method: what to train with.
        train: rows to train on, texts tokenized or not, or images; the method is told of them (`Method.prepare`).
        views: what makes random views of a batch of images, on its device; None: SimCLR's where the method wants two
            of each, else the images as they are.
        evaluators: each is called with the model at every evaluation and returns metrics; all are logged as
            ``eval_<name>`` and ``metric_for_best_model`` may name any.
        output_dir: holds ``metrics.jsonl`` and the checkpoints.
        args: all of transformers' arguments; give this or ``output_dir`` with single ones.
        optimizer: ``name`` and settings for `build_optimizer`, in place of ``optim``; the weight decay is over all
            that is trained.
        schedule: ``name`` and settings of one of `SCHEDULES`, in place of ``lr_scheduler_type``.
        early_stopping_patience: stop after so many evaluations that did not improve ``metric_for_best_model``.
        callbacks: further ones of transformers'.
        log_file: where to write ``metrics.jsonl`` instead of into ``output_dir``.
        training_arguments: single `TrainingArguments` by name, over `DEFAULTS`.

    A checkpoint holds the method's buffers and the running sums of the log besides what transformers saves: a
    resumed run ends with the weights and the log of one that was never interrupted, bit for bit on CPU. Training stops
    at the first loss or gradient that is not finite (`Diverged`).
    """

    def __init__(
        self,
        model: AnyModel,
        method: Method,
        train: Rows,
        *,
        views: Views | None = None,
        evaluators: Mapping[str, Evaluator] | None = None,
        output_dir: str | Path | None = None,
        args: TrainingArguments | None = None,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        early_stopping_patience: int | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        log_file: Path | None = None,
        **training_arguments: Any,
    ) -> None:
        if args is not None and (output_dir is not None or training_arguments):
            names = ", ".join([*(["output_dir"] if output_dir is not None else []), *training_arguments])
            raise UserError(f"Trainer got args, and beside it {names}", hint="put all of them into args")
        if args is None:
            if output_dir is None:
                raise UserError("Trainer needs an output_dir", hint='for example Trainer(..., output_dir="runs/mine")')
            report = ["tensorboard"] if is_tensorboard_available() else "none"
            args = TrainingArguments(
                output_dir=str(output_dir), **{**DEFAULTS, "report_to": report, **training_arguments}
            )
        if args.remove_unused_columns:  # transformers would remove all of them: it knows no batch of ours
            args = dataclasses.replace(args, remove_unused_columns=False)
        if args.n_gpu > 1:
            raise UserError(
                f"{args.n_gpu} GPUs in one process",
                hint="start one process a GPU with torchrun, or choose one with CUDA_VISIBLE_DEVICES",
            )
        set_seed(args.seed)
        model.add_heads(method.heads)
        if method.trains == "classifier":
            model.freeze_encoder()
        rows = _encoded(model, train)
        self.own_optimizer, self.own_schedule = optimizer, schedule
        self.views = _views(model, method, views)
        method.prepare(_facts(model, rows, args))
        self.method = method.to(args.device)
        self.evaluators = dict(evaluators or {})
        self.rows = MetricsLog(log_file or Path(str(args.output_dir)) / "metrics.jsonl")
        # Sum and count of each part since the last log; tensors, since reading one makes a GPU wait.
        self._parts: dict[str, tuple[Tensor | float, int]] = {}
        self._resumed: dict[str, Any] = {}
        self._sampler: LengthGroupedSampler | None = None
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            # transformers refuses to evaluate without a set, though ours is the evaluators' business.
            eval_dataset=rows if self.evaluators else None,
            data_collator=rows.collate,
            callbacks=[_Exactness(self), _AfterStep(self), Progress(method.name), *callbacks],
        )
        if method.wants_copy:  # prepared, so that it runs in the precision that the model does
            method.receive(self.accelerator.prepare_model(copy.deepcopy(model), evaluation_mode=True))
        if early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience))
        if "tensorboard" in (self.args.report_to or ()) and self.is_world_process_zero():
            self._keep_tensorboard_beside_the_log()
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    def _keep_tensorboard_beside_the_log(self) -> None:
        """Not among the checkpoints, which a finished run deletes."""
        from torch.utils.tensorboard import SummaryWriter

        self.remove_callback(TensorBoardCallback)
        self.add_callback(TensorBoardCallback(SummaryWriter(self.rows.path.parent / "tensorboard")))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The one that was asked for by `build_optimizer`'s name, or transformers'."""
        if self.own_optimizer is None or self.optimizer is not None:
            return super().create_optimizer(model)
        assert self.model is not None
        trained = [p for p in (model or self.model).parameters() if p.requires_grad]
        settings = {"weight_decay": self.args.weight_decay, **self.own_optimizer}
        self.optimizer = build_optimizer(settings.pop("name"), trained, self.args.learning_rate, **settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule that was asked for by name, or transformers'."""
        if self.own_schedule is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        settings = dict(self.own_schedule)
        epochs = math.ceil(self.args.num_train_epochs)
        at = build_schedule(settings.pop("name"), epochs, max(1, round(num_training_steps / epochs)), **settings)
        scheduled: Any = optimizer or self.optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(scheduled, at)
        return self.lr_scheduler

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Drive the method's losses on one micro-batch; returns their sum, detached."""
        model.train()
        batch = self._viewed(self._prepare_inputs(inputs))
        share = 1 / self.current_gradient_accumulation_steps
        total = torch.zeros((), device=self.args.device)

        def backward(loss: Tensor) -> None:
            nonlocal total
            total = total + loss.detach() * share
            self.accelerator.backward(loss * share)

        no_sync = partial(self.accelerator.no_sync, model)
        for parts in step(self.method, model, batch, backward=backward, no_sync=no_sync):
            for name, value in parts.items():
                summed, count = self._parts.get(name, (0.0, 0))
                self._parts[name] = (summed + value.detach(), count + 1)
        self._see_loss(total, batch)
        return total

    def _name(self) -> str:
        return self.method.name

    def _viewed(self, batch: Batch) -> Batch:
        if self.views is None:
            return batch
        if self.method.strength is not None:
            cast(SimCLRAugment, self.views.augment).strength = self.method.strength
        return self.views(batch)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Call every evaluator with what the method keeps of the model, in the weights' own precision; what they draw
        does not reach training's generators."""
        metrics: dict[str, float] = {}
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        assert isinstance(self.model, nn.Module)
        kept = self.method.kept_model(self.model)
        with torch.random.fork_rng(devices=devices), without_autocast(kept):
            for evaluator in self.evaluators.values():
                metrics.update(evaluator(kept))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Choose among models of the whole method: without a best one before, early stopping does not count either."""
        return self.method.complete and super()._determine_best_metric(metrics, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the method's parts to a training row; write every row but the closing summary."""
        if "loss" in logs:
            logs = {**logs, **{name: float(summed) / count for name, (summed, count) in self._parts.items()}}
            self._parts.clear()
        super().log(logs, start_time)
        if "train_runtime" not in logs and self.is_world_process_zero():
            self.rows.add(self.state.global_step, self.state.epoch, logs)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        data: Any = train_dataset if train_dataset is not None else self.train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            sampler: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(data)
            return sampler
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        self._sampler = LengthGroupedSampler(data.lengths, self.args.train_batch_size, seed)
        return self._sampler

    def _save_extra(self, folder: Path) -> None:
        if self.method.state_dict():
            # Copies: safetensors refuses tensors that share memory, as the tied weights of a frozen model do.
            state = {k: v.clone(memory_format=torch.contiguous_format) for k, v in self.method.state_dict().items()}
            save_file(state, folder / METHOD_STATE)
        if self.rows.path.is_file():
            sync(self.rows.path)

    def _running(self) -> dict[str, Any]:
        return {
            "loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "parts": {name: (float(summed), count) for name, (summed, count) in self._parts.items()},
        }

    def _load_best_model(self) -> None:
        """The method's state too, a part of which may be what is kept."""
        super()._load_best_model()
        if self.state.best_model_checkpoint is not None:
            self._load_method(Path(self.state.best_model_checkpoint))

    def _load_method(self, folder: Path) -> None:
        if self.method.state_dict():
            self.method.load_state_dict(load_file(folder / METHOD_STATE, device=str(self.args.device)))

    def _load_extra(self, folder: Path, running: dict[str, Any]) -> None:
        self._load_method(folder)
        self._resumed = running


def _encoded(model: AnyModel, rows: Rows) -> Encoded:
    if isinstance(rows, ImageData) != isinstance(model, ImageModel):
        kinds = ("images", "a model of texts") if isinstance(rows, ImageData) else ("texts", "a model of images")
        raise UserError(f"{kinds[0]}, but {kinds[1]}", hint="train a TextModel on texts and an ImageModel on images")
    if isinstance(rows, TextData):
        assert isinstance(model, TextModel)
        return EncodedText(rows, model.tokenizer, model.max_length)
    return rows


def _views(model: AnyModel, method: Method, views: Views | None) -> Views | None:
    """What is made of each batch.

    Raises:
        UserError: the model or the method reads no images, or the views have no strength, which the method sets.
    """
    read = "images" if isinstance(model, ImageModel) else "text"
    if method.reads not in ("both", read):
        raise UserError(f"{method.name} trains on {method.reads}, and this is a model of {read}")
    if read == "text":
        if views is not None:
            raise UserError("texts have no views", hint="leave views out: dropout makes them")
        return None
    if views is None and method.image_views == 2:
        views = TwoViews(SimCLRAugment())
    if method.strength is not None and not hasattr(getattr(views, "augment", None), "strength"):
        raise UserError(f"{method.name} sets the strength of the views", hint="give views=TwoViews(SimCLRAugment())")
    return views


def _epoch_rows(args: TrainingArguments, rows: int) -> int:
    at_once = args.train_batch_size * args.world_size
    if args.dataloader_drop_last:
        return rows // at_once * at_once
    return rows if args.world_size == 1 else math.ceil(rows / at_once) * at_once


def _facts(model: AnyModel, rows: Encoded, args: TrainingArguments) -> Facts:
    labels, an_epoch = rows.labels, _epoch_rows(args, len(rows))
    in_steps = args.max_steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    facts = Facts(
        rows=len(rows.data) if isinstance(rows, EncodedText) else len(rows),
        width=model.width,
        labels=None if labels is None else torch.as_tensor(labels),
        epochs=float(args.num_train_epochs) if args.max_steps <= 0 else in_steps / max(1, an_epoch),
        epoch_rows=an_epoch,
    )
    if isinstance(model, ImageModel):
        return facts
    return dataclasses.replace(
        facts,
        vocabulary=model.words[0],
        mask_id=model.tokenizer.mask_token_id,
        special_ids=tuple(model.tokenizer.all_special_ids),
    )


class _AfterStep(TrainerCallback):
    """Tells the method of each step of the optimizer, before a checkpoint is written."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        assert isinstance(self.trainer.model, nn.Module)
        self.trainer.method.after_step(self.trainer.model)


class _Exactness(TrainerCallback):
    """Puts back what transformers forgets on resume: the log's running sums and early stopping's count."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer.is_world_process_zero():
            trainer.rows.begin(state.global_step)
        if not trainer._resumed:
            return
        trainer._tr_loss += trainer._resumed["loss"]
        trainer._total_loss_scalar = trainer._resumed["total_loss"]
        trainer._globalstep_last_logged = trainer._resumed["last_logged"]
        trainer._parts = trainer._resumed["parts"]
        stored = state.stateful_callbacks.get("EarlyStoppingCallback")
        for callback in trainer.callback_handler.callbacks:
            if stored and isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = stored["attributes"]["early_stopping_patience_counter"]

    def on_epoch_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        # Accelerate does not reach a sampler under both a shard and a skip, which is where resume puts it.
        if self.trainer._sampler is not None:
            self.trainer._sampler.set_epoch(int(state.epoch or 0))
