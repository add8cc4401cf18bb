"""Parameter-efficient fine-tuning: adapters of the package ``peft`` in a text encoder.

The encoder's own weights stay as they are; adapters in its linear layers, the heads and what the checkpoint did not
have (a classifier, a pooler) are trained. A saved folder holds the merged network, which loads as any other, and
``adapter/``, which `peft` reads on top of the encoder that training started from.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from contraverse.errors import UserError, suggestion, unknown
from contraverse.models.folders import write_tensors
from contraverse.models.loading import ADAPTER, Origin, damaged, read_object

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

T = TypeVar("T")

TYPES = ("lora", "loha", "lokr", "ia3", "oft", "hra")
"""Kinds of adapters: those of peft that sit in linear layers, need no call of their own in a step, and can be merged.
DoRA and rsLoRA are settings of ``lora``: ``use_dora``, ``use_rslora``."""
FOLDER = "adapter"
WEIGHTS = "adapter_model.safetensors"
ALL_LINEAR = "all-linear"
WHERE = "model.peft"
_NAME = "default"  # peft's own name of an adapter
_PREFIX = "base_model.model."  # of every weight in peft's files
# Set here, of no use here, or with an effect on weights outside of the adapters.
_NOT_SETTINGS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "modules_to_save", "exclude_modules", "bias", "layer_replication", "trainable_token_indices", "target_parameters",
    "runtime_config", "megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "use_bdlora", "arrow_config", "ensure_weight_tying", "use_qalora", "qalora_group_size",
}  # fmt: skip
_INITIALISATIONS = (True, False, "gaussian", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """Adapters of a model.

    Attributes:
        type: one of `TYPES`.
        config: peft's own configuration, with its targets by name.
        base: name or folder of the encoder that the adapters belong to.
        revision: its branch, tag or commit on the Hub.
        frozen: names of the encoder's own weights, as the adapted network names them: they are not trained.
    """

    type: str
    config: Any
    base: str
    revision: str | None
    frozen: frozenset[str] = field(repr=False)


def check_settings(settings: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Type of adapter and the other settings, all of them known; needs no network.

    Args:
        settings: see `add_adapter`; a type alone stands for its defaults.

    Raises:
        UserError: peft is not installed, or an unknown type or setting.
    """
    peft, others = _peft(), {"type": settings} if isinstance(settings, str) else dict(settings)
    kind = _checked_type(others.pop("type", "lora"))
    config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind.upper()]
    allowed = sorted({f.name for f in fields(config_class) if f.init} - _NOT_SETTINGS)
    for name in others:
        if name not in allowed:
            raise UserError(f"{kind} has no setting {name!r}", where=WHERE, hint=suggestion(name, allowed))
    if others.get("init_lora_weights", True) not in _INITIALISATIONS:
        raise UserError(
            f"init_lora_weights={others['init_lora_weights']!r} changes the encoder's own weights",
            where=WHERE,
            hint="use true, gaussian or orthogonal",
        )
    return kind, others


def add_adapter(model: "TextModel", settings: str | Mapping[str, Any], origin: Origin) -> None:
    """Put adapters into the linear layers of the encoder, in place, and freeze its other weights.

    A pooler and a classifier that were drawn at random stay trainable, whole, as the heads do.

    Args:
        model: without adapters.
        settings: ``type``, one of `TYPES`, and settings of peft's configuration of that type, such as ``r``,
            ``lora_alpha``, ``lora_dropout`` and ``target_modules``: names of linear layers, a regular expression, or
            ``"all-linear"``; without it peft's choice for the architecture, or all linear layers where peft has none.
        origin: of the encoder.

    Raises:
        UserError: peft is not installed, or an unknown type, setting or target.
    """
    kind, chosen = check_settings(settings)
    peft, encoder = _peft(), model.encoder
    targets = find_targets(encoder, chosen.pop("target_modules", None) or _usual_targets(peft, kind, encoder))
    if kind == "ia3":  # scales what a layer gives, or for layers named here what it reads
        chosen.setdefault("feedforward_modules", [])
    own = {id(value) for value in encoder.state_dict(keep_vars=True).values()}
    task = "SEQ_CLS" if model.labels is not None else "FEATURE_EXTRACTION"
    with _faults(kind):
        config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind.upper()](target_modules=targets, task_type=task, **chosen)
        peft.inject_adapter_in_model(config, encoder, adapter_name=_NAME)
        peft.tuners.tuners_utils.cast_adapter_dtype(encoder, _NAME)  # small steps would be lost in half precision
    frozen = set[str]()
    for name, value in encoder.state_dict(keep_vars=True).items():
        if id(value) in own and not _is_new(model, name):
            frozen.add(name)
        elif isinstance(value, nn.Parameter):
            value.requires_grad_(True)
    # A folder by its whole path, so that the adapters find it from anywhere.
    base = str(Path(origin.path).resolve()) if Path(origin.path).exists() else origin.path
    model.adapter = Adapter(kind, config, base, origin.revision, frozenset(frozen))


