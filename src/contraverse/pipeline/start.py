"""What training starts from: an encoder, or the model that another run left."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForSequenceClassification

from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.models.storage import SETTINGS
from contraverse.recipes import ModelConfig
from contraverse.types import HeadSpec


def model_of(folder: str | Path) -> Path:
    """The model of a finished run, or ``folder`` itself where it is a model's.

    Raises:
        UserError: the run is not finished, or there is no model.
    """
    folder = Path(folder)
    where = str(folder)
    if not (folder / "config.yaml").is_file():
        if (folder / "config.json").is_file():
            return folder
        hint = "give the folder of a finished run, or its model/ folder"
        raise UserError("no run and no model is here", where=where, hint=hint)
    if not (folder / "evaluation.json").is_file():
        raise UserError("this run is not finished", where=where, hint="finish it first: contraverse train --resume")
    if not (folder / "model" / "config.json").is_file():
        raise UserError("this run has no model any more", where=where, hint="repeat it from its config.yaml")
    return folder / "model"


def start_model(
    settings: ModelConfig, labels: Sequence[str] | None, heads: Mapping[str, HeadSpec]
) -> tuple[TextModel, list[str]]:
    """The model that training begins with, and what its user should know.

    From a model that was trained before, the encoder is taken; its classifier if it is for exactly ``labels``; and
    those of its heads that are among ``heads``, of the same kind and size. Everything else is drawn anew.

    Raises:
        UserError: no such model, or a count of layers that it does not have.
    """
    folder = Path(settings.name)
    trained = (folder / "config.json").is_file()
    notes = []
    before = _classes(folder) if trained and labels is not None else None
    if before is not None and before != list(labels or ()):
        notes.append(f"{settings.name} tells {_listed(before)} apart: the classifier is drawn anew")
        model = _with_new_classifier(settings, labels or ())
    else:
        model = TextModel.from_pretrained(settings.name, labels=labels, **settings.model_dump(exclude={"name"}))
    if trained and (folder / SETTINGS).is_file():
        notes += _other_reading(settings, json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        _take_heads(model, TextModel.load(folder), heads)
    return model, notes


def _classes(folder: Path) -> list[str] | None:
    """The classes of the classifier in ``folder``; None where there is no classifier."""
    config = AutoConfig.from_pretrained(folder)
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        return None
    return [config.id2label[i] for i in range(config.num_labels)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _with_new_classifier(settings: ModelConfig, labels: Sequence[str]) -> TextModel:
    plain = TextModel.from_pretrained(settings.name, **settings.model_dump(exclude={"name"}))
    config = copy.deepcopy(plain.encoder.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: i for i, name in enumerate(labels)}
    config.problem_type = "regression" if len(labels) == 1 else "single_label_classification"
    encoder = AutoModelForSequenceClassification.from_config(config)
    # Where a classifier has no pooler, as RoBERTa's, the plain encoder's is left over.
    left_out = encoder.base_model.load_state_dict(plain.encoder.state_dict(), strict=False).missing_keys
    assert not left_out, left_out
    return TextModel(
        encoder,
        plain.tokenizer,
        labels=labels,
        pooling=settings.pooling,
        embedding=settings.embedding,
        max_length=settings.max_length,
    )


def _take_heads(model: TextModel, trained: TextModel, heads: Mapping[str, HeadSpec]) -> None:
    fitting = {
        name: spec
        for name, spec in heads.items()
        if trained.head_specs.get(name) == spec and (trained.width, trained.words) == (model.width, model.words)
    }
    model.add_heads(fitting)
    for name in fitting:
        model.heads[name].load_state_dict(trained.heads[name].state_dict())


def _other_reading(settings: ModelConfig, stored: Mapping[str, Any]) -> list[str]:
    if stored["pooling"] == settings.pooling:
        return []
    return [f"{settings.name} was trained with pooling {stored['pooling']}, and goes on with {settings.pooling}"]
