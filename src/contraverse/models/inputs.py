"""Inputs as users hold them (texts, files, PIL images, arrays) as rows that a model reads; counts of their tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contraverse.data import Encoded, EncodedText, ImageData, ImageSplits, Rows, Splits, TextData
from contraverse.data.images.dataset import to_floats
from contraverse.data.images.source import BadImage, decode, pil_pixels
from contraverse.errors import UserError

if TYPE_CHECKING:
    from contraverse.models import AnyModel

_COLUMNS = {1: ("text",), 2: ("sentence1", "sentence2")}
_AT_ONCE = 4096
"""Rows that are tokenized at a time to count tokens."""


def text_list(texts: Any) -> list[Any]:
    """``texts`` as a list: a list, a tuple, an array, a generator, a column of pandas or of `datasets`.

    Raises:
        UserError: one string, or a table, whose iteration gives something else than its texts.
    """
    if isinstance(texts, str):
        raise UserError("expected a list of texts, not one string", hint="put it into a list: [text]")
    if isinstance(texts, Mapping) or hasattr(texts, "column_names") or (hasattr(texts, "iloc") and texts.ndim != 1):
        hint = 'give one column of it, such as table["text"]'
        raise UserError(f"expected a list of texts, not a {type(texts).__name__}", hint=hint)
    return list(texts)


def text_data(texts: Any) -> TextData:
    """Rows of one text each, or of a pair each, to predict: what `text_list` takes, or a `TextData`.

    Raises:
        UserError: as `text_list`; or a row is neither a text nor a pair of texts, or not as the first row.
    """
    rows = texts.texts if isinstance(texts, TextData) else text_list(texts)
    rows = [tuple(row) if isinstance(row, list | tuple | np.ndarray) else (row,) for row in rows]
    width = len(rows[0]) if rows else 1
    for i, row in enumerate(rows):
        if width not in _COLUMNS or len(row) != width or not all(isinstance(text, str) for text in row):
            wanted = "a pair of texts" if width == 2 else "a text"
            shown = row[0] if len(row) == 1 else row
            raise UserError(f"expected {wanted}, got {shown!r}", where=f"row {i}")
    return TextData(rows, None, None, _COLUMNS[width])


def as_rows(model: "AnyModel", rows: Any) -> Rows:
    """Rows for ``model``: a `TextData` or an `ImageData`, made of a table where ``rows`` is one.

    Args:
        model: a model of texts or of images.
        rows: data of contraverse; or a `datasets.Dataset`, or, of texts, a pandas data frame or a list of dicts, whose
            columns have usual names (see `TextData.from_csv`).

    Raises:
        UserError: something else, images for a model of texts or the other way round, or a table that cannot be read.
    """
    of_images = model.modality == "images"
    if not isinstance(rows, TextData | EncodedText | ImageData):
        rows = _read_table(rows, of_images)
    if isinstance(rows, ImageData) != of_images:
        kinds = ("texts", "a model of images") if of_images else ("images", "a model of texts")
        raise UserError(f"{kinds[0]}, but {kinds[1]}", hint="give texts to a TextModel and images to an ImageModel")
    return rows


def _read_table(rows: Any, of_images: bool) -> Rows:
    kind = type(rows).__name__
    if isinstance(rows, Mapping) and hasattr(rows, "column_names"):
        raise UserError(f"expected rows, got a {kind} of several splits", hint=f"choose one: {', '.join(rows)}")
    if isinstance(rows, Splits | ImageSplits):
        raise UserError(f"expected rows, got {kind} of several splits", hint="choose one: splits.test")
    if hasattr(rows, "column_names"):
        return ImageData.from_dataset(rows) if of_images else TextData.from_dataset(rows)
    if not of_images and hasattr(rows, "iloc") and hasattr(rows, "columns"):
        return TextData.from_pandas(rows)
    if not of_images and isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        return TextData.from_list(rows)
    hint = "ImageData.from_arrays(pixels, labels)" if of_images else "TextData.from_rows(texts, labels)"
    raise UserError(f"expected {'an ImageData' if of_images else 'a TextData'}, got a {kind}", hint=f"make one: {hint}")


def encode_rows(model: "AnyModel", rows: Rows) -> Encoded:
    """Texts as tokens of the model's tokenizer, cut at its ``max_length``; other rows as they are."""
    if not isinstance(rows, TextData):
        return rows
    text_model: Any = model
    return EncodedText(rows, text_model.tokenizer, text_model.max_length)


