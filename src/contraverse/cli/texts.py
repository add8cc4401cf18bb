"""``contraverse encode`` and ``contraverse predict``: from texts or images to vectors and to labels."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from contraverse.cli.console import say
from contraverse.cli.detector import chosen_detector
from contraverse.cli.files import (
    MODEL,
    Delimiter,
    Encoding,
    Pool,
    Trust,
    check_target,
    load_model,
    read_texts,
    tell_tokens,
    text_model,
)
from contraverse.cli.foreign import Arch, Normalise
from contraverse.cli.images import image_encoder, image_predictor, measured_route
from contraverse.cli.parts import Resume, digest_of, in_parts
from contraverse.cli.request import is_image_model
from contraverse.cli.writers import write_predictions, write_vectors
from contraverse.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from contraverse.cli.files import Loaded
    from contraverse.data import TextData
    from contraverse.models.detector import Detector

Model = Annotated[str, typer.Argument(help=MODEL)]
Input = Annotated[
    str,
    typer.Argument(help="A file of texts (CSV, TSV, JSONL, Parquet, txt; gz too), - for stdin; or a folder of images."),
]
Text = Annotated[list[str] | None, typer.Option(help="Text column; twice for a pair.")]
Size = Annotated[int | None, typer.Option(min=4, help="Scale images to this height and width. (default: the run's)")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows at a time.")]
BNBranch = Annotated[
    Literal["clean", "adversarial"] | None,
    typer.Option(help="Batch norms of a dual image model. (default: adversarial, where they were trained)"),
]
OnBadRow = Annotated[
    Literal["error", "skip"],
    typer.Option(help="Unreadable images: stop with an error, or skip. (Texts are all taken.)"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite --output.")]


def encode(
    model: Model,
    input: Input,
    output: Annotated[Path, typer.Option(help="X.npy (N, H), or X.parquet with text and embedding.")],
    text: Annotated[str | None, typer.Option(help="Text column.")] = None,
    pooling: Pool = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    size: Size = None,
    on_bad_row: OnBadRow = "error",
    bn_branch: BNBranch = None,
    model_arch: Arch = None,
    normalise: Normalise = None,
    batch_size: BatchSize = 64,
    force: Force = False,
    resume: Resume = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write the embedding of every sentence, or the features of every image, in order, as float32."""
    check_target(output, (".npy", ".parquet"), force)
    loaded = load_model(
        model, pooling=pooling, arch=model_arch, normalise=normalise, trust_remote_code=trust_remote_code
    )
    through = measured_route(loaded, bn_branch)
    names: Sequence[str]
    options = {"pooling": pooling, "batch_size": batch_size, "size": size, "bn_branch": through}
    if is_image_model(loaded):
        total, step, names, vectors_of = image_encoder(loaded, input, size, on_bad_row, batch_size, through)
        column = "image"
    else:
        encoder = text_model(loaded, "encode")
        data = read_texts(input, [text] if text else None, 1, loaded, delimiter=delimiter, encoding=encoding)
        tell_tokens(encoder, data, encoder.max_seq_length)
        options["max_seq_length"] = encoder.max_seq_length
        total, step, column = len(data), CHUNK, "text"
        names = TextColumn(data)

        def vectors_of(first: int, last: int) -> "np.ndarray":
            return encoder.encode(names[first:last], batch_size)

    def request() -> dict[str, Any]:
        from contraverse.models.storage import digest_of_model

        return {"command": "encode", "rows": digest_of(names), "model": digest_of_model(loaded.model), **options}

    parts = in_parts(output, total, step, vectors_of, request=request, resume=resume, doing="Encoding")
    width = write_vectors(output, column, names, parts, total)
    parts.remove()
    say(f"{output}: {total} embeddings of {width} dimensions")


CHUNK = 4096
"""Texts whose results are computed and kept together."""


