"""The table of kinds of evaluation: `contraverse.cli.evaluate` runs the first that fits."""

from collections.abc import Callable
from typing import Any, NamedTuple

from contraverse.attacks.table import ATTACKS
from contraverse.cli import evasion, image_evaluation, text_evaluation
from contraverse.cli.checks import IMAGES, check_image_flags
from contraverse.cli.detector import check_detector_flags
from contraverse.cli.noise import check_noise_flags
from contraverse.cli.request import Request
from contraverse.errors import UserError
from contraverse.recipes import ImageEvaluationConfig


class Kind(NamedTuple):
    """A kind of evaluation: the requests that it answers, and the function that prints and returns its results."""

    name: str
    fits: Callable[[Request], bool]
    measure: Callable[[Request], dict[str, Any]]


KINDS: tuple[Kind, ...] = (
    Kind("probe of an image encoder", lambda r: r.of_images and r.is_encoder, image_evaluation.measure_encoder),
    Kind("image classifier", lambda r: r.of_images, image_evaluation.measure_classifier),
    Kind("attack on texts", lambda r: r.options["attack"] in evasion.TEXT_ATTACKS, evasion.measure_evasion),
    Kind("ANLI", lambda r: r.options["anli"] is not None, text_evaluation.measure_anli),
    Kind(
        "shift of an encoder",
        lambda r: r.is_encoder and r.settings.shift and r.options["sts"] is None,
        text_evaluation.measure_shift,
    ),
    Kind("STS", lambda r: r.is_encoder or r.options["sts"] is not None, text_evaluation.measure_sts),
    Kind("text task", lambda r: True, text_evaluation.measure_task),
)


def measure(request: Request) -> dict[str, Any]:
    """Print and return the results of the first kind that fits; ``metrics`` are by name, as in JSON.

    Raises:
        UserError: a flag has nothing to act on, or the evaluation is not possible.
    """
    _check_flags(request)
    kind = next(kind for kind in KINDS if kind.fits(request))
    evaluation = kind.measure(request)
    from contraverse.evaluation.keys import named_metrics

    return {**evaluation, "metrics": named_metrics(evaluation)} if "metrics" in evaluation else evaluation


def _check_flags(request: Request) -> None:
    """Refuse flags that would be ignored, before anything is measured."""
    if evasion.check_flags(request):
        return
    check_detector_flags(request)
    if request.of_images:
        assert isinstance(request.settings, ImageEvaluationConfig)
        check_image_flags(request.flags, request.settings, encoder=request.is_encoder)
        return
    check_noise_flags(request)
    own_norms = request.options["norm"] is None or request.options["norm"] in request.settings.spec.norms
    if ATTACKS[request.attack].measured_by == "auto_attack" or not own_norms or set(IMAGES) & set(request.flags):
        raise UserError(
            "AutoAttack, corruptions, unforeseen attacks and --bn-branch are for images, and this model is one of texts"
        )
