"""``contraverse evaluate``: metrics of a model, clean and under attack."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contraverse.attacks.table import attacks_of
from contraverse.cli import evasion, function
from contraverse.cli.console import say, with_options
from contraverse.cli.detector import FalsePositiveRate, Positive
from contraverse.cli.files import MODEL, Delimiter, Encoding, Pool, Split, Trust, check_target, load_model, write_whole
from contraverse.cli.foreign import Arch, Normalise
from contraverse.cli.noise import DrawCount, Keep, Noise, NoiseSide, Strengths
from contraverse.cli.request import Request, settings_of, with_settings
from contraverse.cli.several import process_number
from contraverse.errors import UserError

ON_EMBEDDINGS_AND_PIXELS, AUTOATTACK = attacks_of("robust_accuracy"), attacks_of("auto_attack")
CHOICES = ON_EMBEDDINGS_AND_PIXELS | AUTOATTACK
"""Attacks of ``--attack``, by name."""
NORMS = tuple(dict.fromkeys(norm for spec in CHOICES.values() for norm in spec.norms))

PANELS = {
    "Data": ("task", "data", "text", "label", "delimiter", "encoding", "split", "on_bad_row"),
    "Attack": (
        *("eps", "attack", "norm", "steps", "step_size", "random_start", "restarts", "relative", "rows"),
        *("diagnostics", "shift", "version", "attacks", "queries", "state"),
    ),
    "Noise": ("noise", "noise_strengths", "noise_draws", "noise_side", "keep"),
    "Detector": ("positive", "false_positive_rate"),
    "Attacks on texts as texts": evasion.PANEL,
    "A function of your own": function.PANEL,
    "Images": ("corruptions", "corrupted", "unforeseen", "unforeseen_attacks", "bn_branch"),
    "Model and embeddings": (
        *("model_arch", "normalise", "module", "pooling", "sts", "anli", "trust_remote_code", "batch_size"),
    ),
    "Output": ("output", "report", "force"),
}
"""Panels of ``--help``, and the options in each."""


@with_options(PANELS, choices={"attack": (*CHOICES, *evasion.TEXT_ATTACKS), "norm": NORMS})
def evaluate(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help=MODEL)] = None,
    task: Annotated[str | None, typer.Option(help="contraverse list tasks. (default: the run's)")] = None,
    data: Annotated[str | None, typer.Option(help="A file or folder. (default: the run's)")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text column; twice for a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column.")] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    split: Annotated[Split, typer.Option(help="Rows to measure on.")] = "test",
    eps: Annotated[
        str | None, typer.Option(help="Radii, as .1,.3,1 or 8/255; none for no attack. (default: the run's)")
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(help="autoattack: images; edits to standard: texts as texts. (default: the run's)"),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="l2 of a sequence or an image, or linf; l1: AutoAttack only.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps of an attempt.")] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Step size, as .05 or 2/255. (default: by radius and steps)")
    ] = None,
    random_start: Annotated[
        bool | None, typer.Option("--random-start/--clean-start", help="Start of the first attempt on a row.")
    ] = None,
    restarts: Annotated[int | None, typer.Option(min=1, help="Attempts on each row, with each loss.")] = None,
    relative: Annotated[
        bool | None, typer.Option("--relative/--absolute", help="Radii as fractions of each text's own embeddings.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Attack, or corrupt, at most so many rows.")] = None,
    shift: Annotated[
        bool | None, typer.Option("--shift/--no-shift", help="Measure how far the attack moves representations.")
    ] = None,
    diagnostics: Annotated[
        bool | None, typer.Option("--diagnostics/--no-diagnostics", help="Test the attack itself on 32 rows.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows at a time. (default: the run's; AutoAttack's: 250)")
    ] = None,
    version: Annotated[
        Literal["standard", "plus", "rand"] | None,
        typer.Option(help="AutoAttack: rand is for models that draw at random. (default: standard)"),
    ] = None,
    attacks: Annotated[str | None, typer.Option(help="AutoAttack: only these, as apgd-ce,apgd-t,fab-t,square.")] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="AutoAttack: queries of Square. (default: 5000)")] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="AutoAttack and attacks on texts: keep progress in this file; the same command goes on from it."
        ),
    ] = None,
    on_bad_row: Annotated[
        Literal["error", "skip"] | None, typer.Option(help="Unusable rows: stop with an error, or skip and count them.")
    ] = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Accuracy under 19 corruptions in 5 severities.")
    ] = False,
    corrupted: Annotated[Path | None, typer.Option(help="Folder of CIFAR-10-C's .npy files.")] = None,
    unforeseen: Annotated[
        bool, typer.Option("--unforeseen", help="UAR under JPEG, elastic, L1, L2 and Linf attacks.")
    ] = False,
    unforeseen_attacks: Annotated[
        str | None,
        typer.Option(help="These instead, as fog,snow,gabor; or all. --steps is theirs, too (default: 200)."),
    ] = None,
    bn_branch: Annotated[
        Literal["clean", "adversarial"] | None,
        typer.Option(help="Dual models: set of batch norms. (default: adversarial, where they were trained)"),
    ] = None,
    noise: Noise = None,
    noise_strengths: Strengths = None,
    noise_draws: DrawCount = None,
    noise_side: NoiseSide = None,
    keep: Keep = None,
    positive: Positive = None,
    false_positive_rate: FalsePositiveRate = None,
    pooling: Pool = None,
    sts: Annotated[
        str | None,
        typer.Option(help="Sentence encoders: a folder of STS sets, a file of pairs with scores, or hub."),
    ] = None,
    anli: Annotated[str | None, typer.Option(help="Models of NLI: a folder of ANLI's three rounds, or hub.")] = None,
    predict: function.Predict = None,
    classes: function.Classes = None,
    model_arch: Arch = None,
    normalise: Normalise = None,
    module: Annotated[
        str | None,
        typer.Option(
            help="Your own network, FILE.py:FUNCTION: runs that code. FUNCTION gives a torch.nn.Module from pixels in "
            "[0, 1] to logits; MODEL is the file of its weights, if there is one."
        ),
    ] = None,
    budget: evasion.Budget = None,
    rules: evasion.Rules = None,
    phrase: evasion.Phrase = None,
    pool: evasion.Pool = None,
    where: evasion.Where = None,
    swap_from: evasion.SwapFrom = None,
    scores: evasion.Scores = False,
    labels: evasion.Labels = False,
    against: evasion.Against = None,
    threshold: evasion.Threshold = None,
    attack_text: evasion.AttackText = None,
    beam: evasion.Beam = None,
    width: evasion.Width = None,
    adversaries: evasion.Adversaries = None,
    gate: evasion.Gates = None,
    output: Annotated[Path | None, typer.Option(help="Also write the results to this .json.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write the results to this .html: one page with tables and plots.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output and --report.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Measure a classifier clean and under attack on word embeddings or pixels, or a sentence encoder on STS sets."""
    if model is None and module is None and predict is None:
        context.fail("Missing argument 'MODEL', or --module, or --predict.")
    if model is not None and predict is not None:
        raise UserError(f"{model} and --predict are two models", hint="leave one of them out")
    if classes is not None and predict is None:
        raise UserError("names the classes of a function", where="--classes", hint="leave it out, or give --predict")
    if output is not None:
        check_target(output, (".json",), force)
    if report is not None:
        check_target(report, (".html",), force)
    if adversaries is not None:
        check_target(adversaries, (".jsonl",), force)
    options = {name: None if value in ((), []) else value for name, value in context.params.items()}
    options["text"] = text or None
    evaluation = function.measure_function(options) if predict is not None else _measure_model(options)
    name = " ".join(filter(None, (predict, module, model)))
    if output is not None:
        write_whole(output, lambda file: json.dump({"model": name, **evaluation}, file, indent=2))
        say(f"written to {output}")
    if report is not None and process_number() == 0:
        from contraverse.pipeline.fingerprint import environment
        from contraverse.pipeline.report import write_evaluation

        command = shlex.join(["contraverse", *sys.argv[1:]])
        write_evaluation(report, name, evaluation, command=command, made_with=environment())
        say(f"report written to {report}")
    evasion.check_gates(gate, evaluation)


def _measure_model(options: Mapping[str, Any]) -> dict[str, Any]:
    """Load the model, and print and return its results."""
    values, attack, norm = settings_of(options), options["attack"], options["norm"]
    if attack not in ON_EMBEDDINGS_AND_PIXELS:
        values.pop("attack", None)
    if norm is not None and all(norm not in spec.norms for spec in ON_EMBEDDINGS_AND_PIXELS.values()):
        values.pop("norm", None)
    loaded = load_model(
        options["model"],
        pooling=options["pooling"],
        arch=options["model_arch"],
        normalise=options["normalise"],
        module=options["module"],
        trust_remote_code=options["trust_remote_code"],
    )
    from contraverse.cli.evaluations import measure

    return measure(Request(loaded, with_settings(loaded, values), options))