class TextColumn(Sequence[str]):
    """First text of each row."""

    def __init__(self, rows: "TextData") -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        texts = self._rows.texts[index]
        return [row[0] for row in texts] if isinstance(index, slice) else texts[0]

    def __iter__(self) -> Iterator[str]:
        return (texts[0] for texts in self._rows.texts)


def predict(
    model: Model,
    input: Input,
    output: Annotated[Path, typer.Option(help="X.csv, X.jsonl or X.parquet.")],
    text: Text = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    size: Size = None,
    on_bad_row: OnBadRow = "error",
    bn_branch: BNBranch = None,
    model_arch: Arch = None,
    normalise: Normalise = None,
    positive: Annotated[str | None, typer.Option(help="Class of --threshold. (default: saved with the model)")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which on --positive is predicted. (default: saved)")
    ] = None,
    batch_size: BatchSize = 64,
    force: Force = False,
    resume: Resume = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write the label of every row and the probability of each class, in order; a regression's score.

    Rows of texts have their number, from 0. The label is the most probable class, or that of the threshold that was
    saved with the model or is set here; its probability is followed by those of all classes. In a CSV file a label that
    begins as a formula of a spreadsheet does (=, +, -, @) stands after an apostrophe.
    """
    check_target(output, (".csv", ".jsonl", ".parquet"), force)
    loaded = load_model(model, arch=model_arch, normalise=normalise, trust_remote_code=trust_remote_code)
    labels = loaded.model.labels
    if labels is None:
        raise UserError("an encoder has no labels to predict", where=model, hint="contraverse encode uses it")
    through, detector = measured_route(loaded, bn_branch), chosen_detector(loaded.model, positive, threshold)
    if detector is not None:
        saved = ", the saved threshold" if detector is loaded.model.detector else ""
        say(f"{detector.positive} from a probability of {detector.threshold:.4g} on{saved}")
    options = {"labels": labels, "batch_size": batch_size, "size": size, "bn_branch": through}
    names: Sequence[Any]
    if is_image_model(loaded):
        total, step, names, logits_of = image_predictor(loaded, input, size, on_bad_row, batch_size, through)
        column = "image"
    else:
        rows = read_texts(input, text, _width(loaded), loaded, delimiter=delimiter, encoding=encoding)
        tell_tokens(loaded.model, rows)
        from contraverse.evaluation import predict as predict_rows

        encoder = text_model(loaded, "predict")
        options["max_length"] = encoder.max_length
        total, step, column, names = len(rows), CHUNK, "row", range(len(rows))

        def logits_of(first: int, last: int) -> "np.ndarray":
            return predict_rows(loaded.model, rows.select(range(first, last)), batch_size)

    def request() -> dict[str, Any]:
        values = map(str, names) if column == "image" else chain.from_iterable(rows.texts)
        from contraverse.models.storage import digest_of_model

        return {"command": "predict", "rows": digest_of(values), "model": digest_of_model(loaded.model), **options}

    parts = in_parts(output, total, step, logits_of, request=request, resume=resume, doing="Predicting")
    columns_of = partial(_predictions, labels=labels, detector=detector)
    write_predictions(output, column, names, map(columns_of, parts))
    parts.remove()
    say(f"{output}: {total} predictions")


def _width(loaded: "Loaded") -> int:
    """Texts in a row that the model was trained on; one where that is not known."""
    from contraverse.data import get_task

    return len(get_task(loaded.run.task).columns) if loaded.run else 1


def _predictions(logits: "np.ndarray", labels: list[str], detector: "Detector | None") -> dict[str, list[Any]]:
    from scipy.special import softmax

    if logits.shape[1] == 1:
        return {"score": logits[:, 0].tolist()}
    probabilities = softmax(logits.astype("float64"), axis=1)
    chosen = logits.argmax(1) if detector is None else detector.decide(logits, labels)
    return {
        "label": [labels[i] for i in chosen],
        "probability": probabilities[range(len(chosen)), chosen].round(6).tolist(),
        **{f"probability_{name}": probabilities[:, i].round(6).tolist() for i, name in enumerate(labels)},
    }
