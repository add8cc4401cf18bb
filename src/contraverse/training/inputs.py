"""Checks and preparation of rows and views for a model and a method."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from contraverse.data import Encoded, EncodedText, ImageSplits, NoisyText, Splits, TextData
from contraverse.data.encoding import matched
from contraverse.data.images import OneView, SimCLRAugment, TwoViews
from contraverse.data.images.lazy import LazyPixels
from contraverse.errors import UserError
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.models.inputs import as_rows, encode_rows
from contraverse.noise import NoiseMixture
from contraverse.types import Method, TrainingInfo

Views = OneView | TwoViews


def encoded(model: AnyModel, method: Method, rows: Any) -> Encoded:
    """``rows`` as the model reads them: texts as tokens. Where the method needs labels, their ids become the model's.

    Args:
        model: a `TextModel` or an `ImageModel`.
        method: a `Method`.
        rows: what `contraverse.models.inputs.as_rows` takes; of several splits those of training.

    Raises:
        UserError: rows of another kind, images for a model of texts or the other way round, classes that the
            model does not know, or rows without the labels or the pairs that the method needs.
    """
    rows = as_rows(model, _train_split(rows))
    texts = rows.data if isinstance(rows, EncodedText) else rows
    if method.requires == "labels":
        if texts.labels is None:
            hint = "give labels, or take a method that needs none, such as SimCSE on texts or SimCLR on images"
            raise UserError(f"{method.name} needs labels, and the rows have none", where=texts.source, hint=hint)
        rows = matched(rows, model.labels)
    if method.requires == "pairs" and isinstance(texts, TextData) and len(texts.columns) < 3:
        hint = "give rows of three texts: anchor, positive, negative"
        raise UserError(f"{method.name} needs pairs, and the rows have none", where=texts.source, hint=hint)
    return encode_rows(model, rows)


def with_noise(model: AnyModel, method: Method, rows: Encoded, noise: NoiseMixture | None) -> Encoded:
    """``rows`` whose batches have ``noise``, in as many views as the method declares; as they are without.

    Raises:
        UserError: the rows are images, or the method chooses among noisy views and there is no noise.
    """
    if noise is None:
        if method.noisy_draws > 1:
            hint = "set data.noise=all, or leave views_of out"
            raise UserError("the worst of several noisy views needs noise", where="method.views_of", hint=hint)
        return rows
    if not isinstance(rows, EncodedText) or not isinstance(model, TextModel):
        raise UserError("noise is for texts, and these rows are images", hint="leave noise out: views are for images")
    return NoisyText(rows, model.tokenizer, noise, method.text_views, method.noisy_draws)


def _train_split(rows: Any) -> Any:
    if isinstance(rows, Splits | ImageSplits):
        return rows.need("train")
    if isinstance(rows, Mapping) and "train" in rows and hasattr(rows, "column_names"):  # a DatasetDict
        return rows["train"]
    return rows


def check_model(model: object) -> None:
    """Refuse what is no model of contraverse.

    Raises:
        UserError: says how to make one of it.
    """
    if isinstance(model, TextModel | ImageModel):
        return
    hint = 'for example TextModel.from_pretrained("minilm", labels=[...])'
    if hasattr(model, "config") and hasattr(model, "base_model_prefix"):
        hint = "make one of it: TextModel.from_transformers(model, tokenizer)"
    elif isinstance(model, nn.Module):
        hint = "make one of it: ImageModel(encoder, width, labels=[...])"
    elif isinstance(model, str):
        hint = f"load it first: TextModel.from_pretrained({model!r}, labels=[...])"
    raise UserError(f"the model must be a TextModel or an ImageModel, not a {type(model).__name__}", hint=hint)


def check_method(method: object) -> None:
    """Refuse what is no method.

    Raises:
        UserError: a class, a name, or something else.
    """
    if isinstance(method, Method):
        return
    if isinstance(method, type) and issubclass(method, Method):
        raise UserError(f"the method is the class {method.__name__}", hint=f"make one of it: {method.__name__}()")
    hint = (
        f"make one by its name: METHODS[{method!r}]()" if isinstance(method, str) else "for example SCAL(epsilon=0.3)"
    )
    raise UserError(f"the method must be a Method, not a {type(method).__name__}", hint=hint)


def views_for(model: AnyModel, method: Method, views: Views | None) -> Views | None:
    """The views that are made of each batch; None of texts.

    Raises:
        UserError: the model or the method reads no images, or the views have no strength, which the method sets.
    """
    if method.modality not in ("both", model.modality):
        raise UserError(f"{method.name} trains on {method.modality}, and this is a model of {model.modality}")
    if model.modality == "text":
        if views is not None:
            raise UserError("texts have no views", hint="leave views out: dropout makes them")
        return None
    if views is None and method.image_views == 2:
        views = TwoViews(SimCLRAugment())
    if method.augmentation_strength is not None and not hasattr(getattr(views, "augment", None), "strength"):
        raise UserError(f"{method.name} sets the strength of the views", hint="give views=TwoViews(SimCLRAugment())")
    return views


def training_info(model: AnyModel, rows: Encoded, args: TrainingArguments) -> TrainingInfo:
    """Collect the facts about rows, model and length of training that a method may prepare by."""
    labels, an_epoch = rows.labels, _epoch_rows(args, len(rows))
    in_steps = args.max_steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    info = TrainingInfo(
        num_examples=len(rows.data) if isinstance(rows, EncodedText) else len(rows),
        hidden_size=model.width,
        labels=None if labels is None else torch.as_tensor(labels),
        epochs=float(args.num_train_epochs) if args.max_steps <= 0 else in_steps / max(1, an_epoch),
        epoch_examples=an_epoch,
    )
    if isinstance(model, ImageModel):
        return info
    return dataclasses.replace(
        info,
        vocab_size=model.embedding_shape[0],
        mask_id=model.tokenizer.mask_token_id,
        special_ids=tuple(model.tokenizer.all_special_ids),
    )


def _epoch_rows(args: TrainingArguments, rows: int) -> int:
    at_once = args.train_batch_size * args.world_size
    if args.dataloader_drop_last:
        return rows // at_once * at_once
    return rows if args.world_size == 1 else math.ceil(rows / at_once) * at_once


def with_negatives(args: TrainingArguments, method: Method, rows: int) -> TrainingArguments:
    """``args`` with which every batch of a method with in-batch negatives has two rows or more.

    A last batch of one row is dropped: its row is in another batch in the next epoch.

    Raises:
        UserError: see `check_negatives`.
    """
    at_once = args.train_batch_size * args.world_size
    check_negatives(method, at_once, rows)
    one_left = method.in_batch_negatives and args.world_size == 1 and rows % at_once == 1
    return dataclasses.replace(args, dataloader_drop_last=True) if one_left else args


def check_negatives(method: Method, at_once: int, rows: int) -> None:
    """Check that there are batches in which a method with in-batch negatives finds some.

    Args:
        method: training method.
        at_once: rows that all processes compute at once.
        rows: rows to train on.

    Raises:
        UserError: all batches have one row.
    """
    if method.in_batch_negatives and min(at_once, rows) == 1:
        raise UserError(
            f"{method.name} takes a row's negatives from its batch, and every batch has one row",
            where="train.global_batch_size" if at_once == 1 else "",
            hint="set it to 2 or more (accumulated batches add no negatives)" if at_once == 1 else "give more rows",
        )


def with_workers(args: TrainingArguments, rows: Any) -> TrainingArguments:
    """``args`` with processes that decode images, where ``rows`` are decoded when a batch is made and none are set.

    A process of training gets up to eight, and no more than its share of the processors. What is drawn, and in which
    order, is the same with any number.
    """
    if not isinstance(getattr(rows, "pixels", None), LazyPixels) or args.dataloader_num_workers:
        return args
    workers = min(8, (os.cpu_count() or 1) // max(1, args.world_size))
    return dataclasses.replace(args, dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0)


def check_chunks(contrast_chunk: int | None, args: TrainingArguments) -> None:
    """Check that a batch can be embedded in chunks of ``contrast_chunk`` rows; None is always right.

    Raises:
        UserError: no row at once, or a compiled model.
    """
    if contrast_chunk is None:
        return
    if contrast_chunk < 1:
        raise UserError(
            f"a chunk has {contrast_chunk} rows", where="train.contrast_chunk", hint="set it to 1 or more, or null"
        )
    if args.torch_compile:
        # The second run of a chunk, in the backward pass, is not compiled: its dropout masks would be others.
        raise UserError(
            "a compiled model cannot run chunks again",
            where="train.contrast_chunk",
            hint="leave out train.torch_compile or train.contrast_chunk",
        )