def image_pixels(images: Any, size: Sequence[int] | None) -> list[Tensor]:
    """Pixels (3, H, W) in [0, 1], float32, of each image.

    Args:
        images: see `contraverse.models.ImageModel.predict`.
        size: height and width that files and PIL images are scaled to, where both are equal; None leaves them.

    Raises:
        UserError: a single image, or one that cannot be read; ``image 3`` says which.
    """
    if isinstance(images, str | Path | Image.Image):
        raise UserError("expected a list of images, not one image", hint="put it into a list: [image]")
    if isinstance(images, ImageData):
        images = images.pixels
    if isinstance(images, Tensor | np.ndarray):
        return list(_floats(images))
    side = size[0] if size is not None and size[0] == size[1] else None
    return [_read_image(image, side, f"image {i}") for i, image in enumerate(images)]


def _read_image(image: Any, side: int | None, where: str) -> Tensor:
    try:
        if isinstance(image, str | Path):
            return _floats(decode(Path(image), side, Counter())[None])[0]
        if isinstance(image, Image.Image):
            return _floats(pil_pixels(image, side, Counter())[None])[0]
        return _floats(image[None])[0]
    except BadImage as error:
        raise UserError(str(error), where=f"{where} ({image})" if isinstance(image, str | Path) else where) from error
    except UserError as error:
        raise UserError(error.what, where=where, hint=error.hint) from error
    except (TypeError, IndexError) as error:
        raise UserError(
            f"expected a path, a PIL image or an array, not a {type(image).__name__}", where=where
        ) from error


def _floats(images: Tensor | np.ndarray) -> Tensor:
    """(N, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(to_floats(images.detach().cpu().numpy() if isinstance(images, Tensor) else images))


class TokenReport(NamedTuple):
    """Counts of the tokens of texts.

    ``rows``: how many. ``max_length``: tokens at which a row is cut; ``cut``: rows that are longer. ``median`` and
    ``longest``: tokens of a row before it is cut, special ones included. ``unknown``: the share in [0, 1] of
    unknown tokens among those that are not special.
    """

    rows: int
    max_length: int
    cut: int
    median: int
    longest: int
    unknown: float

    @property
    def notes(self) -> list[str]:
        """Notes for a reader, in sentences; none where no row is cut and almost all tokens are known."""
        notes = []
        if self.cut:
            lengths = f"median {self.median}, longest {self.longest}"
            notes.append(f"{self.cut:,} of {self.rows:,} rows are cut at {self.max_length} tokens ({lengths})")
        if self.unknown >= 0.05:
            notes.append(f"{100 * self.unknown:.0f} % of the tokens are unknown to the tokenizer")
        return notes


def count_tokens(tokenizer: Any, texts: Sequence[str | Sequence[str]], max_length: int) -> TokenReport:
    """See `TokenReport`; rows of two texts are read as a pair, of three each text by itself."""
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in texts]
    if rows and len(rows[0]) == 3:
        rows = [(text,) for row in rows for text in row]
    lengths, unknown, words = list[int](), 0, 0
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for first in range(0, len(rows), _AT_ONCE):
        columns = list(zip(*rows[first : first + _AT_ONCE], strict=True))
        # verbose=False: transformers warns of texts that are longer than the model's own limit.
        tokens = tokenizer(*map(list, columns), return_attention_mask=False, verbose=False)["input_ids"]
        lengths += map(len, tokens)
        ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in tokens])
        ordinary = ids[~np.isin(ids, list(special))]
        words += len(ordinary)
        unknown += int((ordinary == tokenizer.unk_token_id).sum()) if tokenizer.unk_token_id is not None else 0
    counts = np.asarray(lengths or [0])
    return TokenReport(
        rows=len(rows),
        max_length=max_length,
        cut=int((counts > max_length).sum()),
        median=int(np.median(counts)),
        longest=int(counts.max()),
        unknown=unknown / max(1, words),
    )


def prompted(sentences: Sequence[str], prompts: Mapping[str, str], name: str | None) -> list[str]:
    """``sentences`` with the prompt of this name before each; None is no prompt.

    Raises:
        UserError: a sentence is no text, or no prompt has this name.
    """
    for i, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise UserError(f"expected a text, got {sentence!r}", where=f"row {i}")
    if name is None:
        return list(sentences)
    if name not in prompts:
        raise UserError(f"no prompt is called {name!r}", hint=f"known: {', '.join(prompts) or 'the model has none'}")
    return [prompts[name] + sentence for sentence in sentences]
