"""``contraverse evaluate --attack edits|append|swap-words|unicode|standard``: worst cases of texts, and ``--gate``."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from contraverse.cli.console import counting, doing, result, say, warn
from contraverse.cli.files import tell_tokens, text_model, write_whole
from contraverse.cli.noise import check_noise_flags, measure_noise_of_task
from contraverse.cli.request import Request
from contraverse.cli.several import complain
from contraverse.errors import UserError, unknown
from contraverse.visible import visible

if TYPE_CHECKING:
    from contraverse.data import TextData
    from contraverse.evasion import EvasionReport, Figures, Gate, Suite, Target
    from contraverse.recipes import EvaluationConfig

TEXT_ATTACKS = {
    "edits": "at most k edits of characters",
    "append": "at most m words, or a phrase, before or after the text",
    "swap-words": "at most w words substituted by like ones",
    "unicode": "at most k look-alikes or invisible characters",
    "standard": "the worst of these for each row",
}
"""Attacks on texts as texts, by name."""
GATE_FAILED = 3
"""Exit code of a gate that fails."""
_SHOWN = 3

Budget = Annotated[
    str | None, typer.Option(help="Numbers of changes, as 1,2,4. (default: 1,2,4; swap-words 1,2,3; a phrase 1)")
]
Rules = Annotated[
    Literal["any", "pruthi", "deepwordbug"] | None,
    typer.Option(help="edits: anywhere, or by the rules of a paper. (default: any)"),
]
Phrase = Annotated[str | None, typer.Option(help="append: this text, once for each change.")]
Pool = Annotated[
    str | None,
    typer.Option("--pool", help="append: a file of words, one a line, or other-class. (default: harmless words)"),
]
Where = Annotated[
    Literal["before", "after", "both"] | None, typer.Option(help="append: end of the text. (default: both)")
]
SwapFrom = Annotated[
    str | None,
    typer.Option(help="swap-words: folder of a masked language model. (default: the classifier's word embeddings)"),
]
Scores = Annotated[bool, typer.Option("--scores", help="Search by scores alone, without gradients.")]
Labels = Annotated[bool, typer.Option("--labels", help="Search by predicted classes alone.")]
Against = Annotated[
    str | None, typer.Option(help="Class to evade: its rows are attacked until it is missed. (default: any class)")
]
Threshold = Annotated[
    float | None, typer.Option(help="With --against: probability from which the class is detected. (default: argmax)")
]
AttackText = Annotated[int | None, typer.Option(min=1, max=2, help="Pairs: text that is attacked. (default: 2)")]
Beam = Annotated[int | None, typer.Option(min=1, help="Texts kept from one change to the next. (default: 3)")]
Width = Annotated[int | None, typer.Option(min=1, help="Texts tried of each row in a round. (default: 32)")]
Adversaries = Annotated[
    Path | None,
    typer.Option(help="Also write each text that evades to this .jsonl, as data.adversaries reads them."),
]
Gates = Annotated[
    list[str] | None,
    typer.Option("--gate", help="METRIC[CONDITION]>=PERCENT, as recall[attack]>=80; exit code 3 where one fails."),
]
PANEL = (
    *("budget", "rules", "phrase", "pool", "where", "swap_from", "scores", "labels", "against", "threshold"),
    *("attack_text", "beam", "width", "adversaries", "gate"),
)
"""Options of these attacks, by parameter."""
_FLAGS = tuple("--" + name.replace("_", "-") for name in PANEL)
_IDLE = (
    *("--eps", "--norm", "--steps", "--step-size", "--random-start", "--restarts", "--relative", "--shift"),
    *("--version", "--attacks", "--queries", "--corruptions", "--corrupted", "--unforeseen", "--unforeseen-attacks"),
    *("--bn-branch", "--sts", "--anli", "--false-positive-rate"),
)


def check_flags(request: Request) -> bool:
    """Refuse flags that would be ignored; tell if the request is an attack on texts as texts.

    Raises:
        UserError: a flag has nothing to act on, or the model is one of images.
    """
    if not check_text_attack_flags(request.options["attack"], request.flags):
        return False
    if request.of_images:
        raise UserError(f"--attack {request.options['attack']} is for texts, and this model is one of images")
    check_noise_flags(request, attacked=True)
    return True


def check_text_attack_flags(attack: str | None, used: Collection[str]) -> bool:
    """Refuse flags that ``attack`` would ignore; tell if it is an attack on texts as texts.

    Raises:
        UserError: a flag has nothing to act on.
    """
    if attack not in TEXT_ATTACKS:
        if idle := ", ".join(flag for flag in _FLAGS if flag in used and flag != "--gate"):
            hint = f"give --attack {', '.join(TEXT_ATTACKS)}, or leave it out"
            raise UserError(f"{idle} is for attacks on texts as texts", hint=hint)
        return False
    if idle := ", ".join(flag for flag in _IDLE if flag in used):
        raise UserError(f"--attack {attack} changes texts themselves, and takes no {idle}")
    return True


def measure_evasion(request: Request) -> dict[str, Any]:
    """Print and return the results of an attack on the texts of a task."""
    from contraverse.cli.text_evaluation import read_splits

    model = text_model(request.loaded, "--attack")
    task, data = request.task_and_data()
    with doing("Reading data…"):
        splits = read_splits(request, task, data)
        rows = splits.need(request.split)
    notes = tell_tokens(model, rows)
    count = request.options["rows"]
    chosen = rows if count is None else rows.sample(count, data.seed)
    noise = request.options["noise"] is not None
    access: Any = "labels" if request.options["labels"] else "scores" if request.options["scores"] else "gradients"
    from contraverse.evasion import ModelTarget

    target = ModelTarget(model, access, request.settings.batch_size)
    evaluation = attack_texts(target, chosen, request.options, request.settings, noise=noise)
    if noise:
        evaluation |= measure_noise_of_task(request, splits, rows, task, data.seed)
    return {
        "task": task.name, "source": rows.source, "split": request.split, "rows": len(chosen), "notes": notes,
        **evaluation,
    }  # fmt: skip


def suite_of(options: Mapping[str, Any], model_labels: Sequence[str], keep: tuple[str, ...] = ()) -> "Suite":
    """Give the settings that the options of ``contraverse evaluate`` ask for; ``keep``: see `Suite`.

    Raises:
        UserError: one is impossible, or there is no such class.
    """
    from contraverse.evasion import Goal, SearchSettings, Suite

    if options["scores"] and options["labels"]:
        raise UserError("the search is by --scores or by --labels, not both")
    against, labels = options["against"], list(model_labels)
    if against is not None and against not in labels:
        raise unknown("class", against, labels, where="--against")
    text = options["attack_text"]
    return Suite(
        attack=options["attack"],
        budgets=None if options["budget"] is None else _budgets(options["budget"]),
        goal=Goal(None if against is None else labels.index(against), options["threshold"]),
        search=SearchSettings(**{name: options[name] for name in ("beam", "width") if options[name]}),
        column=-1 if text is None else text - 1,
        rules=options["rules"] or "any",
        phrase=options["phrase"],
        pool=options["pool"],
        where=options["where"] or "both",
        swap_from=options["swap_from"],
        keep=keep,
        diagnostics=options["diagnostics"] is not False,
    )


def _budgets(written: str) -> tuple[int, ...]:
    try:
        budgets = [int(number) for number in written.split(",")]
    except ValueError:
        budgets = []
    if not budgets or min(budgets) < 1:
        hint = "write numbers of changes of at least 1, as 1,2,4"
        raise UserError(f"{written!r} is no budget", where="--budget", hint=hint)
    return tuple(sorted(set(budgets)))


def measure_evasion_of_run(request: Request, rows: "TextData", seed: int) -> dict[str, Any]:
    """Print and return the results of the attacks that the run's ``evaluation.evasion`` names."""
    from contraverse.pipeline.evasion import evasion_progress_total, evasion_rows, measure_evasion

    settings = request.settings
    say(f"Attacking {evasion_rows(len(rows), settings)} rows: {', '.join(settings.evasion)}")
    with counting("Attacking", evasion_progress_total(len(rows), settings)) as progress:
        reports = measure_evasion(
            text_model(request.loaded, "evaluation.evasion"), rows, settings, seed=seed, progress=progress
        )
    _show(reports)
    return {"evasion": {name: report.to_dict() for name, report in reports.items()}}


