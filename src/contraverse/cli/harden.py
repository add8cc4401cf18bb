"""``contraverse harden``: a copy of a model of texts whose tokenizer undoes look-alikes and hidden characters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraverse.cli.console import counting, doing, figures, result, say
from contraverse.cli.files import MODEL, Delimiter, Encoding, Split, Trust, load_model, tell_tokens, text_model
from contraverse.cli.request import Request, with_settings
from contraverse.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from contraverse.data import Task, TextData
    from contraverse.evaluation.bootstrap import Interval
    from contraverse.models import TextModel

NOISE = ("homoglyph", "zero-width", "full-width")
STRENGTHS = (1, 3, 5)
BUDGETS = (1, 2, 4)
"""Changes of the ``unicode`` attack."""
CARD = "Its tokenizer undoes look-alikes, invisible characters and full-width letters (`contraverse harden`)."
"""Line of the card of a hardened model."""


def harden(
    model: Annotated[str, typer.Argument(help=MODEL)],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the hardened copy. (default: RUN/hardened, or MODEL-hardened)")
    ] = None,
    task: Annotated[str | None, typer.Option(help="contraverse list tasks. (default: the run's)")] = None,
    data: Annotated[str | None, typer.Option(help="Rows to measure on. (default: the run's)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text column; twice for a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    split: Annotated[Split, typer.Option(help="Rows to measure on.")] = "test",
    attack_rows: Annotated[int, typer.Option(min=0, help="Rows that the unicode attack is tried on; 0: none.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 64,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Put a Unicode normaliser into a model's tokenizer, without training, and show figures before and after.

    It is a part of the copy's tokenizer.json: transformers, sentence-transformers and tokenizers have it, too.
    """
    folder = output or _default_output(model)
    if folder.exists() and not force:
        raise UserError("is there already", where=str(folder), hint="choose another --output, or add --force")
    loaded = load_model(model, trust_remote_code=trust_remote_code)
    network = text_model(loaded, "harden")
    from contraverse.models.folders import check_replaceable
    from contraverse.models.normalizing import harden as harden_model
    from contraverse.models.normalizing import is_hardened

    check_replaceable(folder)
    if is_hardened(network.tokenizer):
        raise UserError("its tokenizer has the normaliser already", where=model)
    plain = network.tokenizer
    with doing("Putting the normaliser into the tokenizer, and loading it again…"):
        harden_model(network)
    hardened = network.tokenizer
    options = {"task": task, "data": data, "text": text or None, "label": label, "split": split, "on_bad_row": None}
    request = Request(loaded, with_settings(loaded, {}), options | {"delimiter": delimiter, "encoding": encoding})
    if network.labels is None or (task is None and loaded.run is None):
        say("Nothing is measured: that needs a classifier and labelled rows (--task text --data FILE)")
    else:
        from contraverse.cli.text_evaluation import read_splits

        described, place = request.task_and_data()
        with doing("Reading data…"):
            rows = read_splits(request, described, place).need(split)
        tell_tokens(network, rows)
        _compare(network, {"before": plain, "after": hardened}, rows, described, place.seed, attack_rows, batch_size)
    network.tokenizer = hardened
    card = _card(model)
    network.save(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    say(f"{folder}: hardened copy; its tokenizer.json holds the normaliser")


def _default_output(model: str) -> Path:
    folder = Path(model)
    if (folder / "config.yaml").is_file():
        return folder / "hardened"
    return folder.with_name(f"{folder.name}-hardened") if folder.exists() else Path(f"{folder.name}-hardened")


def _card(model: str) -> str:
    """The card of the model's folder, if it has one, with a line on the tokenizer."""
    files = (Path(model) / "model" / "README.md", Path(model) / "README.md")
    before = next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")
    return f"{before.rstrip()}\n\n{CARD}\n".lstrip()


def _compare(
    model: "TextModel",
    tokenizers: dict[str, Any],
    rows: "TextData",
    task: "Task",
    seed: int,
    attack_rows: int,
    batch_size: int,
) -> None:
    """Print the metric clean, under noise and under the unicode attack, by each of ``tokenizers``."""
    from contraverse.evaluation import NoiseSettings, noise_robustness, predict
    from contraverse.evaluation.bootstrap import CLASS_METRICS
    from contraverse.reporting.noise_map import interval_text

    settings = NoiseSettings(NOISE, STRENGTHS, seed=seed)
    columns: dict[str, dict[str, float]] = {}
    clean: dict[str, np.ndarray] = {}  # logits (N, C)
    attacked = rows.sample(attack_rows, seed) if attack_rows and len(model.labels or ()) > 1 else None
    for name, tokenizer in tokenizers.items():
        model.tokenizer = tokenizer
        say(f"Measuring {name}: {len(rows)} rows, clean and under {', '.join(NOISE)}")
        with counting("Noise", settings.progress_total(len(rows))) as progress:
            report = noise_robustness(
                model, rows, settings, metric=task.metric, batch_size=batch_size, progress=progress
            )
        columns[name] = dict(report.metrics)
        clean[name] = predict(model, rows, batch_size)
        if attacked is not None:
            columns[name] |= _attack(model, attacked, batch_size)
    result.print(figures(f"{task.name}, {len(rows)} rows, mean of strengths {STRENGTHS}", columns))
    if task.metric in CLASS_METRICS:
        change = interval_text(_difference(task.metric, clean["before"], clean["after"], rows, seed)._asdict())
        say(f"{task.metric} on clean rows, after less before, with its 95 % interval over rows: {change}")
    changed = _changed(rows, *tokenizers.values())
    share = 100 * changed / len(rows)
    say(f"Tokens of {changed} of {len(rows)} clean rows ({share:.1f} %) are others than before")


def _difference(metric: str, before: "np.ndarray", after: "np.ndarray", rows: "TextData", seed: int) -> "Interval":
    """Difference of a metric between two sets of logits (N, C) of the same rows, by a paired bootstrap."""
    import numpy as np

    from contraverse.evaluation.bootstrap import CLASS_METRICS, Bootstrap, confusions, interval

    labels, count, outputs = np.asarray(rows.labels), len(rows), before.shape[1]

    def statistic(counts: np.ndarray) -> np.ndarray:
        """After less before (b,)."""
        figures = [
            CLASS_METRICS[metric](confusions(labels, logits.argmax(1), outputs, counts)) for logits in (after, before)
        ]
        return np.asarray(figures[0] - figures[1])

    value = float(statistic(np.ones((1, count), np.float32))[0])
    return interval(value, Bootstrap(count, seed=seed).resample(statistic), count)


def _attack(model: "TextModel", rows: "TextData", batch_size: int) -> dict[str, float]:
    from contraverse.evasion import ModelTarget, Suite, evade_suite

    suite = Suite(attack="unicode", budgets=BUDGETS, diagnostics=False)
    say(f"Attacking {len(rows)} rows with look-alikes and invisible characters")
    with counting("Attacking", suite.total(len(rows))) as progress:
        report = evade_suite(ModelTarget(model, batch_size=batch_size), rows, suite, progress=progress)["unicode"]
    rates = {f"unicode, at most {n} ({len(rows)} rows)": report.accuracy(n).percent for n in (0, *BUDGETS)}
    return {name.replace("at most 0", "clean"): rate for name, rate in rates.items() if rate is not None}


def _changed(rows: "TextData", before: Any, after: Any) -> int:
    """Number of rows with other tokens."""
    columns = [list(column) for column in zip(*rows.texts, strict=True)]
    old, new = (tokenizer(*columns, verbose=False)["input_ids"] for tokenizer in (before, after))
    return sum(a != b for a, b in zip(old, new, strict=True))
