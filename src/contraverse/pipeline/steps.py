"""Steps of a run in which texts and images differ, behind one class; and all that a run needs from the Hub."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

import numpy as np
import torch

from contraverse.data import ImageSplits, TextSplits
from contraverse.data.images import OneView, TwoViews
from contraverse.errors import UserError
from contraverse.evaluation import StsSources
from contraverse.methods import METHODS
from contraverse.models import ImageModel, TextModel
from contraverse.models.backbones import TIMM
from contraverse.models.detector import class_id
from contraverse.noise import NoiseMixture
from contraverse.pipeline.measure import measure_task, progress_total
from contraverse.pipeline.result import Counting, Say
from contraverse.recipes import ImageRunConfig, RunConfig, Stage, TrainConfig, split_stages
from contraverse.training import DEFAULTS
from contraverse.training.classes import check_classes, weights_of_classes
from contraverse.training.inputs import check_negatives
from contraverse.training.ranks import started_processes
from contraverse.types import UNLABELLED, Method, TrainingInfo

AnySplits = TextSplits | ImageSplits
S = TypeVar("S", TextSplits, ImageSplits)
M = TypeVar("M", TextModel, ImageModel)
_PATIENCE = 10.0
"""Seconds to wait for the Hub's answer about one name."""


class Steps(ABC, Generic[S, M]):
    """Loading, starting and measuring of one run; `contraverse.pipeline.run` calls them in the order of this class.

    `TextSteps` and `ImageSteps` are the two kinds, and `steps_of` chooses one for a configuration. The method is built
    once, when it is first needed.

    Args:
        config: of the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @cached_property
    def method(self) -> Method:
        """The run's training method, with its settings."""
        return METHODS[self.config.method.name](**self.config.method.settings)

    @property
    def supervised(self) -> bool:
        """True where labels of the rows are trained on, and the model is measured as a classifier or regressor."""
        return METHODS[self.config.method.name].requires == "labels"

    @abstractmethod
    def rows_on_hub(self) -> list[str]:
        """Names of the data sets of rows that lie on the Hugging Face Hub."""

    @abstractmethod
    def model_on_hub(self) -> bool:
        """True where ``model.name`` is a name on the Hugging Face Hub."""

    @property
    def sts_on_hub(self) -> list[str]:
        """Names of the STS sets on the Hub that the encoder is measured on."""
        return []

    @cached_property
    def sts(self) -> StsSources | None:
        """Pairs by which a sentence encoder is chosen and measured; None where there are none.

        Raises:
            UserError: they cannot be used.
        """
        return None

    @abstractmethod
    def load(self) -> S:
        """Load all rows of the configured source."""

    def load_and_prepare(self, *, test: bool) -> S:
        """Load the rows as the method needs them: with labels or without.

        Args:
            test: keep the test rows; False leaves them out, as a search does.

        Raises:
            UserError: the source cannot be used, or lacks what the method needs.
        """
        splits = self.load()
        self.check_rows(splits)
        train = splits.need("train")
        labels = torch.as_tensor(train.labels) if self.supervised and train.labels is not None else None
        self.method.check_data(TrainingInfo(len(train), labels=labels))
        check_negatives(self.method, batch_of(self.config.train)[0], len(train))
        if self.supervised and self.config.evaluation.positive is not None:
            class_id(self.config.evaluation.positive, train.label_names, where="evaluation.positive")
        if self.supervised:
            self.hide_labels(splits)
        else:
            self.drop_labels(splits)
        if not test:
            splits.test = None
        self._check_classes(splits)
        if self.supervised:
            splits.notes.extend(missing_classes(splits))
        return splits

    def _check_classes(self, splits: S) -> None:
        """Check the weights of classes and the balance of batches, and note them."""
        train, rows = self.config.train, splits.need("train")
        if train.batches == "balanced":
            check_classes(self.method, rows, "train.batches")
        if train.class_weights is not None:
            names = rows.label_names or ()
            weights = weights_of_classes(train.class_weights, self.method, rows, names).tolist()
            listed = [f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True)]
            more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
            splits.notes.append(f"the cross-entropy is weighted by class: {', '.join(listed[:8])}{more}")

    @abstractmethod
    def check_rows(self, splits: S) -> None:
        """Refuse rows that lack what the method needs.

        Raises:
            UserError: no labels, no pairs, or settings that do not go with the rows.
        """

    def hide_labels(self, splits: S) -> None:
        """Hide labels of training rows that ``data.labels`` leaves out."""
        return None

    @abstractmethod
    def drop_labels(self, splits: S) -> None:
        """Remove the labels of the training rows, for a method that reads none."""

    @abstractmethod
    def row_bytes(self, data: Any) -> Iterator[bytes]:
        """Inputs of all rows in order, for their fingerprint."""

    def assign_pseudo_labels(self, splits: S) -> None:
        """Let the teacher that the configuration names predict the labels that training rows lack."""
        return None

    def check_teacher(self, splits: S) -> None:
        """Check that the teacher can be loaded and has the classes of the rows.

        Raises:
            UserError: the teacher cannot be used.
        """
        return None

    @abstractmethod
    def init_model(self, splits: S) -> tuple[M, list[str]]:
        """Build the model that training starts from, and notes for the user.

        Raises:
            UserError: no such model, or one that does not fit.
        """

    @abstractmethod
    def check_model(self) -> None:
        """Build the encoder without rows and drop it: a dry run of which the rows are on the Hub.

        Raises:
            UserError: no such model, or one that does not fit.
        """

    def check_architecture(self, splits: S | None) -> None:
        """Check a model on the Hub as far as that can be done without its weights.

        Raises:
            UserError: the settings or the rows do not go with it.
        """
        return None

    def pin(self) -> RunConfig:
        """Return the configuration with the commit of the Hub model that was just loaded: it repeats the run."""
        return self.config

    def views(self, splits: S) -> OneView | TwoViews | None:
        """Build the random views of training images; None for texts."""
        return None

    @property
    def noise(self) -> NoiseMixture | None:
        """Noise of training texts; None without, and for images."""
        return None

    def trained_model(self, model: M) -> M:
        """Return the network that is saved and measured: the trained one, or the copy that its method keeps."""
        return cast(M, self.method.kept_model(model))

    @abstractmethod
    def source_columns(self, splits: S) -> dict[str, Any]:
        """Number of texts in a row (``columns``) and columns of the source that hold them (``read_from``)."""

    def training_figures(self, splits: S) -> dict[str, float]:
        """Figures of the training rows that were measured before training, by name."""
        return {}

    @abstractmethod
    def measure(self, splits: S, model: M, *, say: Say, counting: Counting, test: bool) -> dict[str, Any]:
        """Measure the saved model.

        Returns:
            ``split``, ``metrics`` and what else `contraverse.pipeline.measure` gives.
        """

    def measure_classifier(self, splits: S, model: M, *, say: Say, counting: Counting) -> dict[str, Any]:
        """Measure a classifier or regressor on test rows; on validation or training rows where there are no others."""
        settings = self.config.evaluation
        split: Literal["test", "validation", "train"] = (
            "test" if splits.test is not None else "validation" if splits.validation is not None else "train"
        )
        if settings.split == "validation" and splits.validation is not None:
            split = "validation"
        rows, classes = splits.need(split), len(model.labels or ())
        attacked = min(settings.rows or len(rows), len(rows)) if settings.epsilons and classes > 1 else 0
        say(f"Measuring on {len(rows):,} {split} rows" + (f", {attacked:,} of them attacked" if attacked else ""))
        with counting("Measuring", progress_total(model, len(rows), settings)) as progress:
            measured = measure_task(
                model,
                rows,
                splits.task,
                settings,
                seed=self.config.data.seed,
                bn_branch=self.method.bn_branch,
                progress=progress,
            )
        return {"split": split, **measured}

    def class_names(self, splits: S) -> list[str] | None:
        """Names of the classes; ``["score"]`` for a regression, None for an encoder."""
        if self.method.requires != "labels":
            return None
        names = splits.need("train").label_names
        return list(names) if names else ["score"]

    def needs_own_teacher(self) -> bool:
        """True where the model that training starts from has to be a classifier that predicts the missing labels."""
        return self.method.teacher == "targets" and getattr(self.config.data, "pseudo_labels", None) is None

    def no_teacher(self, labels: str) -> UserError:
        """Build the error for a start that cannot be the teacher; ``labels``: the classes, listed."""
        name = self.config.model.name
        return UserError(
            f"{self.method.name} learns from a teacher, and {name} has no classifier of {labels}",
            where="model.name",
            hint="begin from the run of a classifier with --init, or of images name one with data.pseudo_labels",
        )


