"""``contraverse adversaries``: sentences that fool a classifier, for a person to read and a training to use."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from contraverse.cli.checks import positive
from contraverse.cli.console import counting, doing, result, say
from contraverse.cli.files import (
    Delimiter,
    Encoding,
    Trust,
    check_target,
    load_model,
    tell,
    tell_tokens,
    text_model,
    write_whole,
)
from contraverse.errors import UserError

if TYPE_CHECKING:
    from contraverse.data import TextData
    from contraverse.data.columns import Columns
    from contraverse.evaluation.adversaries import Adversary, AdversaryReport
    from contraverse.models import TextModel

_SHOWN = 5


def adversaries(
    model: Annotated[str, typer.Argument(help="A run's or model's folder, trained by the recipe rar.")],
    data: Annotated[str, typer.Argument(help="A file of labelled texts, one to a row.")],
    output: Annotated[Path, typer.Option(help="X.jsonl: a line for each sentence that is kept.")],
    text: Annotated[str | None, typer.Option(help="Text column.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    eps: Annotated[str, typer.Option(help="Radii of the attack, smallest first.")] = ".1,.3,1",
    norm: Annotated[Literal["l2", "linf"], typer.Option(help="l2 of a sequence, or linf.")] = "l2",
    steps: Annotated[int, typer.Option(min=1, help="Steps of PGD.")] = 5,
    reading: Annotated[
        Literal["near", "whole"],
        typer.Option(help="Replace single content words by similar ones, or every token that the head changes."),
    ] = "near",
    substitutions: Annotated[int, typer.Option(min=1, help="near: words that may change.")] = 1,
    candidates: Annotated[int, typer.Option(min=1, help="near: of the likeliest tokens of a place.")] = 20,
    max_edits: Annotated[int, typer.Option(min=1, help="Words and signs that may differ.")] = 3,
    max_share: Annotated[float, typer.Option(min=0.01, max=1, help="The same, as a share of the sentence's.")] = 0.3,
    min_similarity: Annotated[float, typer.Option(min=-1, max=1, help="Least cosine of the two embeddings.")] = 0.8,
    max_drop: Annotated[
        float, typer.Option(min=0, help="Largest drop of the label's log-odds, by a linear classifier on embeddings.")
    ] = 0.7,
    min_word_similarity: Annotated[
        float, typer.Option(min=-1, max=1, help="Least cosine, in context, of a word and its replacement.")
    ] = 0.8,
    encoder: Annotated[str, typer.Option(help="Encoder that compares both sentences: minilm, or a folder.")] = "minilm",
    against: Annotated[str | None, typer.Option(help="Another classifier: is it fooled too?")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Attack at most so many rows, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the drawn rows and of the attack.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. (default: the GPU where there is one)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write sentences that change a classifier's prediction and stay close to their originals.

    PGD attacks the word embeddings, the reconstruction head reads other words out of the attacked pass, and the
    sentence with them, tokenised anew, has to change the prediction.
    """
    check_target(output, (".jsonl",), force)
    epsilons = sorted(set(positive(eps, "--eps")))
    attacked, trained = _load(model, device, trust_remote_code)
    names = [name for name in dict.fromkeys((encoder, against)) if name is not None]
    others = {name: _load(name, device, trust_remote_code)[0] for name in names}
    from contraverse.evaluation.adversaries import Closeness, find_adversaries

    with doing("Reading data…"):
        chosen = _rows(attacked, data, text, label, trained, delimiter=delimiter, encoding=encoding)
    chosen = chosen if rows is None else chosen.sample(rows, seed)
    tell_tokens(attacked, chosen)
    with counting("Attacking", len(chosen) * len(epsilons)) as progress:
        report = find_adversaries(
            attacked,
            chosen,
            epsilons=epsilons,
            norm=norm,
            steps=steps,
            reading=reading,
            substitutions=substitutions,
            candidates=candidates,
            closeness=Closeness(max_edits, max_share, min_similarity, max_drop, min_word_similarity),
            encoder=others[encoder],
            other=others[against] if against else None,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    lines = [json.dumps(adversary.to_dict(), ensure_ascii=False) + "\n" for adversary in report.kept]
    write_whole(output, lambda file: file.writelines(lines))
    result.print(_table(report))
    for adversary in report.kept[:_SHOWN]:
        result.print(_example(adversary))
    say(f"{output}: {len(lines)} sentences")


def _load(name: str, device: str | None, trust_remote_code: bool) -> "tuple[TextModel, Columns | None]":
    """The model, and the columns that it was trained on."""
    loaded = load_model(name, trust_remote_code=trust_remote_code)
    model = text_model(loaded, "adversaries")
    if device is None:
        return model, loaded.columns
    try:
        return model.to(device), loaded.columns
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use {device!r}: {str(error).splitlines()[0]}", where="--device") from error


def _rows(
    model: "TextModel",
    source: str,
    text: str | None,
    label: str | None,
    trained: "Columns | None",
    **form: Any,
) -> "TextData":
    """The rows of a file with the model's classes, which are what its logits mean."""
    from contraverse.data import get_task, load_splits

    task, names = get_task("text"), model.labels or []
    if names != [f"LABEL_{i}" for i in range(len(names))]:
        task = replace(task, labels=tuple(names))
    file = Path(source)
    if not file.is_file():
        raise UserError("there is no such file", where=source)
    splits = load_splits(task, {"test": file}, text=text, label=label, trained=trained, **form)
    tell(splits, file)
    return splits.need("test")


def _table(report: "AdversaryReport") -> Table:
    table = Table(title="adversaries", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("rows", justify="right")
    table.add_column("%", justify="right")

    def add(what: str, count: int, of: int) -> None:
        table.add_row(what, str(count), f"{100 * count / of:.1f}" if of else "-")

    add("classified rightly, attacked", report.attacked, report.rows)
    add("  read unchanged", report.unchanged, report.attacked)
    add("  changed", report.attacked - report.unchanged, report.attacked)
    add("  a sentence changed the prediction", len(report.found), report.attacked)
    add("  and was kept: rate of success", len(report.kept), report.attacked)
    if report.against is not None:
        right, fooled = report.against
        add("kept, and the original right by the other model", right, len(report.kept))
        add("  whose rewriting fools the other model", fooled, right)
    for epsilon, share in report.read.items():
        table.add_row(
            f"tokens read rightly, {f'epsilon {epsilon:g}' if epsilon else 'clean'}",
            "",
            "-" if share is None else f"{share:.1f}",
        )
    return table


def _example(adversary: "Adversary") -> str:
    from contraverse.evaluation.adversaries import changed_words

    marked = (f"[bold]*{escape(word)}*[/]" if new else escape(word) for word, new in changed_words(*_texts(adversary)))
    figures = f"similarity {adversary.similarity:.2f}, {adversary.edits} edits, epsilon {adversary.epsilon:g}"
    return (
        f"\n{escape(adversary.original)}  ({escape(adversary.prediction_original)})"
        f"\n{' '.join(marked)}  ({escape(adversary.prediction_rewritten)}; {figures})"
    )


def _texts(adversary: "Adversary") -> tuple[str, str]:
    return adversary.original, adversary.rewritten
