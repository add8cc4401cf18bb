"""``contraverse encode`` and ``contraverse predict``: from texts or images to vectors and to labels."""

import csv
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from contraverse.cli.console import counting, say
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
    write_whole,
)
from contraverse.cli.foreign import Arch, Normalise
from contraverse.cli.images import encode_images, measured_route, predict_images
from contraverse.cli.request import is_image_model
from contraverse.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from contraverse.cli.files import Loaded
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
    trust_remote_code: Trust = False,
) -> None:
    """Write the embedding of every sentence, or the features of every image, in order, as float32."""
    check_target(output, (".npy", ".parquet"), force)
    loaded = load_model(
        model, pooling=pooling, arch=model_arch, normalise=normalise, trust_remote_code=trust_remote_code
    )
    through = measured_route(loaded, bn_branch)
    if is_image_model(loaded):
        vectors, names = encode_images(loaded, input, size, on_bad_row, batch_size, through)
        _write_vectors(output, {"image": names}, vectors)
        return
    encoder = text_model(loaded, "encode")
    data = read_texts(input, [text] if text else None, 1, loaded, delimiter=delimiter, encoding=encoding)
    tell_tokens(encoder, data, encoder.max_seq_length)
    rows = [texts[0] for texts in data.texts]
    import numpy as np

    parts = []
    with counting("Encoding", len(rows)) as advance:
        for first in range(0, len(rows), _CHUNK):
            parts.append(encoder.encode(rows[first : first + _CHUNK], batch_size))
            advance(len(parts[-1]))
    _write_vectors(output, {"text": rows}, np.concatenate(parts))


def _write_vectors(output: Path, named: dict[str, list[str]], vectors: "np.ndarray") -> None:
    import numpy as np

    if output.suffix == ".npy":
        write_whole(output, lambda file: np.save(file, vectors), binary=True)
    else:
        _write_parquet(output, {**named, "embedding": list(vectors)})
    say(f"{output}: {vectors.shape[0]} embeddings of {vectors.shape[1]} dimensions")


_CHUNK = 4096
"""Rows whose texts are tokenised at once."""


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
    if is_image_model(loaded):
        logits, names = predict_images(loaded, input, size, on_bad_row, batch_size, through)
        _write_predictions(output, {"image": names}, logits, labels, detector)
        return
    rows = read_texts(input, text, _width(loaded), loaded, delimiter=delimiter, encoding=encoding)
    tell_tokens(loaded.model, rows)
    from contraverse.evaluation import predict as logits_of

    with counting("Predicting", len(rows)) as advance:
        logits = logits_of(loaded.model, rows, batch_size, progress=advance)
    _write_predictions(output, {"row": list(range(len(logits)))}, logits, labels, detector)


def _write_predictions(
    output: Path, named: dict[str, list[Any]], logits: "np.ndarray", labels: list[str], detector: "Detector | None"
) -> None:
    columns = named | _predictions(logits, labels, detector)
    if output.suffix == ".parquet":
        _write_parquet(output, columns)
    else:
        write_whole(output, lambda file: _write_lines(file, columns, output.suffix))
    say(f"{output}: {len(next(iter(columns.values())))} predictions")


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


def _write_lines(file: IO[str], columns: dict[str, list[Any]], suffix: str) -> None:
    rows = zip(*columns.values(), strict=True)
    if suffix == ".csv":
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_harmless(value) for value in row] for row in rows)
    else:
        file.writelines(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)


def _harmless(value: Any) -> Any:
    """A cell that a spreadsheet takes for text: what begins like a formula, and is no number, after an apostrophe."""
    if not isinstance(value, str) or (not value.lstrip().startswith(("=", "+", "-", "@")) and value[:1] not in "\t\r"):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


def _write_parquet(output: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    write_whole(output, lambda file: parquet.write_table(pyarrow.table(columns), file), binary=True)
