"""The engine: Hugging Face's `Trainer`, whose training step drives a method."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback, is_tensorboard_available
from transformers.trainer_callback import PrinterCallback

from contraverse.data import LengthGroupedSampler
from contraverse.data.images import SimCLRAugment
from contraverse.errors import UserError
from contraverse.functional import from_all, from_first, rank, share_buffers, sharing, weighting_classes
from contraverse.models import AnyModel
from contraverse.models.folders import write_tensors
from contraverse.models.modes import without_autocast
from contraverse.models.sync_bn import to_synced
from contraverse.noise import NoiseMixture
from contraverse.training.callbacks import AfterStep, Exactness, MetricsLog, Progress
from contraverse.training.classes import BalancedSampler, ClassWeights, balanced_sampler, weights_of_classes
from contraverse.training.finite import WatchedTrainer
from contraverse.training.inputs import (
    Views,
    check_chunks,
    check_method,
    check_model,
    encoded,
    training_info,
    views_for,
    with_negatives,
    with_noise,
    with_workers,
)
from contraverse.training.lars import build_optimizer
from contraverse.training.ranks import (
    batch_of_process,
    check_processes,
    over_processes,
    refuse_split_weights,
)
from contraverse.training.schedules import build_schedule
from contraverse.training.sharding import WITHOUT_FSDP, check_sharding, sharding_settings, whole_weights
from contraverse.training.step import step
from contraverse.types import Batch, Evaluator, Method
from contraverse.writing import sync

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
    "accelerator_config": {"non_blocking": torch.cuda.is_available()},
    # Without a GPU, transformers refuses bf16 otherwise, and processes of torchrun would each train by themselves.
    "use_cpu": not torch.accelerator.is_available(),
}
"""SCAL 4.1, and what makes it fast: the fused optimizer and batches of like length."""


class Trainer(WatchedTrainer):
    """Trains ``model`` with ``method``; checkpoints, resume, accumulation, DDP and precision are transformers'.

    Args:
        model: gets the heads that the method needs.
        method: training method.
        train: rows to train on: a `TextData`, tokenized or not, or an `ImageData`; a `datasets.Dataset` or a data frame
            with usual column names, read as `TextData.from_dataset` does; of several splits those of training. Where
            the method needs labels, classes are matched with the model's by name.
        views: random views of a batch of images, made on its device; None: SimCLR's where the method wants two
            of each, else the images as they are.
        noise: on texts, drawn anew each epoch, in the views that the method declares (`Method.text_views`).
        evaluators: each is called with the model at every evaluation and returns metrics; all are logged as
            ``eval_<name>`` and ``metric_for_best_model`` may name any.
        output_dir: holds ``metrics.jsonl`` and the checkpoints.
        args: all of transformers' arguments; give this or ``output_dir`` with single ones.
        optimizer: ``name`` and settings for `build_optimizer`, in place of ``optim``; all weights decay.
        schedule: ``name`` and settings of one of `SCHEDULES`, in place of ``lr_scheduler_type``.
        global_batch_size: rows of one step, over all processes and ``gradient_accumulation_steps``, in place of
            ``per_device_train_batch_size``.
        sync_batch_norm: with several processes, batch norms in training take their statistics over the rows of all.
        class_weights: of the cross-entropy: ``"balanced"``, or weights by class name (`class_weights`).
        batches: ``"shuffled"``, or ``"balanced"``: every class equally often in a batch (`BalancedSampler`).
        contrast_chunk: most rows of which a process holds the activations at once, so that memory does not grow with
            the batch: see `contraverse.training.step`. None holds those of a whole batch.
        early_stopping_patience: stop after so many evaluations that did not improve ``metric_for_best_model``.
        callbacks: further ones of transformers'.
        log_file: where to write ``metrics.jsonl`` instead of into ``output_dir``.
        training_arguments: single `TrainingArguments` by name, over `DEFAULTS`.

    A checkpoint holds the method's buffers and the running sums of the log besides what transformers saves: a
    resumed run ends with the weights and the log of one that was never interrupted, bit for bit on CPU. Training stops
    at the first loss or gradient that is not finite (`Diverged`).

    Several processes (torchrun) are one: each draws by a seed of its own, evaluations are shared out and give every
    process the same metrics, and what follows from them is the same everywhere. Evaluators are called on every process.

    Raises:
        UserError: settings that do not go together, a model that does not fit the rows or the method, a batch that
            cannot be divided by the processes, or weights to be split over them (``fsdp=True``) that cannot be.
    """

    def __init__(
        self,
        model: AnyModel,
        method: Method,
        train: Any,
        *,
        views: Views | None = None,
        noise: NoiseMixture | None = None,
        evaluators: Mapping[str, Evaluator] | None = None,
        output_dir: str | Path | None = None,
        args: TrainingArguments | None = None,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        global_batch_size: int | None = None,
        sync_batch_norm: bool = False,
        class_weights: ClassWeights | None = None,
        batches: Literal["shuffled", "balanced"] = "shuffled",
        contrast_chunk: int | None = None,
        early_stopping_patience: int | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        log_file: Path | None = None,
        **training_arguments: Any,
    ) -> None:
        check_model(model)
        check_method(method)
        named = {"output_dir": output_dir, "global_batch_size": global_batch_size}
        single = [*(name for name, value in named.items() if value is not None), *training_arguments]
        if args is not None and single:
            raise UserError(f"Trainer got args as well as {', '.join(single)}", hint="put all of them into args")
        if global_batch_size is not None:
            if "per_device_train_batch_size" in training_arguments:
                raise UserError(
                    "Trainer got global_batch_size as well as per_device_train_batch_size", hint="give one of them"
                )
            accumulated = training_arguments.get("gradient_accumulation_steps", 1)
            training_arguments["per_device_train_batch_size"] = batch_of_process(global_batch_size, accumulated)
        asked = args or SimpleNamespace(**training_arguments)
        self.sharding = sharding_settings(getattr(asked, "fsdp", None), getattr(asked, "fsdp_config", None))
        if args is None:
            if output_dir is None:
                raise UserError("Trainer needs an output_dir", hint='for example Trainer(..., output_dir="runs/mine")')
            report = ["tensorboard"] if is_tensorboard_available() else "none"
            training_arguments = {**DEFAULTS, "report_to": report, **training_arguments, **WITHOUT_FSDP}
            args = TrainingArguments(output_dir=str(output_dir), **training_arguments)
        elif self.sharding is not None:
            args = dataclasses.replace(args, **WITHOUT_FSDP)
        refuse_split_weights(args)
        # transformers knows no batch of ours and would remove all columns; its filter waits at every step.
        if args.remove_unused_columns or args.logging_nan_inf_filter:
            args = dataclasses.replace(args, remove_unused_columns=False, logging_nan_inf_filter=False)
        if args.n_gpu > 1:
            raise UserError(
                f"{args.n_gpu} GPUs in one process",
                hint="start one process a GPU with torchrun, or choose one with CUDA_VISIBLE_DEVICES",
            )
        if args.world_size > 1 and args.data_seed is None:  # the order of rows is one for all
            args = dataclasses.replace(args, data_seed=args.seed)
        check_chunks(contrast_chunk, args)
        set_seed(args.seed)
        model.add_heads(method.heads)
        if sync_batch_norm and args.world_size > 1:
            to_synced(model)
        if method.trainable == "classifier":
            model.freeze_encoder()
        if self.sharding is not None:
            check_sharding(model, method, args, optimizer, contrast_chunk)
        rows = with_noise(model, method, encoded(model, method, train), noise)
        args = with_workers(with_negatives(args, method, len(rows)), rows)
        self.own_optimizer, self.own_schedule, self.contrast_chunk = optimizer, schedule, contrast_chunk
        self.views = views_for(model, method, views)
        method.prepare(training_info(model, rows, args))
        self.method = method.to(args.device)
        weights = None if class_weights is None else weights_of_classes(class_weights, method, rows, model.labels)
        self.class_weights = None if weights is None else weights.to(args.device)
        self._sampler: LengthGroupedSampler | BalancedSampler | None = None
        if batches == "balanced":
            self._sampler = balanced_sampler(method, rows, args)
        elif batches != "shuffled":
            raise UserError(f"batches are shuffled or balanced, not {batches!r}")
        self.evaluators = dict(evaluators or {})
        self.rows = MetricsLog(log_file or Path(str(args.output_dir)) / "metrics.jsonl")
        # Sum and count of each part since the last log; tensors, since reading one makes a GPU wait.
        self._parts: dict[str, tuple[Tensor | float, int]] = {}
        self._counts: set[str] = set()  # parts that count rows
        self._each: list[dict[str, Any]] = []  # the sums of every process, for a checkpoint
        self._resumed: dict[str, Any] = {}
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            # transformers refuses to evaluate without a set, though ours is the evaluators' business.
            eval_dataset=rows if self.evaluators else None,
            data_collator=rows.collate,
            callbacks=[Exactness(self), AfterStep(self), Progress(method.name), *callbacks],
        )
        if method.needs_reference_model:  # prepared, so that it runs in the precision that the model does
            method.set_reference_model(self.accelerator.prepare_model(copy.deepcopy(model), evaluation_mode=True))
        if early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience))
        if "tensorboard" in (self.args.report_to or ()) and self.is_world_process_zero():
            self._keep_tensorboard_beside_the_log()
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    def _keep_tensorboard_beside_the_log(self) -> None:
        """Write TensorBoard's files beside the log: a finished run deletes its checkpoints."""
        from torch.utils.tensorboard import SummaryWriter

        self.remove_callback(TensorBoardCallback)
        self.add_callback(TensorBoardCallback(SummaryWriter(self.rows.path.parent / "tensorboard")))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build the optimizer of ``optimizer["name"]`` by `build_optimizer`; without it, transformers'."""
        if self.own_optimizer is None or self.optimizer is not None:
            return super().create_optimizer(model)
        assert self.model is not None
        trained = [p for p in (model or self.model).parameters() if p.requires_grad]
        settings = {"weight_decay": self.args.weight_decay, **self.own_optimizer}
        self.optimizer = build_optimizer(settings.pop("name"), trained, self.args.learning_rate, **settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule of ``schedule["name"]``; without it, transformers'."""
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
        """Run `step` on one micro-batch; return the sum of its losses, detached."""
        model.train()
        batch = self._viewed(self._prepare_inputs(inputs))
        share = 1 / self.current_gradient_accumulation_steps
        total = torch.zeros((), device=self.args.device)

        def backward(loss: Tensor) -> None:
            nonlocal total
            total = total + loss.detach() * share
            self.accelerator.backward(loss * share)

        no_sync = partial(self.accelerator.no_sync, model)
        chunk = self.contrast_chunk
        with weighting_classes(self.class_weights):
            logs = step(self.method, model, batch, backward=backward, no_sync=no_sync, contrast_chunk=chunk)
        for parts in logs:
            for name, value in parts.items():
                summed, count = self._parts.get(name, (0.0, 0))
                self._parts[name] = (summed + value.detach(), count + 1)
                if not value.is_floating_point():
                    self._counts.add(name)
        self._see_loss(total, batch)
        return total

    def _name(self) -> str:
        return self.method.name

    def _viewed(self, batch: Batch) -> Batch:
        if self.views is None:
            return batch
        if self.method.augmentation_strength is not None:
            cast(SimCLRAugment, self.views.augment).strength = self.method.augmentation_strength
        return self.views(batch)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Call every evaluator with the model that the method keeps, in the weights' own precision.

        Random numbers that evaluators draw do not change those of training.
        """
        metrics: dict[str, float] = {}
        self._share_buffers()
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        assert isinstance(self.model, nn.Module)
        kept = self.method.kept_model(self.model)
        with torch.random.fork_rng(devices=devices), whole_weights(kept), without_autocast(kept), sharing():
            for evaluator in self.evaluators.values():
                metrics.update(evaluator(kept))
        metrics = from_first({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        # A process that stopped alone would leave the others waiting forever.
        vars(self.control).update(from_first(vars(self.control)))
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Choose among models of the whole method: without a best one before, early stopping does not count either."""
        return self.method.complete and super()._determine_best_metric(metrics, trial)

    def _share_buffers(self) -> None:
        """Batch norm's statistics are the first process's everywhere, as DDP has them in the next step."""
        for module in (self.model, getattr(self.method, "reference_model", None)):
            if isinstance(module, nn.Module):
                share_buffers(module)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the method's parts to a training row; write every row but the closing summary."""
        if "loss" in logs:
            logs = {**logs, **over_processes(self._parts, self._counts)}
            self._parts.clear()
        super().log(logs, start_time)
        if "train_runtime" not in logs and self.is_world_process_zero():
            self.rows.add(self.state.global_step, self.state.epoch, logs)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        data: Any = train_dataset if train_dataset is not None else self.train_dataset
        if isinstance(self._sampler, BalancedSampler):
            return self._sampler
        if self.args.train_sampling_strategy != "group_by_length":
            sampler: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(data)
            return sampler
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        # The processes get its batches in turn: what they get at once is a batch of one process with all their rows.
        self._sampler = LengthGroupedSampler(data.lengths, self.args.train_batch_size * self.args.world_size, seed)
        return self._sampler

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        parts = {name: (float(summed), count) for name, (summed, count) in self._parts.items()}
        self._each = from_all({"loss": self._tr_loss.item(), "parts": parts})
        super()._save_checkpoint(model, trial)

    def _save_extra(self, folder: Path) -> None:
        if state := self.method.state_dict():
            write_tensors(state, folder / METHOD_STATE)
        if self.rows.path.is_file():
            sync(self.rows.path)

    def _running(self) -> dict[str, Any]:
        return {
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "processes": self._each,
        }

    def _load_best_model(self) -> None:
        """Load the method's state too: the network that is kept may be a part of it."""
        super()._load_best_model()
        if self.state.best_model_checkpoint is not None:
            self._load_method(Path(self.state.best_model_checkpoint))

    def _load_method(self, folder: Path) -> None:
        if self.method.state_dict():
            # Onto the CPU, and copied from there: safetensors does not know the device cpu:0 of several processes.
            self.method.load_state_dict(load_file(folder / METHOD_STATE))

    def _load_extra(self, folder: Path, running: dict[str, Any]) -> None:
        check_processes(folder, len(running["processes"]))
        self._load_method(folder)
        self._resumed = {**running, **running["processes"][rank()]}