def missing_classes(splits: AnySplits) -> list[str]:
    """Note classes of the training rows that validation or test rows have none of: figures leave them out."""
    train, notes = splits.need("train"), list[str]()
    if train.labels is None or train.label_names is None:
        return notes
    trained = set(np.unique(np.asarray(train.labels)).tolist()) - {UNLABELLED}
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        if rows is None or rows.labels is None:
            continue
        present = set(np.unique(np.asarray(rows.labels)).tolist())
        missing = [train.label_names[label] for label in sorted(trained - present)]
        if not missing:
            continue
        if len(present) == 1:
            what = f"all {len(rows)} {name} rows are of the class {train.label_names[min(present)]}"
            use = "the best epoch is chosen by" if name == "validation" else "the figures are of"
            notes.append(f"{what}: {use} one class alone")
        else:
            listed = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            notes.append(f"no {name} row is of the class{'es' * (len(missing) > 1)} {listed}")
    return notes


def steps_of(config: RunConfig) -> Steps[Any, Any]:
    """Choose the steps of a run on texts or on images: the one place where that is decided."""
    from contraverse.pipeline.images import ImageSteps  # both kinds import this module
    from contraverse.pipeline.text import TextSteps

    return ImageSteps(config) if isinstance(config, ImageRunConfig) else TextSteps(config)