def attack_texts(
    target: "Target", rows: "TextData", options: Mapping[str, Any], settings: "EvaluationConfig", *, noise: bool
) -> dict[str, Any]:
    """Attack ``rows``, print the results and return them for JSON; what evades is written to ``--adversaries``.

    ``noise``: it is measured beside the attack, for gates.

    Raises:
        UserError: an option is impossible, or the model is no classifier.
    """
    from contraverse.evasion import ModelTarget, evade_suite
    from contraverse.evasion.gate import Gate

    saved = target.model.detector if isinstance(target, ModelTarget) else None
    if saved is not None and options["threshold"] is None and options["against"] == saved.positive:
        say(f"{saved.positive} is detected from its saved threshold on, a probability of {saved.threshold:.4g}")
        options = {**options, "threshold": saved.threshold}
    suite = suite_of(options, target.labels, tuple(settings.keep))
    if options["attack_text"] and options["attack_text"] > len(rows.columns):
        raise UserError(f"a row has {len(rows.columns)} text", where="--attack-text")
    gates = [Gate.parse(written) for written in options["gate"] or ()]
    _check_gates(gates, suite, settings if noise else None)
    successes_file = options["adversaries"]
    say(f"Attacking {len(rows)} rows: {', '.join(suite.names)}")
    with counting("Attacking", suite.total(len(rows))) as progress:
        reports = evade_suite(target, rows, suite, state=options["state"], progress=progress)
    _show(reports)
    if successes_file is not None:
        count = write_successes(successes_file, [report for name, report in reports.items() if name != "standard"])
        say(f"{count} texts that evade written to {successes_file}")
    return {"evasion": {name: report.to_dict() for name, report in reports.items()}}


