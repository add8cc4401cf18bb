"""What a configuration is checked against: pydantic for the sections, and what only heavy imports know.

The names and ranges of a method's settings are its constructor's, those of ``train`` are transformers'. Both are
read off the code when a run is configured, so that no list of them can grow old, and `contraverse.recipes` itself
imports without torch.
"""

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from contraverse.errors import UserError
from contraverse.recipes.arguments import OURS, check_arguments
from contraverse.recipes.config import MethodConfig, Section, TrainConfig

if TYPE_CHECKING:
    from contraverse.data import ImageTask, Task
    from contraverse.types import Method

_POSITIVE, _NOT_NEGATIVE, _COUNT = Field(gt=0), Field(ge=0), Field(ge=1)
_RANGES = {
    "learning_rate": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
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


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that ``name`` looks like, and all of them."""
    names = list(known)
    if not names:
        return "there are none to set"
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    listed = f"known: {', '.join(names)}" if len(names) <= 24 else ""
    return " ".join(filter(None, [f'did you mean "{close[0]}"?' if close else "", listed]))


def explain(error: ValidationError, model: type[BaseModel], section: str = "") -> UserError:
    """Pydantic's findings on ``model`` in a user's words: which settings, what they may be."""
    found: dict[str, UserError] = {}
    for item in error.errors(include_url=False):
        names, parent = _locate(item["loc"], model)
        where = ".".join([section, *names] if section else names)
        if isinstance(mistake := item.get("ctx", {}).get("error"), UserError):
            found[where] = mistake  # says what and where better than pydantic can
            continue
        if item["type"] == "extra_forbidden":
            what, hint = "no such setting", nearest(names[-1], parent.model_fields)
        elif item["type"] == "missing":
            what, hint = "is missing", None
        elif item["type"] == "model_type":
            what, hint = "is a section of settings, not a value", f"set {where}.<setting>=value"
        else:
            wanted = item["msg"].replace("Input should be", "it must be")
            what = f"{_shortened(item['input'])} is not possible: {wanted}"
            hint = "write null for none" if str(item["input"]).lower() == "none" else None
        # Each member of a union has its say; the last is the widest.
        found[where] = UserError(what, where=where, hint=hint)
    if len(found) == 1:
        return next(iter(found.values()))
    return UserError(f"{len(found)} settings are wrong:\n" + "\n".join(str(mistake) for mistake in found.values()))


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
            section = field.annotation if field else None
            if get_origin(section) is dict:  # sections by name
                keyed = next((one for one in get_args(section) if _is_model(one)), None)
            inside = _is_model(section) or keyed is not None
            parent = cast(type[BaseModel], section) if _is_model(section) else parent
    return names, parent


def _is_model(section: Any) -> bool:
    return inspect.isclass(section) and issubclass(section, BaseModel)


def _validated(section: str, fields: Mapping[str, tuple[Any, Any]], values: Mapping[str, Any]) -> BaseModel:
    definitions: dict[str, Any] = dict(fields)
    model = create_model(section, __base__=_Loose, **definitions)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, model, section) from error


class _Loose(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def check_method(method: MethodConfig) -> MethodConfig:
    """``method`` with every setting of its constructor, converted to its type.

    Raises:
        UserError: no such method, no such setting, or a value outside its range.
    """
    from contraverse.methods import METHODS

    if method.name not in METHODS:
        raise UserError(f'no method is called "{method.name}"', where="method.name", hint=nearest(method.name, METHODS))
    build = METHODS[method.name]
    settings = _validated("method", _settings(build.__init__), method.settings).model_dump()
    try:
        build(**settings)
    except ValueError as error:
        raise UserError(str(error), where="method") from error
    return MethodConfig(name=method.name, **settings)


def _settings(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    hints = get_type_hints(function, include_extras=True)
    return {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


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

    for name in train.arguments:
        if name in OURS:
            raise UserError("cannot be set", where=f"train.{name}", hint=OURS[name])
    hints = get_type_hints(TrainingArguments)
    fields = {
        field.name: (_typed(hints[field.name], _RANGES.get(field.name)), None)
        for field in dataclasses.fields(TrainingArguments)
        if field.name not in OURS
    }
    # To be suggested like the others.
    fields |= {name: (field.annotation, None) for name, field in TrainConfig.model_fields.items()}
    arguments = _validated("train", fields, train.arguments).model_dump(exclude_unset=True)
    try:
        # Writes nothing. Where there is no accelerator, training says use_cpu, which bf16 asks for.
        TrainingArguments(output_dir="", **{"use_cpu": not torch.accelerator.is_available(), **arguments})
    except (ValueError, ImportError) as error:
        raise UserError(str(error), where="train") from error
    check_arguments(arguments, own_optimizer=train.optimizer is not None)
    _check_course(train, arguments)
    own = {name: getattr(train, name) for name in TrainConfig.model_fields}
    return TrainConfig(**own, **arguments)


def _check_course(train: TrainConfig, arguments: Mapping[str, Any]) -> None:
    """Build the optimizer and the schedule for nothing, so that a mistake shows before anything is written."""
    import torch

    from contraverse.training.lars import build_optimizer
    from contraverse.training.schedules import build_schedule

    epochs = math.ceil(arguments.get("num_train_epochs", 3))
    for section, build in (
        ("optimizer", lambda name, said: build_optimizer(name, [torch.nn.Parameter(torch.ones(1))], 0.1, **said)),
        ("schedule", lambda name, said: build_schedule(name, epochs, 1, **said)),
    ):
        said = getattr(train, section)
        if said is None:
            continue
        settings = said.model_dump(exclude_none=True)
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