def describe(model: "TextModel") -> list[str]:
    """A sentence on the adapters and the number of weights that are trained; none without adapters."""
    if model.adapter is None:
        return []
    counts = [(value.numel(), value.requires_grad) for value in model.parameters()]
    trained, whole = sum(count for count, wanted in counts if wanted), sum(count for count, _ in counts)
    targets = ", ".join(sorted(model.adapter.config.target_modules))
    return [f"{model.adapter.type} on {targets}: {trained:,} of {whole:,} weights are trained"]


def find_targets(encoder: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """The shortest endings of names that tell the layers of ``targets`` from all other modules of ``encoder``.

    Raises:
        UserError: a target is no linear layer below the classifier.
    """
    base, prefix = encoder.base_model, ""
    if base is not encoder:
        prefix = next(name for name, module in encoder.named_modules() if module is base) + "."
    linear = [
        prefix + name
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and "pooler" not in name.split(".")
    ]
    if isinstance(targets, str) and targets != ALL_LINEAR:
        try:
            chosen = {name for name in linear if re.fullmatch(targets, name)} or {*_ending(linear, targets)}
        except re.error as error:
            raise UserError(f"target_modules is no regular expression: {error}", where=WHERE) from error
        if not chosen:
            raise _no_target(targets, linear)
    else:
        chosen = set(linear) if targets == ALL_LINEAR else set[str]()
        for target in () if targets == ALL_LINEAR else targets:
            named = _ending(linear, str(target))
            if not named:
                raise _no_target(str(target), linear)
            chosen |= set(named)
    others = {ending for name, _ in encoder.named_modules() if name not in chosen for ending in _endings(name)}
    short = {next(ending for ending in _endings(name) if ending not in others) for name in chosen}
    return sorted(short)


def _ending(names: Sequence[str], target: str) -> list[str]:
    return [name for name in names if name == target or name.endswith(f".{target}")]


def _endings(name: str) -> list[str]:
    """``a.b.c`` as ``c``, ``b.c`` and ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]


def _no_target(target: str, linear: Sequence[str]) -> UserError:
    leaves = sorted({name.rpartition(".")[2] for name in linear})
    hint = suggestion(target, [*leaves, ALL_LINEAR])
    return UserError(f"no linear layer of the encoder is called {target!r}", where=f"{WHERE}.target_modules", hint=hint)


def _checked_type(kind: Any) -> str:
    if kind not in TYPES:
        raise unknown("type of adapter", str(kind), TYPES, where=f"{WHERE}.type")
    return str(kind)


def _usual_targets(peft: Any, kind: str, encoder: PreTrainedModel) -> str | list[str]:
    """Targets that peft takes for the architecture, as far as they are linear layers here; else all of these."""
    mapping = getattr(peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[kind.upper()], "target_module_mapping", None) or {}
    usual = mapping.get(encoder.config.model_type, ())
    with suppress(UserError):
        return find_targets(encoder, list(usual)) or ALL_LINEAR
    return ALL_LINEAR


def _is_new(model: "TextModel", name: str) -> bool:
    """True of a weight that belongs to a classifier, or to a pooler that the checkpoint did not have."""
    drawn_pooler = any("pooler" in drawn.split(".") for drawn in model.drawn)
    below = model.encoder.base_model is model.encoder or name.startswith(f"{model.encoder.base_model_prefix}.")
    return not below or (drawn_pooler and "pooler" in name.split("."))


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError(
            "adapters need the package peft", where=WHERE, hint="pip install 'contraverse[peft]'"
        ) from error
    return peft


@contextmanager
def _faults(kind: str) -> Iterator[None]:
    """Errors of peft on settings, as a `UserError`."""
    try:
        yield
    except MemoryError:
        raise
    # peft checks settings in many places and raises many kinds of errors.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{kind} cannot be set up: {reason}", where=WHERE) from error


def trained_part(model: nn.Module, state: Mapping[str, T]) -> dict[str, T]:
    """``state`` of ``model`` without the encoder's own weights, which adapters leave as they are; whole without any."""
    adapter: Adapter | None = getattr(model, "adapter", None)
    if adapter is None:
        return dict(state)
    return {name: value for name, value in state.items() if name.removeprefix("encoder.") not in adapter.frozen}


def merged_state(encoder: PreTrainedModel) -> dict[str, Tensor]:
    """Weights of the network with its adapters merged, by the names that it has without; on the CPU.

    Layer by layer, so that the network is in memory once; its own weights are as before, to the last bit.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    state, merged = dict(encoder.state_dict()), dict[str, Tensor]()
    for name, layer in encoder.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        base = layer.get_base_layer()
        own = {key: value.detach().clone() for key, value in base.state_dict().items()}
        with torch.no_grad():
            layer.merge()
            merged |= {f"{name}.{key}": value.detach().cpu().clone() for key, value in base.state_dict().items()}
            layer.merged_adapters.clear()  # with its own weights put back, which undo rounding too
            for key, value in base.state_dict(keep_vars=True).items():
                value.data.copy_(own[key])
        for key in [key for key in state if key.startswith(f"{name}.")]:
            del state[key]
    return {name: value.detach().cpu() for name, value in state.items()} | merged


def write_adapter(model: "TextModel", folder: Path) -> None:
    """Write the adapters, and the layers that are trained whole, as peft does, into ``folder``; nothing without any."""
    if model.adapter is None:
        return
    peft, encoder = _peft(), model.encoder
    weights = dict(peft.get_peft_model_state_dict(encoder, adapter_name=_NAME, save_embedding_layers=False))
    whole: dict[str, Tensor] = {
        name: value for name, value in encoder.state_dict().items() if _is_new(model, name) and name not in weights
    }
    folder.mkdir()
    write_tensors({_PREFIX + name: value for name, value in {**weights, **whole}.items()}, folder / WEIGHTS)
    modules = sorted({_top(model, name) for name in whole})
    config = replace(
        model.adapter.config,
        modules_to_save=modules or None,
        base_model_name_or_path=model.adapter.base,
        revision=model.adapter.revision,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    model.tokenizer.save_pretrained(folder)


def _top(model: "TextModel", name: str) -> str:
    """The module that peft has to save whole, so that weight ``name`` is in it."""
    parts = name.split(".")
    return "pooler" if "pooler" in parts else parts[0]


def merge_from(folder: Path, encoder: PreTrainedModel) -> None:
    """Merge the adapters in ``folder`` into ``encoder``, in place; a classifier among them is left out.

    Raises:
        UserError: damaged files, adapters of another kind, or of another network.
    """
    peft = _peft()
    settings = read_object(folder / ADAPTER)
    kind = _checked_type(str(settings.get("peft_type", "")).lower())
    with damaged(folder / ADAPTER):
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.modules_to_save, config.inference_mode = None, True
    with damaged(folder / WEIGHTS):
        stored = {name.removeprefix(_PREFIX): value for name, value in load_file(folder / WEIGHTS).items()}
    own, prefix = encoder.state_dict(), f"{encoder.base_model_prefix}."
    if encoder.base_model is encoder:  # written beside a classifier, whose network lies one level lower
        stored = {name.removeprefix(prefix): value for name, value in stored.items()}
    whole = {name: value for name, value in stored.items() if name in own and own[name].shape == value.shape}
    adapters = {name: value for name, value in stored.items() if name not in own and _sits(name, own)}
    with _faults(kind):
        tuner = peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](encoder, config, adapter_name=_NAME)
        outcome = peft.set_peft_model_state_dict(encoder, adapters, adapter_name=_NAME)
    missing = [name for name in outcome.missing_keys if f".{_NAME}." in name or name.endswith(f".{_NAME}")]
    if missing or outcome.unexpected_keys:
        name = [*missing, *outcome.unexpected_keys][0]
        raise UserError(f"does not fit the network: {name}", where=str(folder / WEIGHTS))
    with _faults(kind):
        tuner.merge_and_unload()
    encoder.load_state_dict(whole, strict=False)
    encoder.requires_grad_(True)
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        encoder.__dict__.pop(leftover, None)


def _sits(name: str, own: Mapping[str, Tensor]) -> bool:
    """True of an adapter's weight in a layer that the network has."""
    parts = name.split(".")
    return any(f"{'.'.join(parts[:i])}.weight" in own for i in range(1, len(parts)))
