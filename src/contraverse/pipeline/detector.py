"""The threshold of a detector, chosen on validation rows: the same for a run and for ``contraverse evaluate``."""

from contraverse.data import Rows
from contraverse.errors import UserError
from contraverse.evaluation import TaskEvaluator
from contraverse.evaluation.detection import choose_threshold
from contraverse.models import AnyModel
from contraverse.recipes import EvaluationConfig
from contraverse.types import BNBranch


def fit_detector(
    model: AnyModel, validation: Rows | None, settings: EvaluationConfig, bn_branch: BNBranch = "adversarial"
) -> str:
    """Set ``model.detector`` for ``settings.positive`` at ``settings.false_positive_rate``, and say how.

    Where the rows hold no threshold the model is left without one: the sentence says why.

    Args:
        model: a classifier.
        validation: rows that it was not trained on.
        settings: class, rate and batch size.
        bn_branch: set of a dual model's batch norms by which it is used.

    Returns:
        A sentence for the user.

    Raises:
        UserError: the model has no such class.
    """
    assert settings.positive is not None
    model.detector = None
    if validation is None or validation.labels is None:
        return "no threshold was chosen: there are no validation rows with labels"
    logits, labels = TaskEvaluator(validation, (), settings.batch_size, bn_branch=bn_branch).predict(model)
    try:
        model.detector = choose_threshold(
            logits, labels, model.labels or (), settings.positive, settings.false_positive_rate
        )
    except UserError as error:
        return f"no threshold was chosen: {error.what}"
    return (
        f"{settings.positive} is detected from a probability of {model.detector.threshold:.4g} on, which at most "
        f"{settings.false_positive_rate:g} % of {model.detector.benign_rows:,} benign validation rows reach"
    )