def _show(reports: "Mapping[str, EvasionReport]") -> None:
    """Print the tables, notes and warnings of each attack, and examples of the last, the worst of all."""
    for report in reports.values():
        result.print(table(report))
        for note in report.notes:
            say(note)
        for warning in report.warnings:
            warn(warning)
    for success in list(reports.values())[-1].successes[:_SHOWN]:
        result.print(_example(success))


def _example(success: Any) -> str:
    original, rewritten = (
        text if isinstance(text, str) else " | ".join(text) for text in (success.original, success.rewritten)
    )
    return (
        f"\n{escape(visible(original))}  ({escape(success.prediction_original)})"
        f"\n{escape(visible(rewritten))}  ({escape(success.prediction_rewritten)}; {success.attack}, "
        f"{success.changes} {'change' if success.changes == 1 else 'changes'})"
    )


def write_successes(file: Path, reports: "Sequence[EvasionReport]") -> int:
    """Write the texts that evade as JSON lines, each once, and give their number."""
    lines = dict.fromkeys(
        json.dumps(success.to_dict(), ensure_ascii=False) for report in reports for success in report.successes
    )
    write_whole(file, lambda out: out.writelines(line + "\n" for line in lines))
    return len(lines)


def table(report: "EvasionReport") -> Table:
    """Give the rates of a report: a row for clean and for each budget."""
    classes = [report.against] if report.against is not None else list(range(len(report.labels)))
    shown = classes if len(classes) <= 3 else []
    against = "" if report.against is None else f", against {report.labels[report.against]}"
    attacked = sum(row.attacked for row in report.rows)
    title = f"{report.attack}: {attacked} of {len(report.rows)} rows attacked{against}"
    grid = Table(title=escape(visible(title)), title_justify="left", title_style="bold")
    grid.add_column(report.unit)
    for name in ("accuracy", *(["recall"] if report.against is not None else []), "flip rate", "95 %"):
        grid.add_column(name, justify="right")
    for label in shown if report.against is None else ():
        grid.add_column(escape(visible(f"flips of {report.labels[label]}")), justify="right")
    for budget in (0, *report.budgets):
        cells = [_percent(report.accuracy(budget).percent)]
        if report.against is not None:
            cells.append(_percent(report.recall(report.against, budget).percent))
        if not budget:
            grid.add_row("clean", *cells, *["-"] * (len(grid.columns) - 1 - len(cells)))
            continue
        rate = report.flip_rate(None, budget)
        low, high = rate.interval or (None, None)
        cells += [_percent(rate.percent), "-" if low is None else f"{low:.1f} to {high:.1f}"]
        if report.against is None:
            cells += [_percent(report.flip_rate(label, budget).percent) for label in shown]
        grid.add_row(str(budget), *cells)
    queries, changes = report.mean_queries, report.mean_changes
    asked = "-" if queries is None else f"{queries:.0f}"
    made = "-" if changes is None else f"{changes:.1f}"
    grid.caption = f"{asked} queries a row, {made} {report.unit} where it broke, {report.seconds:.0f} s"
    grid.caption_justify = "left"
    return grid


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def figures_of(evaluation: Mapping[str, Any]) -> "Figures":
    """Give what an evaluation measured, by metric and condition, for gates.

    Conditions of an attack on texts: ``clean``, ``attack`` (the worst of all that were run), its name, and its name
    with a budget, as ``edits@2``. Of noise: ``noise``, the mean of all, ``noise:KIND``, and ``noise:KIND@STRENGTH``.
    ``metrics`` of the evaluation are there as ``clean``.
    """
    from contraverse.evaluation.keys import MetricKey
    from contraverse.evasion.gate import Figure

    figures: dict[str, dict[str, Figure]] = {}

    def add(metric: str, condition: str, rate: Mapping[str, Any]) -> None:
        interval = None if rate["low"] is None else (rate["low"], rate["high"])
        figures.setdefault(metric, {})[condition] = Figure(rate["percent"], rate["n"], interval)

    def add_all(condition: str, rates: Mapping[str, Any], against: str | None) -> None:
        add("accuracy", condition, rates["accuracy"])
        if against is not None:
            add("recall", condition, rates["recall"][against])
        if "flip_rate" in rates:
            add("flip_rate", condition, rates["flip_rate"])

    for metric, value in (evaluation.get("metrics") or {}).items():
        if isinstance(value, (int, float)):
            key = MetricKey.read(metric)
            condition = "clean" if key.under is None else str(key).partition("@")[2]
            figures.setdefault(key.metric, {})[condition] = Figure(float(value), int(evaluation.get("rows", 0)))
    if threshold := (evaluation.get("detection") or {}).get("threshold"):
        add("recall", "clean", threshold["recall"])
        add("false_positive_rate", "clean", threshold["realised"])
    if attacked := (evaluation.get("detection") or {}).get("under_attack"):
        for at in attacked["at"]:
            add("recall", f"{attacked['attack']}-{at['epsilon']:g}", at["recall"])
    if noise := evaluation.get("noise"):
        under = {
            "noise": noise["mean"]["value"],
            **{f"noise:{kind}": value for kind, value in noise["by_kind"].items()},
        }
        under |= {f"noise:{cell['kind']}@{cell['strength']}": cell["value"] for cell in noise["cells"]}
        for condition, value in under.items():
            figures.setdefault(noise["metric"], {})[condition] = Figure(value, noise["rows"])
        for name, rate in noise["threshold"].items():
            mean = rate["mean"]
            ends = None if mean["low"] is None else (mean["low"], mean["high"])
            figures.setdefault(name, {})["noise"] = Figure(mean["value"], noise["rows"], ends)
            for cell in noise["cells"]:
                condition = f"noise:{cell['kind']}@{cell['strength']}"
                figures[name][condition] = Figure(cell["threshold"][name], noise["rows"])
    for name, report in (evaluation.get("evasion") or {}).items():
        against = report["against"]
        add_all("clean", report["clean"], against)
        for at in report["at"]:
            add_all(f"{name}@{at['budget']}", at, against)
        add_all(name, report["at"][-1], against)
        add_all("attack", report["at"][-1], against)  # the last is the worst of all
    return figures


