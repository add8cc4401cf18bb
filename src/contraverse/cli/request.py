"""Requests to ``contraverse evaluate``: a model, the settings of its run with the flags over them, and the flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from contraverse.cli.checks import positive
from contraverse.cli.files import Loaded, Split, own
from contraverse.cli.noise import noise_values
from contraverse.errors import UserError
from contraverse.recipes import DataConfig, EvaluationConfig, ImageDataConfig, ImageEvaluationConfig

if TYPE_CHECKING:
    from contraverse.data import ImageTask, Task

Data = TypeVar("Data", DataConfig, ImageDataConfig)


def given_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of ``options`` (by their names in Python) that were given, with their values; not those that turn off."""
    return {
        "--" + name.replace("_", "-"): value
        for name, value in options.items()
        if value is not None and value is not False
    }


@dataclass(frozen=True)
class Request:
    """One call of ``contraverse evaluate``.

    Attributes:
        loaded: the model and the run that made it.
        settings: those of the run, with the flags over them.
        options: value of every option by its name in Python; None where it was not given.
    """

    loaded: Loaded
    settings: EvaluationConfig
    options: Mapping[str, Any]

    @property
    def split(self) -> Split:
        """The rows that are measured."""
        split: Split = self.options["split"]
        return split

    @property
    def attack(self) -> str:
        """The attack by name: the flag's, else that of the settings."""
        return str(self.options["attack"] or self.settings.attack)

    @property
    def of_images(self) -> bool:
        """True for a model that reads images."""
        return is_image_model(self.loaded)

    @property
    def is_encoder(self) -> bool:
        """True for a model without classes."""
        return self.loaded.model.labels is None

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that were given, with their values; those that turn something off are not among them."""
        return given_flags(self.options)

    @property
    def form(self) -> dict[str, Any]:
        """Form of text files: arguments of `contraverse.data.load_splits`."""
        return {name: self.options[name] for name in ("delimiter", "encoding")}

    def task_and_data(self) -> tuple["Task", DataConfig]:
        """The task of texts, and the place of its rows: the run's, where the flags name no other.

        Raises:
            UserError: no task is named.
        """
        from contraverse.data import get_task

        run = self.loaded.run
        name = self.options["task"] or (run.task if run else None)
        if name is None:
            raise UserError("no task is named", hint="name it with --task; contraverse list tasks shows them")
        task = get_task(name)
        return task, self._placed(task.name, DataConfig(), {"text": self.options["text"], **self.form})

    def image_task_and_data(self) -> tuple["ImageTask", ImageDataConfig]:
        """The task of images, and the place of its images: the run's, where the flags name no other."""
        from contraverse.data import get_image_task

        run = self.loaded.run
        task = get_image_task(self.options["task"] or (run.task if run else "images"))
        return task, self._placed(task.name, ImageDataConfig(), {})

    def _placed(self, task: str, default: Data, flags: Mapping[str, Any]) -> Data:
        """The run's data settings, where the run is of this task and source, with the flags over them."""
        source, run = self.options["data"], self.loaded.run
        same = run is not None and run.task == task and (source is None or own(self.loaded, source))
        base = run.data if run is not None and same else default
        assert isinstance(base, type(default))
        values = {"source": source, "label": self.options["label"], "on_bad_row": self.options["on_bad_row"], **flags}
        return base.model_copy(update={name: value for name, value in values.items() if value is not None})


def is_image_model(loaded: Loaded) -> bool:
    """True for a model that reads images."""
    from contraverse.models import ImageModel

    return isinstance(loaded.model, ImageModel)


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an evaluation that the options give.

    Raises:
        UserError: a radius or a step is not possible.
    """
    eps, step_size = options["eps"], options["step_size"]
    values = {name: options.get(name) for name in EvaluationConfig.model_fields if name != "split"}
    values |= {
        "epsilons": [] if eps == "none" else None if eps is None else positive(eps, "--eps"),
        "step_size": None if step_size is None else positive(step_size, "--step-size", at_most=1)[0],
    }
    return {name: value for name, value in values.items() if value is not None} | noise_values(options)


def with_settings(loaded: Loaded, values: Mapping[str, Any]) -> EvaluationConfig:
    """The evaluation settings of the model's run, or the defaults of its modality, with ``values`` over them."""
    default = ImageEvaluationConfig() if is_image_model(loaded) else EvaluationConfig()
    return (loaded.run.evaluation if loaded.run else default).model_copy(update=dict(values))


def existing_file(source: Any) -> Path | None:
    """``source`` as a path where it is a file."""
    return Path(source) if isinstance(source, str) and Path(source).is_file() else None
