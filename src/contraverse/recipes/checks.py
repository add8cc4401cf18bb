"""Checks of a configuration: by pydantic for the sections, and by the code that a run calls for the rest.

The names and ranges of a method's settings are declared on its class, those of ``train`` are transformers'. Both are
read off the code when a run is configured, so that no list of them can grow old, and `contraverse.recipes` itself
imports without torch.
"""

import dataclasses
import inspect
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from contraverse.errors import UserError, suggestion, unknown
from contraverse.recipes.schema import MethodConfig, Section, TrainConfig

if TYPE_CHECKING:
    from contraverse.data import ImageTask, Task
    from contraverse.types import Method

_POSITIVE, _NOT_NEGATIVE, _COUNT = Field(gt=0), Field(ge=0), Field(ge=1)
_LARGEST_RATE = 1000.0  # LARS at a batch of 4,096 has some 5; at 1e30 the first step overflows
_RANGES = {
    "learning_rate": Field(gt=0, le=_LARGEST_RATE),
    "weight_decay": Field(ge=0, le=_LARGEST_RATE),
    "warmup_steps": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "num_train_epochs": _POSITIVE,
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "logging_steps": _POSITIVE,
    "save_total_limit": _COUNT,
    "seed": _NOT_NEGATIVE,
}
"""Ranges that transformers leaves to fail in the middle of a run, if at all."""

_KINDS = {
    "labels": ("classification", "similarity", "images"),
    "inputs": ("sentences", "classification", "similarity", "images"),
    "pairs": ("triplets",),
}
"""The kinds of task that have what a method needs: where there are labels there are sentences, too."""


def explain(error: ValidationError, model: type[BaseModel], section: str = "") -> UserError:
    """Turn pydantic's findings on ``model`` into an error for the user: the settings, and their possible values."""
    mistakes: dict[str, UserError] = {}
    for item in error.errors(include_url=False):
        names, parent = _locate(item["loc"], model)
        where = ".".join([section, *names] if section else names)
        if isinstance(mistake := item.get("ctx", {}).get("error"), UserError):
            # It says what better than pydantic can, and where if it knows.
            mistakes[where] = mistake if mistake.where else UserError(mistake.what, where=where, hint=mistake.hint)
            continue
        if item["type"] == "extra_forbidden":
            what, hint = "no such setting", suggestion(names[-1], parent.model_fields)
        elif item["type"] == "missing":
            what, hint = "is missing", None
        elif item["type"] == "model_type":
            what, hint = "is a section of settings, not a value", f"set {where}.<setting>=value"
        else:
            wanted = item["msg"].replace("Input should be", "it must be")
            what = f"{_shortened(item['input'])} is not possible: {wanted}"
            hint = "write null for none" if str(item["input"]).lower() == "none" else None
        # Each member of a union has its say; the last is the widest.
        mistakes[where] = UserError(what, where=where, hint=hint)
    if len(mistakes) == 1:
        return next(iter(mistakes.values()))
    return UserError(f"{len(mistakes)} settings are wrong:\n" + "\n".join(map(str, mistakes.values())))


def _shortened(value: Any, longest: int = 200) -> str:
    """``value`` as Python writes it, of a long one the beginning."""
    written = repr(value)
    return written if len(written) <= longest else f"{written[:longest]}…"


