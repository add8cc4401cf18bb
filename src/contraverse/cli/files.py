"""Models and rows that a command reads, and files that it writes."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from contraverse.cli.console import doing, quiet, say
from contraverse.cli.foreign import load_network, load_weights, weights_file
from contraverse.cli.several import process_number
from contraverse.errors import UserError
from contraverse.recipes import ModelConfig, RunConfig, load, made_with
from contraverse.writing import naming, probe, whole_file

if TYPE_CHECKING:
    from contraverse.data import ImageSplits, TextData, TextSplits
    from contraverse.data.columns import Columns
    from contraverse.models import AnyModel, TextModel

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Loaded:
    """A model, and the configuration of the run that made it, if one did.

    ``columns``: those that the run read its texts and label from. ``numbered``: the model's classes have numbers for
    names, as those of a file of weights: their order is the task's.
    """

    model: "AnyModel"
    run: RunConfig | None
    numbered: bool = False
    columns: "Columns | None" = None


Trust = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python files that come with the model; for authors whom you trust."),
]
MODEL = "A run's folder, a model's folder, a file of weights of images, a name on the Hub, or minilm."
"""Help for what `load_model` takes."""

POOLINGS: tuple[str, ...] = get_args(ModelConfig.model_fields["pooling"].annotation)
Pool = Annotated[
    str | None,
    typer.Option("--pooling", help=f"Pooling of a sentence encoder: {', '.join(POOLINGS)}. (default: the model's own)"),
]


Delimiter = Annotated[
    str | None, typer.Option(help="Separator of the fields of a CSV file, as ';' or tab. (default: detected)")
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of text files, as windows-1252. (default: utf-8)")]


def load_model(
    name: str | None,
    *,
    pooling: str | None = None,
    arch: str | None = None,
    normalise: str | None = None,
    module: str | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """The model of a run's or a model's folder, of a file, of this name on the Hub, or ``minilm``, on the GPU if any.

    ``pooling``: of a sentence encoder, in the place of its own. ``arch``, ``normalise``: of a file of weights.
    ``module``: the user's own network, whose code is run; ``name`` is the file of its weights then, None for no file.

    Raises:
        UserError: no model is there, or it does not pool that way.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise UserError(f"no pooling is called {pooling!r}", where="--pooling", hint=f"known: {', '.join(POOLINGS)}")
    if module is not None and (pooling or arch or normalise):
        raise UserError("a network of --module has its own architecture, pooling and normalisation", where="--module")
    with doing("Loading PyTorch…"):
        quiet()
        import torch

        from contraverse import models
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if module is not None:
        with doing(f"Running {module}…"):
            return Loaded(load_network(module, name).to(device).eval(), None, numbered=True)
    assert name is not None
    folder = Path(name)
    run, columns = _run_of(folder)
    with doing(f"Loading {name}…"):
        model: AnyModel
        if name == "minilm" and not folder.exists():
            model = models.TextModel.from_pretrained("minilm", pooling="mean")
        else:
            place = folder if folder.exists() else _fetched(name)
            if (file := weights_file(place)) is not None:
                weights = load_weights(file, arch, normalise)
                if pooling is not None:
                    _pool(weights, pooling)
                return Loaded(weights.to(device).eval(), None, numbered=weights.labels == _numbers(weights.labels))
            if arch is not None or normalise is not None:
                raise UserError("--model-arch and --normalise are for a file of weights", where=name)
            place = place / "model" if (place / "config.yaml").is_file() else place
            model = models.load_model(place, trust_remote_code=trust_remote_code)
    if pooling is not None:
        _pool(model, pooling)
    for note in getattr(model, "notes", ()):
        say(note)
    return Loaded(model.to(device).eval(), run, columns=columns)


def _numbers(labels: list[str] | None) -> list[str]:
    return [str(i) for i in range(len(labels or ()))]


