"""Rows and views as a model and a method take them."""

from contraverse.data import Encoded, EncodedText, ImageData, Rows, TextData
from contraverse.data.encoding import matched
from contraverse.data.images import OneView, SimCLRAugment, TwoViews
from contraverse.errors import UserError
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.types import Method

Views = OneView | TwoViews


def encoded(model: AnyModel, method: Method, rows: Rows) -> Encoded:
    """``rows`` as the model reads them, and the method, where it needs labels: their ids are the model's.

    Raises:
        UserError: images for a model of texts, or the other way round, classes that the model does not know, or a table
            that is not read yet.
    """
    if hasattr(rows, "iloc") or hasattr(rows, "column_names") or isinstance(rows, list | dict):
        raise UserError(
            f"the trainer takes a TextData or an ImageData, not a {type(rows).__name__}",
            hint="read it first: load_splits(task, rows).train, or TextData.from_rows(texts, labels)",
        )
    if isinstance(rows, ImageData) != isinstance(model, ImageModel):
        kinds = ("images", "a model of texts") if isinstance(rows, ImageData) else ("texts", "a model of images")
        raise UserError(f"{kinds[0]}, but {kinds[1]}", hint="train a TextModel on texts and an ImageModel on images")
    if method.requires == "labels":
        rows = matched(rows, model.labels)
    if isinstance(rows, TextData):
        assert isinstance(model, TextModel)
        return EncodedText(rows, model.tokenizer, model.max_length)
    return rows


def views_for(model: AnyModel, method: Method, views: Views | None) -> Views | None:
    """The views that are made of each batch; None of texts.

    Raises:
        UserError: the model or the method reads no images, or the views have no strength, which the method sets.
    """
    read = "images" if isinstance(model, ImageModel) else "text"
    if method.modality not in ("both", read):
        raise UserError(f"{method.name} trains on {method.reads}, and this is a model of {read}")
    if read == "text":
        if views is not None:
            raise UserError("texts have no views", hint="leave views out: dropout makes them")
        return None
    if views is None and method.image_views == 2:
        views = TwoViews(SimCLRAugment())
    if method.augmentation_strength is not None and not hasattr(getattr(views, "augment", None), "strength"):
        raise UserError(f"{method.name} sets the strength of the views", hint="give views=TwoViews(SimCLRAugment())")
    return views
