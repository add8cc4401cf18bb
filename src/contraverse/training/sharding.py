"""Weights, gradients and optimizer state split over processes: FSDP2, torch's own ``fully_shard``.

Sharded while training alone: evaluations see the whole model, and checkpoints and the finished model hold whole
weights. ``fully_shard`` is called here and not by Accelerate, which would train copies on processes without a GPU.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from contraverse.errors import UserError
from contraverse.functional import processes
from contraverse.models import AnyModel, ImageModel
from contraverse.types import Method

WHERE = "train.fsdp"
SETTINGS = {"version": 2, "reshard_after_forward": True}
"""Settings of ``train.fsdp_config`` that are known, with their defaults."""
WITHOUT_FSDP: dict[str, Any] = {"fsdp": None, "fsdp_config": None}
"""Arguments of transformers by which it leaves the splitting to this module."""
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def sharding_settings(asked: Any, config: Any) -> dict[str, Any] | None:
    """Settings of ``train.fsdp`` and ``train.fsdp_config``; None where the weights are not split.

    Raises:
        UserError: a setting that is not supported.
    """
    if str(asked).lower() in ("none", "false", ""):
        if config:
            raise UserError("is of use beside train.fsdp=true alone", where="train.fsdp_config")
        return None
    if str(asked).lower() not in ("true", "full_shard"):
        raise UserError(f"{asked!r} is no way to split weights here", where=WHERE, hint="set it to true")
    settings = {str(name).removeprefix("fsdp_"): value for name, value in dict(config or {}).items()}
    for name, value in settings.items():
        if name not in SETTINGS or (name == "version" and int(value) != 2):
            hint = "known: reshard_after_forward (true frees a layer's weights after its forward pass), version 2"
            raise UserError(f"{name}={value} is not supported", where="train.fsdp_config", hint=hint)
    return {**SETTINGS, **settings}


def check_sharding(model: AnyModel, method: Method, args: TrainingArguments, optimizer: object, chunk: object) -> None:
    """Refuse, at the start, what cannot be trained with split weights.

    Raises:
        UserError: says why.
    """
    reasons = {
        "there is one process": processes() == 1,
        "a network of images fits on one device, and its batch norms are not split": isinstance(model, ImageModel),
        f"{method.name} keeps a second copy of the model, which is whole": method.needs_reference_model,
        "fp16 scales the loss by whole gradients": bool(args.fp16),
        "an optimizer of train.optimizer takes norms of whole weights": optimizer is not None,
        "train.contrast_chunk runs the forward pass again outside of it": chunk is not None,
    }
    for reason, applies in reasons.items():
        if applies:
            hint = (
                "train with bf16" if "fp16" in reason else "leave out train.fsdp: every process then has a whole copy"
            )
            if processes() == 1:
                hint = "start several: torchrun --nproc-per-node N --no-python contraverse train ..."
            raise UserError(f"the weights cannot be split: {reason}", where=WHERE, hint=hint)


def shard(model: AnyModel, *, reshard_after_forward: bool = True) -> None:
    """Split the weights of ``model`` over all processes, in place: each layer of the encoder, and the rest together."""
    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    encoder = cast(PreTrainedModel, model.encoder)
    depth = encoder.config.num_hidden_layers
    for module in encoder.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            for layer in module:
                fully_shard(layer, mesh=mesh, reshard_after_forward=reshard_after_forward)
            break
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard_after_forward)


def _parts(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Every process has the whole weights inside, and no pass needs the others; nothing of a model that is not split.

    Evaluations are shared out by batches, of which one process may have more than another.
    """
    parts = _parts(model)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.set_reshard_after_backward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_backward(True, recurse=False)
            part.set_reshard_after_forward(part is not parts[0], recurse=False)
            part.reshard()


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """Whole weights and buffers by name, on the CPU; collective."""
    state = {}
    for name, value in model.state_dict().items():
        value = value.full_tensor() if isinstance(value, DTensor) else value
        state[name] = value.detach().cpu()
    return state


@torch.no_grad()
def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> Any:
    """Load whole weights into a split model: each process takes its part. Missing and unexpected names are returned."""
    own = dict(model.state_dict())
    for name, value in own.items():
        if name not in state:
            continue
        if isinstance(value, DTensor):
            whole = state[name].to(value.device, value.dtype)
            # Each process has read all of it: nothing is sent.
            value.copy_(distribute_tensor(whole, value.device_mesh, value.placements, src_data_rank=None))
        else:
            value.copy_(state[name])
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    return nn.modules.module._IncompatibleKeys(missing, unexpected)


def gather_weights(model: nn.Module) -> None:
    """Make an ordinary model of a split one, in place; collective."""
    parts = _parts(model)
    for part in parts:
        part.reshard()
    whole: dict[int, nn.Parameter] = {}  # a weight may be tied to another
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if isinstance(value, DTensor):
                if id(value) not in whole:
                    whole[id(value)] = nn.Parameter(value.full_tensor().detach(), value.requires_grad)
                module._parameters[name] = whole[id(value)]
    for part in parts:
        state: Any = part._get_fsdp_state()
        state._pre_forward_hook_handle.remove()
        state._post_forward_hook_handle.remove()
        cast(Any, part).__class__ = type(part).__mro__[part._orig_cls_mro_index]


class ShardingTrainer(transformers.Trainer):
    """Split the model while it trains, where ``sharding`` has settings; checkpoints hold whole weights and states."""

    sharding: dict[str, Any] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as transformers does; the model is whole again afterwards."""
        if self.sharding is None:
            return super().train(*args, **kwargs)
        model = cast(AnyModel, self.model)
        shard(model, reshard_after_forward=bool(self.sharding["reshard_after_forward"]))
        # transformers' own mark of a model that nothing else may wrap or move.
        self.is_distributed_loading_by_transformers = True
        try:
            return super().train(*args, **kwargs)
        finally:
            gather_weights(model)
            self.is_distributed_loading_by_transformers = False

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.sharding is not None and state_dict is None:
            state_dict = whole_state(cast(nn.Module, self.model))
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.sharding is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        state = load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)
        self._issue_warnings_after_load(load_whole(cast(nn.Module, model or self.model), state))

    def _load_best_model(self) -> None:
        if self.sharding is None:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharding is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = get_optimizer_state_dict(cast(nn.Module, self.model), self._torch_optimizer, options=_WHOLE)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(cast(Any, self.lr_scheduler).state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.sharding is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        set_optimizer_state_dict(cast(nn.Module, self.model), self._torch_optimizer, state, options=_WHOLE)
        schedule = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        cast(Any, self.lr_scheduler).load_state_dict(schedule)

    @property
    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return cast(torch.optim.Optimizer, getattr(self.optimizer, "optimizer", self.optimizer))