def _fetched(name: str) -> Path:
    """The files of the model of this name on the Hub, from the cache where the Hub cannot be reached.

    ``name`` itself where it cannot be the name of one.
    """
    from huggingface_hub import HfApi, snapshot_download

    from contraverse.data.files import is_hub_id

    if not is_hub_id(name) or ":" in name:
        return Path(name)
    unread = ["*.h5", "*.msgpack", "*.o[t]", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*"]
    try:
        try:
            names = [file.rfilename for file in HfApi().model_info(name, timeout=10).siblings or ()]
        except Exception:
            return Path(snapshot_download(name, local_files_only=True))
        if any(file.endswith(".safetensors") for file in names):
            unread.append("*.bin")
        return Path(snapshot_download(name, ignore_patterns=unread))
    except Exception as error:
        raise UserError(
            "no model here, and no model of this name can be loaded from the Hugging Face Hub",
            where=name,
            hint="give the model/ folder of a finished run, any transformers folder, or a Hub name that can be reached",
        ) from error


def _pool(model: "AnyModel", pooling: str) -> None:
    from contraverse.models import TextModel

    if not isinstance(model, TextModel) or model.labels is not None:
        raise UserError("only sentence encoders pool in a way that can be chosen", where="--pooling")
    if model.embedding != "h":
        raise UserError(f"the model's embedding is {model.embedding}, made with its own pooling", where="--pooling")
    if pooling == "last-two" and model.encoder.config.num_hidden_layers < 2:
        raise UserError("pooling last-two needs two layers, and this encoder has one", where="--pooling")
    from contraverse.models.opening import check_model

    model.pooling = pooling  # type: ignore[assignment]  # one of POOLINGS
    check_model(model, "--pooling", choose_pooling=False)


def text_model(loaded: Loaded, command: str) -> "TextModel":
    """The model, which ``command`` needs to be one of texts.

    Raises:
        UserError: it is one of images.
    """
    from contraverse.models import TextModel

    if not isinstance(loaded.model, TextModel):
        raise UserError(f"{command} is for models of texts, and this is one of images")
    return loaded.model


def _run_of(folder: Path) -> "tuple[RunConfig | None, Columns | None]":
    """The configuration of the run that made the model in ``folder``, and the columns that it read."""
    for candidate in (folder, folder.absolute().parent):
        file = candidate / "config.yaml"
        if not file.is_file():
            continue
        unknown: list[str] = []
        try:
            run = load(file, unknown=unknown)
        except UserError:
            if candidate == folder:
                raise
            continue  # a neighbour of the model, and no run
        if unknown:
            version = made_with(file)
            made = f", which contraverse {version} wrote" if version else ""
            say(f"{file}{made}: this version does not know {', '.join(unknown)}, which is ignored")
        return run, _columns_of(run, candidate / "evaluation.json")
    return None, None


def _columns_of(run: RunConfig, evaluation: Path) -> "Columns | None":
    from contraverse.data.columns import Columns

    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        stored = json.loads(evaluation.read_text(encoding="utf-8"))["read_from"]
        return Columns(tuple(map(str, stored["texts"])), stored["label"] and str(stored["label"]))
    text = getattr(run.data, "text", None)  # of a run that is older than that entry
    texts = (text,) if isinstance(text, str) else tuple(text or ())
    return Columns(texts, run.data.label) if texts or run.data.label else None


def own(loaded: Loaded, source: Any) -> bool:
    """True where the run's rows were read from ``source``, however its path is written."""
    if loaded.run is None:
        return False
    mine = loaded.run.data.source
    if isinstance(source, str) and isinstance(mine, str) and Path(source).exists():
        return Path(source).resolve() == Path(mine).resolve()
    return bool(source == mine)


def read_texts(
    source: str, columns: list[str] | None, width: int, loaded: Loaded | None = None, **form: Any
) -> "TextData":
    """The texts of a file, ``width`` to a row, labels or none; ``-`` is stdin, a text a line.

    Where no ``columns`` are named, those are read that the run of ``loaded`` was trained on, if it is known. ``form``:
    ``delimiter`` and ``encoding`` of `load_splits`.

    Raises:
        UserError: the file cannot be read, a column cannot be identified, or a row has no text.
    """
    from contraverse.data import get_task, load_splits
    from contraverse.data.reading import MEND

    if source == "-" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes cannot read stdin", hint="name a file that all of them can read")
    width = len(columns) if columns else width
    task = get_task("sentences")
    run = loaded.run if loaded is not None else None
    like = get_task(run.task) if run is not None else task
    if len(like.columns) == width:
        task = replace(task, columns=like.columns, other_columns=like.other_columns, layouts=like.layouts)
    elif width == 2:
        task = replace(task, name="pair", columns=get_task("pair").columns)
    trained = loaded.columns if loaded is not None and columns is None else None
    with tempfile.TemporaryDirectory() if source == "-" else nullcontext("") as folder:
        file = Path(source)
        if source == "-":
            file = Path(folder) / "stdin.txt"
            with naming(file):
                file.write_bytes(sys.stdin.buffer.read())
        try:
            splits = load_splits(task, {"test": file}, text=columns, trained=trained, **form)
        except UserError as error:
            # One result a row is expected: leaving rows out would shift them.
            hint = error.hint and error.hint.replace(MEND, "mend the rows first.")
            raise UserError(error.what, where=error.where, hint=hint) from error
        tell(splits, file)
    return splits.need("test")


def tell(splits: "TextSplits | ImageSplits", file: Path | None = None) -> None:
    """The notes on how rows were read; of one ``file`` alone, not those on the splits that it does not have."""
    for note in splits.notes:
        if file is None or note.startswith(str(file)):
            say(note)


def tell_tokens(model: "AnyModel", rows: "TextData", max_length: int | None = None) -> list[str]:
    """Say how many rows are cut and how much of them is unknown to the tokenizer; gives the same in a list."""
    from contraverse.models import TextModel
    from contraverse.pipeline.text import token_notes

    notes = token_notes(model, rows, max_length=max_length) if isinstance(model, TextModel) else []
    for note in notes:
        say(note)
    return notes


def check_target(output: Path, suffixes: tuple[str, ...], force: bool) -> None:
    """Refuse, before any work, a file that could not be written in the end.

    Raises:
        UserError: its suffix is none of ``suffixes``, it exists and ``force`` is not given, its folder does not, or
            nothing can be written there.
    """
    if output.suffix not in suffixes:
        raise UserError(f"the output ends in {' or '.join(suffixes)}", where=str(output))
    if output.is_dir() or (output.exists() and not force):
        raise UserError("is there already", where=str(output), hint="choose another --output, or add --force")
    if not output.absolute().parent.is_dir():
        raise UserError("its folder does not exist", where=str(output))
    try:
        probe(output)
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
        raise UserError(reason, where=str(output), hint="choose another --output") from error


def write_whole(output: Path, write: Callable[[IO[Any]], object], *, binary: bool = False) -> None:
    """``write`` into a file that appears as ``output`` when it is whole, or not at all; in the first process alone."""
    if process_number():
        return
    with (
        whole_file(output) as partial,
        partial.open("wb") if binary else partial.open("w", encoding="utf-8", newline="") as file,
    ):
        write(file)