class OnHub(NamedTuple):
    """Names on the Hub: data sets of rows, the model (None: it is here), and STS sets to measure on."""

    rows: list[str]
    model: str | None
    sts: list[str]


def on_hub(stage: Stage) -> OnHub:
    """The names on the Hub that the run of ``stage`` needs; a model that an earlier stage leaves is none."""
    steps = steps_of(stage.config)
    model = stage.config.model.name if stage.init_from is None and steps.model_on_hub() else None
    return OnHub(steps.rows_on_hub(), model, steps.sts_on_hub)


def check_hub(config: RunConfig) -> list[str]:
    """Check that everything that the run needs from the Hub is in the cache or can be reached, and list it.

    Raises:
        UserError: some of it is neither; the message names all of that, and the options that take local copies.
    """
    parts = [on_hub(stage) for stage in split_stages(config)]
    needed = {"model": dict.fromkeys(part.model for part in parts if part.model)}
    needed["data"] = dict.fromkeys(name for part in parts for name in part.rows)
    needed["STS"] = dict.fromkeys(name for part in parts for name in part.sts)
    missing = {kind: [name for name in names if not _reachable(name, kind)] for kind, names in needed.items()}
    if any(missing.values()):
        flags = " ".join(_LOCAL[kind] for kind, names in missing.items() if names)
        otherwise = "; without --paper it trains minilm, which needs no network" if config.paper else ""
        raise UserError(
            f"cannot be had from the Hugging Face Hub: {', '.join(_listed(missing))}",
            hint=f"check the names and the network, or give local copies: {flags}{otherwise}",
        )
    return _listed({kind: list(names) for kind, names in needed.items()})


_LOCAL = {
    "model": "--model FOLDER",
    "data": "--data FOLDER (with files train, validation and test)",
    "STS": "--set evaluation.sts=FOLDER",
}


def _listed(names: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{kind} {', '.join(named)}" for kind, named in names.items() if named]


def _reachable(name: str, kind: str) -> bool:
    """True where the cache or the Hub has it."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    repository, model = name.partition(":")[0], kind == "model"
    if name.startswith(TIMM):  # timm knows its weights by shorter names than the Hub does
        return True
    if model and isinstance(try_to_load_from_cache(repository, "config.json"), str):
        return True
    flat = repository.replace("/", "--")
    kept = [Path(HF_HUB_CACHE) / f"datasets--{flat}", Path(HF_DATASETS_CACHE) / repository.replace("/", "___")]
    if not model and any(folder.is_dir() for folder in kept):
        return True
    with suppress(Exception):  # offline, no such name, no answer: it cannot be had, whatever the reason
        if model:
            HfApi().model_info(repository, timeout=_PATIENCE)
        else:
            HfApi().dataset_info(repository, timeout=_PATIENCE)
        return True
    return False


def batch_of(train: TrainConfig) -> tuple[int, int]:
    """Rows that all processes compute at once, and rows of one step of the optimizer, which may accumulate."""
    accumulated = train.arguments.get("gradient_accumulation_steps", 1)
    if train.global_batch_size is not None:
        return train.global_batch_size // accumulated, train.global_batch_size
    each = train.arguments.get("per_device_train_batch_size", DEFAULTS["per_device_train_batch_size"])
    return each * started_processes(), each * started_processes() * accumulated
