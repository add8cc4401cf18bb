"""Flags that are read or refused: of ``contraverse evaluate`` those that a model of images would ignore."""

from collections.abc import Collection, Mapping
from typing import Any

from contraverse.errors import UserError
from contraverse.recipes import ImageEvaluationConfig
from contraverse.units import fraction

OF_PGD = ("--step-size", "--random-start", "--restarts", "--shift", "--diagnostics")
ATTACKED = ("--attack", "--norm", "--relative", *OF_PGD)
BEYOND = ("--corruptions", "--corrupted", "--unforeseen", "--unforeseen-attacks")
AUTOATTACK = ("--version", "--attacks", "--queries", "--state")
TEXTS = (
    "--sts",
    "--anli",
    "--text",
    "--noise",
    "--noise-strengths",
    "--noise-draws",
    "--noise-side",
    "--keep",
)
IMAGES = (*BEYOND, *AUTOATTACK, "--bn-branch")


def positive(written: str, flag: str, *, at_most: int | None = None) -> list[float]:
    """Numbers above 0, with commas between them, as decimals or fractions.

    Raises:
        UserError: what is written is something else.
    """
    try:
        numbers = [float(fraction(number)) for number in written.split(",")]
    except ValueError:
        numbers = [-1.0]
    if any(not 0 < number < float("inf") for number in numbers) or len(numbers) > (at_most or len(numbers)):
        raise UserError(f"{written!r} is not possible: it must be above 0, as .1 or 8/255", where=flag)
    return numbers


def check_image_flags(used: Mapping[str, Any], settings: ImageEvaluationConfig, *, encoder: bool) -> None:
    """Refuse what would be ignored, before anything is measured.

    Args:
        given: the flags that were given, with their values; those that turn something off are not among them.
        settings: the run's, with the flags over them.
        encoder: whether the model has no classes.

    Raises:
        UserError: a flag has nothing to act on.
    """
    if idle := _among(TEXTS, used):
        raise UserError(f"{idle} is for models of texts, and this one is of images", hint="leave it out")
    if encoder:
        attack = used.get("--eps") not in (None, "none")
        if idle := _among((*ATTACKED, *AUTOATTACK, "--eps" if attack else "", "--steps", "--rows", *BEYOND), used):
            raise UserError(
                f"an encoder has no classes to attack: its measure is a linear probe, which takes no {idle}",
                hint="train a classifier on it first, contraverse train probe --init, or leave that out",
            )
        return
    if "--corruptions" in used and "--corrupted" in used:
        raise UserError(
            "--corruptions makes them of these images, --corrupted reads them from files", hint="take one at a time"
        )
    if used.get("--attack") != "autoattack":
        if idle := _among(AUTOATTACK, used):
            raise UserError(f"{idle} is AutoAttack's", hint="give --attack autoattack, or leave it out")
        if used.get("--norm") == "l1":
            raise UserError("PGD and APGD take no L1 norm", hint="give --attack autoattack, or --norm l2 or linf")
    unforeseen = "--unforeseen" in used or "--unforeseen-attacks" in used
    if used.get("--attack") == "autoattack":
        _check_auto_attack(used, settings, unforeseen)
    elif not settings.epsilons:
        idle = _among((*ATTACKED, *(() if unforeseen else ("--steps",))), used)
        idle = idle or ("" if _among(BEYOND, used) else _among(("--rows",), used))
        if idle:
            raise UserError(f"without a radius nothing is attacked, and {idle} does nothing", hint="give --eps 8/255")


def _check_auto_attack(used: Mapping[str, Any], settings: ImageEvaluationConfig, unforeseen: bool) -> None:
    if not settings.epsilons:
        raise UserError("AutoAttack needs a radius, and there is none", hint="give --eps 8/255")
    steps = () if unforeseen else ("--steps",)
    if idle := _among((*OF_PGD, *steps), used):
        raise UserError(
            f"AutoAttack has its own steps and restarts, and takes no {idle}",
            hint="leave that out, or attack with --attack apgd",
        )
    if settings.relative:
        raise UserError("AutoAttack takes no relative radii", hint="give --absolute and --eps 8/255")


def _among(flags: Collection[str], used: Mapping[str, Any]) -> str:
    """Flags among ``flags`` that were given, as a list for a reader; empty where none was."""
    return ", ".join(flag for flag in flags if flag in used)
