"""A training run as it is followed: the log of its numbers, the progress display, and interrupts."""

import json
import math
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from contraverse.data import NoisyText
from contraverse.functional import AnyOf, processes, rank
from contraverse.training.ranks import rank_seed
from contraverse.writing import append_json_line, read_json_lines, write_text


class MetricsLog:
    """``metrics.jsonl``: every logged number of a run, one JSON object a line, in the order of steps.

    Appends rows ``{"step": ..., "epoch": ..., name: value}``; holds no clock times, so that runs compare.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, step: int) -> None:
        """Start the file, or on resume keep only the rows up to ``step``: later steps are repeated."""
        rows = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def add(self, step: int, epoch: float | None, values: dict[str, Any]) -> None:
        # NaN and infinity are not JSON: a reader that is not Python would stop at them.
        clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()}
        append_json_line(self.path, {"step": step, "epoch": epoch, **clean})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's ``metrics.jsonl``: see `contraverse.writing.read_json_lines`."""
    return read_json_lines(path)


class Progress(TrainerCallback):
    """One bar on stderr with the loss and the time left, and a line for every evaluation."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and not args.disable_tqdm:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.label, file=sys.stderr, dynamic_ncols=True
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is not None and metrics:
            shown = "  ".join(f"{k.removeprefix('eval_')} {v:.2f}" for k, v in metrics.items() if k != "epoch")
            self.bar.write(f"  step {state.global_step}: validation {shown}", file=sys.stderr)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class StopOnInterrupt(TrainerCallback):
    """Ctrl-C once ends training after the step in hand, with a checkpoint; twice, at once.

    SIGTERM, by which schedulers end a job, and SIGHUP, the end of a terminal, do the same. Use as a context around
    ``trainer.train()``; ``interrupted`` and ``signal`` tell afterwards. Of several processes, which the signal reaches
    at different times, all end after the same step: the one in hand, or the next.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.signal: int = signal.SIGINT
        self._stopping = self._settled = False
        self._question: AnyOf | None = None

    def __enter__(self) -> "StopOnInterrupt":
        caught = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
            caught.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._caught) for number in caught}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _caught(self, signum: int, frame: Any) -> None:
        if self.interrupted or self._settled:
            raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)
        self.interrupted, self.signal = True, signum
        if rank() == 0:
            with suppress(OSError, ValueError):  # the terminal may be gone
                print("\nStopping after this step, with a checkpoint (Ctrl-C again stops at once).", file=sys.stderr)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if processes() > 1:  # answered while the step runs
            self._question = AnyOf(self.interrupted)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if processes() > 1:  # the last word: what comes now reaches one process alone
            self.interrupted, self._settled = AnyOf(self.interrupted).answer(), True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.interrupted if self._question is None else self._question.answer():
            self.interrupted = True
            self._stopping = control.should_training_stop = True
            if not _whole(state):
                control.should_save = True
            # With a limit of one, transformers ends by deleting every checkpoint but the best: also this one.
            if args.save_total_limit == 1:
                args.save_total_limit = 2

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Not for an interrupt since the last step: the next step ends training, and this epoch ends as any other.
        if not self._stopping:
            return
        if _whole(state):  # only now, so that the checkpoint knows what was evaluated here
            control.should_save = True
        else:
            # transformers takes the stop for the end of an epoch: it would evaluate here, which may take minutes, and
            # count as a candidate for the best checkpoint a step that an uninterrupted run never looks at.
            control.should_evaluate = control.should_save = control.should_log = False


def _whole(state: TrainerState) -> bool:
    """True where the last step ended its epoch."""
    return float(state.epoch or 0).is_integer()


class AfterStep(TrainerCallback):
    """Calls the method after each step of the optimizer, before a checkpoint is written."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.method.after_step(self.trainer.model)


class Exactness(TrainerCallback):
    """Puts back what transformers forgets on resume: the log's running sums and early stopping's count."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if trainer.is_world_process_zero():
            trainer.rows.begin(state.global_step)
        if args.world_size > 1:  # now that all have the same heads; where a run goes on, its own state comes later
            set_seed(rank_seed(args.seed, args.process_index))
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
        sampler, epoch = self.trainer._sampler, int(state.epoch or 0)
        if isinstance(rows := self.trainer.train_dataset, NoisyText):
            rows.start_epoch(epoch)
            if sampler is not None and sampler.lengths is not None:
                sampler.lengths = np.asarray(rows.noisy_lengths())
        if sampler is not None:
            sampler.set_epoch(epoch)