def _check_gates(gates: "Sequence[Gate]", suite: "Suite", noise: "EvaluationConfig | None") -> None:
    """Refuse a gate on what this attack, and the noise beside it, do not measure, before the work."""
    from contraverse.evasion.gate import Figure

    conditions = ["clean", "attack", *suite.names, *(["standard"] if len(suite.names) > 1 else [])]
    conditions += [f"{name}@{budget}" for name in suite.names for budget in suite.budgets_of(name)]
    there = dict.fromkeys(conditions, Figure(None, 0))
    expected = {"accuracy": there, "flip_rate": {name: there[name] for name in conditions if name != "clean"}}
    if suite.goal.against is not None:
        expected["recall"] = there
    if noise is not None:
        under = ["noise", *(f"noise:{kind}" for kind in noise.noise)]
        under += [f"noise:{kind}@{strength}" for kind in noise.noise for strength in noise.noise_strengths]
        noisy = dict.fromkeys(under, Figure(None, 0))
        expected["accuracy"] = there | noisy
        if noise.positive is not None:
            expected["recall"] = expected.get("recall", {}) | noisy
            expected["false_positive_rate"] = noisy
    for gate in gates:
        if gate.metric == "recall" and "recall" not in expected:
            raise UserError(f"{gate.written}: recall is of one class", where="--gate", hint="name it with --against")
        gate.figure(expected)


def check_gates(written: Sequence[str] | None, evaluation: Mapping[str, Any]) -> None:
    """Say which gates fail, and end with exit code 3 if one does.

    Raises:
        UserError: a gate names what was not measured.
    """
    if not written:
        return
    from contraverse.evasion.gate import Gate, failures

    reasons = failures([Gate.parse(gate) for gate in written], figures_of(evaluation))
    for reason in reasons:
        complain(f"gate failed: {reason}")
    if reasons:
        raise typer.Exit(GATE_FAILED)
    say(f"{len(written)} gates passed")