def _locate(path: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The names on ``path`` and the model that holds the last; the labels of unions are left out."""
    names: list[str] = []
    parent, inside = model, True
    keyed: type[BaseModel] | None = None
    for part in path:
        if isinstance(part, int):
            names[-1] += f"[{part}]"
        elif keyed:
            names.append(part)
            parent, keyed = keyed, None
        elif inside:
            names.append(part)
            field = parent.model_fields.get(part)
            section = _of_optional(field.annotation) if field else None
            if get_origin(section) is dict:  # sections by name
                keyed = next((argument for argument in get_args(section) if _is_model(argument)), None)
            inside = _is_model(section) or keyed is not None
            parent = cast(type[BaseModel], section) if _is_model(section) else parent
    return names, parent


def _of_optional(annotation: Any) -> Any:
    """The section of ``Section | None``; any other annotation as it is."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if len(members) == 1 and _is_model(members[0]) else annotation


def _is_model(section: Any) -> bool:
    return inspect.isclass(section) and issubclass(section, BaseModel)


def _model(section: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    definitions: dict[str, Any] = dict(fields)
    return create_model(section, __base__=_Loose, **definitions)


def _validated(model: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, model, model.__name__) from error


@cache
def _train_model() -> type[BaseModel]:
    """Model of the section ``train``, made once: its hundred fields take 0.05 s."""
    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    fields: dict[str, tuple[Any, Any]] = {
        field.name: (_typed(hints[field.name], _RANGES.get(field.name)), None)
        for field in dataclasses.fields(TrainingArguments)
        if field.name not in OURS
    }
    # Our own fields are suggested like the others.
    fields |= {name: (field.annotation, None) for name, field in TrainConfig.model_fields.items()}
    return _model("train", fields)


class _Loose(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def check_method(method: MethodConfig) -> MethodConfig:
    """``method`` with all of its settings, each converted to its type.

    Raises:
        UserError: no such method, no such setting, or a value outside its range.
    """
    from contraverse.methods import METHODS, settings_of

    if method.name not in METHODS:
        raise unknown("method", method.name, METHODS, where="method.name")
    build = METHODS[method.name]
    fields = {name: (setting.annotation, setting.default) for name, setting in settings_of(build).items()}
    settings = _validated(_model("method", fields), method.settings).model_dump()
    try:
        build(**settings)
    except ValueError as error:
        raise UserError(str(error), where="method") from error
    return MethodConfig(name=method.name, **settings)


def check_task(name: str, method: str) -> "Task | ImageTask":
    """The task called ``name``, once it is known to have what ``method`` needs.

    Raises:
        UserError: no such task, or one of another kind.
    """
    from contraverse.data import IMAGE_TASKS, TASKS, any_task
    from contraverse.methods import METHODS

    task, build = any_task(name), METHODS[method]
    fitting = [known.name for known in (TASKS | IMAGE_TASKS).values() if _fits(build, known.kind)]
    if task.name not in fitting:
        wants = "images" if build.modality == "images" else {"inputs": "sentences"}.get(build.requires, build.requires)
        raise UserError(
            f"{method} needs {wants}, and {name} is a task of kind {task.kind}",
            where="task",
            hint=f"tasks that fit: {', '.join(fitting)}",
        )
    return task


def _fits(method: "type[Method]", kind: str) -> bool:
    reads = "images" if kind == "images" else "text"
    return kind in _KINDS[method.requires] and method.modality in ("both", reads)


def check_train(train: TrainConfig) -> TrainConfig:
    """``train`` with each value converted to the type that transformers gives it.

    Raises:
        UserError: no such name in `transformers.TrainingArguments`, a value that it refuses, or one that
            a run decides itself.
    """
    import torch
    from transformers import TrainingArguments

    from contraverse.training.sharding import sharding_settings

    for name in train.arguments:
        if name in OURS:
            raise UserError("cannot be set", where=f"train.{name}", hint=OURS[name])
    # Kept from transformers, whose own splitting of weights is not used.
    splitting = {name: value for name, value in train.arguments.items() if name in ("fsdp", "fsdp_config")}
    sharding_settings(splitting.get("fsdp"), splitting.get("fsdp_config"))
    others = {name: value for name, value in train.arguments.items() if name not in splitting}
    arguments = _validated(_train_model(), others).model_dump(exclude_unset=True)
    try:
        # Writes nothing. Where there is no accelerator, training says use_cpu, which bf16 asks for.
        TrainingArguments(output_dir="", **{"use_cpu": not torch.accelerator.is_available(), **arguments})
    except (ValueError, ImportError) as error:
        raise UserError(str(error), where="train") from error
    check_arguments(arguments, own_optimizer=train.optimizer is not None)
    _check_course(train, arguments)
    own = {name: getattr(train, name) for name in TrainConfig.model_fields}
    return TrainConfig(**own, **arguments, **splitting)


def _check_course(train: TrainConfig, arguments: Mapping[str, Any]) -> None:
    """Build the optimizer and the schedule for nothing, so that a mistake shows before anything is written."""
    import torch

    from contraverse.training.lars import build_optimizer
    from contraverse.training.schedules import build_schedule

    epochs = math.ceil(arguments.get("num_train_epochs", 3))
    for section, build in (
        ("optimizer", lambda name, own: build_optimizer(name, [torch.nn.Parameter(torch.ones(1))], 0.1, **own)),
        ("schedule", lambda name, own: build_schedule(name, epochs, 1, **own)),
    ):
        written = getattr(train, section)
        if written is None:
            continue
        settings = written.model_dump(exclude_none=True)
        try:
            build(settings.pop("name"), settings)
        except UserError as error:
            raise UserError(error.what, where=f"train.{section}", hint=error.hint) from error


def _typed(hint: Any, bounds: Any) -> Any:
    """``hint`` as it can be checked: an Enum by its values alone, a float that may stay an integer, a range."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    choices = [member for member in members if inspect.isclass(member) and issubclass(member, Enum)]
    if choices:
        return Literal[tuple(choice.value for choice in choices[0])]
    if float in members:
        members = (int, *members)
    union: Any = Union[members]  # noqa: UP007
    return Annotated[union, bounds] if bounds is not None else union


OURS = {
    "output_dir": "the run's folder is --output",
    "resume_from_checkpoint": "to go on with a run, use --resume",
    "do_train": "training is what a run is",
    "do_eval": "set train.eval_strategy",
    "do_predict": "the test rows are measured when the run ends",
    "remove_unused_columns": "the collator decides what a batch holds",
    "deepspeed": "its split weights could not be saved and measured; split them by train.fsdp=true, under torchrun",
}
"""Names that a run decides itself, and what to use in their place."""

_HUB = "upload the model of a finished run: hf upload NAME RUN/model"
_EVALUATING = "the run's own evaluators measure; their batch is evaluation.batch_size"
_WITHOUT_MEANING = {
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_always_push", "hub_revision"), _HUB
    ),
    **dict.fromkeys(
        (
            "bf16_full_eval",
            "fp16_full_eval",
            "prediction_loss_only",
            "eval_accumulation_steps",
            "eval_use_gather_object",
            "include_for_metrics",
            "batch_eval_metrics",
        ),
        _EVALUATING,
    ),
    "label_smoothing_factor": "a method computes its own loss from the labels as they are",
    "neftune_noise_alpha": "perturbing the embeddings is what the methods do: contraverse list methods",
    "use_liger_kernel": "its kernels replace layers of whole models of transformers",
    "liger_kernel_config": "its kernels replace layers of whole models of transformers",
    "label_names": "the collator decides what a batch holds",
    "save_only_model": "checkpoints are for going on; a finished run keeps its model alone",
}
"""Names that would change nothing, or stop a run late; the values that change nothing may be set."""


def check_arguments(arguments: Mapping[str, Any], *, own_optimizer: bool) -> None:
    """Refuse what has no meaning here, and what needs a package that is not installed.

    Args:
        arguments: of `transformers.TrainingArguments`, by name, as they were set.
        own_optimizer: whether ``train.optimizer`` takes the place of ``optim``.

    Raises:
        UserError: the first of them.
    """
    for name, hint in _WITHOUT_MEANING.items():
        if arguments.get(name) not in (None, False, 0, [], {}):
            raise UserError("has no meaning here", where=f"train.{name}", hint=hint)
    if arguments.get("report_to") not in (None, "none", [], ["none"]):
        _check_reports(arguments["report_to"])
    if "optim" in arguments and not own_optimizer:
        _check_optimizer(arguments)


def _check_reports(names: str | list[str]) -> None:
    from transformers import TrainingArguments
    from transformers.integrations import get_reporting_integration_callbacks

    listed = TrainingArguments(output_dir="", report_to=names, use_cpu=True).report_to
    try:
        for build in get_reporting_integration_callbacks(listed):
            build()
    except (RuntimeError, ImportError, ValueError) as error:
        hint = 'install it, or report to something else: train.report_to=none, "tensorboard"'
        raise UserError(str(error), where="train.report_to", hint=hint) from error


def _check_optimizer(arguments: Mapping[str, Any]) -> None:
    from torch import nn
    from transformers import Trainer, TrainingArguments

    settings = {name: arguments[name] for name in ("optim", "optim_args") if name in arguments}
    try:
        # Imports the package of an optimizer that is not torch's.
        Trainer.get_optimizer_cls_and_kwargs(
            TrainingArguments(output_dir="", use_cpu=True, **settings), cast(Any, nn.Linear(1, 1))
        )
    except (ImportError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(first, where="train.optim", hint="install it, or choose another") from error
