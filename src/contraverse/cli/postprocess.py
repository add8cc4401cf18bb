"""``contraverse postprocess``: a whitening or a flow on top of a sentence encoder."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from contraverse.cli.console import doing, say
from contraverse.cli.files import MODEL, Delimiter, Encoding, Loaded, Pool, Trust, load_model, read_texts, text_model
from contraverse.errors import UserError
from contraverse.recipes import BERT, NLI_SENTENCES


class Kind(StrEnum):
    """Maps that embeddings can be put through."""

    WHITENING = "whitening"
    FLOW = "flow"


def postprocess(
    kind: Annotated[Kind, typer.Argument(help="Step to fit after the encoder.")],
    output: Annotated[Path, typer.Option(help="Folder of the model with its fitted map.")],
    model: Annotated[str | None, typer.Argument(help=MODEL)] = None,
    sentences: Annotated[
        str | None, typer.Argument(help="A file of training sentences, never of test ones; - for stdin.")
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="As published: BERT-base, first-last pooling, all sentences of SNLI and MNLI."),
    ] = False,
    pooling: Pool = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Keep so many dimensions (whitening). (default: all)")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the sentences (flow). (default: 1)")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the initial weights and the order (flow). (default: 0)")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 64,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Fit a map to a sentence encoder's embeddings, and save the encoder with it: no training, no labels.

    With --paper, MODEL and SENTENCES may be left out: they are the published ones, from the Hub.
    """
    others = {"--dim": dim} if kind is Kind.FLOW else {"--epochs": epochs, "--seed": seed}
    if wrong := [name for name, value in others.items() if value is not None]:
        raise UserError(f"a {kind.value} has no {wrong[0]}")
    if output.exists() and not force:
        raise UserError("is there already", where=str(output), hint="choose another --output, or add --force")
    _check_output(output)
    if not paper and (model is None or sentences is None):
        raise UserError("MODEL and SENTENCES are needed", hint="give both, or --paper for the published ones")
    if paper:
        sources = dict.fromkeys(str(part["source"]) for part in NLI_SENTENCES) if sentences is None else ()
        say(f"From the Hugging Face Hub: {', '.join([*([BERT] if model is None else []), *sources]) or 'nothing'}")
        pooling = pooling or "first-last"
    name = model or BERT
    source = load_model(name, pooling=pooling, trust_remote_code=trust_remote_code)
    loaded = text_model(source, "postprocess")
    if loaded.labels is not None:
        raise UserError("a classifier has no sentence embeddings to fit a map to", where=name)
    rows = _sentences(sentences, text, source, delimiter=delimiter, encoding=encoding)
    from contraverse.models import fit_flow, fit_whitening

    with doing(f"Fitting a {kind.value} to {len(rows)} sentences…"):
        if kind is Kind.WHITENING:
            loaded.postprocess = fit_whitening(loaded, rows, dim=dim, batch_size=batch_size)
        else:
            loaded.postprocess = fit_flow(loaded, rows, epochs=epochs or 1, seed=seed or 0, batch_size=batch_size)
    loaded.save(output)
    say(f"{output}: a sentence encoder with a {kind.value} fitted to {len(rows)} sentences")


def _sentences(source: str | None, text: str | None, loaded: Loaded, **form: Any) -> list[str]:
    """The sentences of a file; of none, those of SNLI and MNLI, each once."""
    if source is not None:
        return [texts[0] for texts in read_texts(source, [text] if text else None, 1, loaded, **form).texts]
    from contraverse.data import load_splits

    try:
        rows = load_splits("sentences", NLI_SENTENCES, on_bad_row="skip").need("train")
    except UserError as error:
        hint = "connect to the network, or give a file of sentences: contraverse postprocess KIND MODEL SENTENCES"
        raise UserError(error.what, where=error.where, hint=hint) from error
    return list(dict.fromkeys(texts[0] for texts in rows.texts))


def _check_output(output: Path) -> None:
    """Refuse, before any work, a folder that is no model of ours, ``--force`` or not."""
    from contraverse.models.folders import check_replaceable

    check_replaceable(output)
