"""Checks for NaN and infinity: such models are never saved, such vectors never returned."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from contraverse.errors import UserError


def not_finite(model: nn.Module) -> str | None:
    """Name of the first weight or buffer of ``model`` with a value that is not finite; waits for the device.

    Of weights that are split over processes this one's part is looked at.
    """
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    state = {name: value.to_local() if isinstance(value, DTensor) else value for name, value in state.items()}
    if not state or bool(torch.stack([value.isfinite().all() for value in state.values()]).all()):
        return None
    return next(name for name, value in state.items() if not bool(value.isfinite().all()))


def refuse_not_finite(model: nn.Module, folder: Path) -> None:
    """Keep a model that has diverged from being saved.

    Raises:
        UserError: a weight or buffer is not finite.
    """
    if (name := not_finite(model)) is not None:
        raise UserError(
            f"the weights are not finite, first {name}: training has diverged, and the model is not saved",
            where=str(folder),
            hint="train again with a lower learning rate",
        )


def checked(vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors`` (N, D).

    Raises:
        UserError: one of them is not finite.
    """
    good = np.isfinite(vectors).all(axis=-1)
    if not good.all():
        raise UserError(
            f"{int((~good).sum()):,} of {len(vectors):,} vectors hold NaN or infinity, first that of row "
            f"{int(np.flatnonzero(~good)[0])}, from 0",
            hint="the model has diverged, or its precision is too low: check its weights, or train it again",
        )
    return vectors
