"""Stop of a training that has diverged, with the step where it did."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import pad

from contraverse.errors import UserError
from contraverse.models.finite import not_finite
from contraverse.training.checkpoints import CheckpointingTrainer, checkpoints
from contraverse.types import Batch

LEAST_SCALE = 1e-4
"""Loss scale of fp16 below which every gradient is taken for not finite: it begins at 65,536, and halves at each."""
_LISTED = 8


class Diverged(UserError):
    """A loss, a gradient or a weight is not finite."""


class FiniteRecord:
    """First step whose loss or gradient was not finite, kept on the device so that no step waits for it.

    ``values`` (2 + rows,) int64: the step of the loss and the step of the gradient, from 1, and the numbers of the rows
    of the micro-batch whose loss it was; -1 where there is none.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.values = torch.full((2 + rows,), -1, dtype=torch.int64, device=device)

    def see_loss(self, loss: Tensor, step: int, batch: Batch) -> None:
        """Record ``loss`` (a scalar of step ``step``) if it is the first that is not finite."""
        bad = ~torch.isfinite(loss.detach()) & (self.values[0] < 0)
        self.values[0].masked_fill_(bad, step)
        if "index" in batch:
            index, rows = batch["index"].flatten(), len(self.values) - 2
            index = pad(index, (0, rows - len(index)), value=-1)  # a negative number cuts
            self.values[2:].copy_(torch.where(bad, index, self.values[2:]))

    def see_gradient(self, norm: Any, step: int) -> None:
        """Record the norm of the gradient of step ``step`` if it is the first that is not finite."""
        if isinstance(norm, Tensor):
            self.values[1].masked_fill_(~torch.isfinite(norm.detach()) & (self.values[1] < 0), step)


class WatchedTrainer(CheckpointingTrainer):
    """Stop before anything that is not finite is logged, measured or saved.

    The record is read where training waits for the device anyway: when it logs, measures and saves; on a CPU, at each
    step. In fp16 a gradient that is not finite makes the scale smaller and is passed over, until the scale says that
    all of them are.
    """

    record: FiniteRecord

    def _name(self) -> str:
        """The method's name, for messages."""
        raise NotImplementedError

    def _see_loss(self, loss: Tensor, batch: Batch) -> None:
        self.record.see_loss(loss, self.state.global_step + 1, batch)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if self.accelerator.scaler is None:
            self.record.see_gradient(norm, self.state.global_step + 1)
        return norm

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        control = self.control
        if not waits(self.args.device) or control.should_log or control.should_evaluate or control.should_save:
            self._check_record()
        if control.should_evaluate or control.should_save:
            self._check_weights()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as transformers does.

        Raises:
            Diverged: a loss, a gradient or a weight is not finite.
        """
        self.record = FiniteRecord(self.args.train_batch_size, self.args.device)
        done = super().train(*args, **kwargs)
        self._check_record()
        self._check_weights()
        return done

    def _check_record(self) -> None:
        records: list[list[int]] = self.accelerator.gather(self.record.values[None]).tolist()
        losses = [record for record in records if record[0] >= 0]
        gradients = [record[1] for record in records if record[1] >= 0]
        if losses:
            step, _, *rows = min(losses)
            raise self._diverged(f"the loss of {self._name()} is not finite at step {step}", rows)
        if gradients:
            raise self._diverged(f"the gradient of {self._name()} is not finite at step {min(gradients)}", [])
        if self.accelerator.scaler is not None and self.accelerator.scaler.get_scale() < LEAST_SCALE:
            raise self._diverged(
                f"no gradient of {self._name()} is finite in fp16, up to step {self.state.global_step}"
            )

    def _check_weights(self) -> None:
        assert isinstance(self.model, nn.Module)
        name = not_finite(self.model)
        # Statistics of batch norm are each process's own: all stop, or none.
        if int(self.accelerator.gather(torch.tensor([name is not None], device=self.args.device)).sum()):
            first = f", first {name}" if name is not None else ", on another process"
            raise self._diverged(
                f"the weights are not finite after step {self.state.global_step} of {self._name()}{first}"
            )

    def _diverged(self, what: str, rows: list[int] | None = None) -> Diverged:
        known = [row for row in rows or [] if row >= 0]
        if known:
            more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
            what += f"; its batch is of the training rows {', '.join(map(str, known[:_LISTED]))}{more}, from 0"
        kept = checkpoints(Path(str(self.args.output_dir)))
        good = f"; the last good checkpoint is {kept[-1]}" if kept else ""
        hint = f"training has diverged: lower the learning rate, which is {self.args.learning_rate:g}{good}"
        return Diverged(what, hint=hint)


def waits(device: torch.device) -> bool:
    """True where reading a tensor of ``device`` waits for work in its queue."""
    return device.type != "cpu"
