"""What a trained model is worth: task metrics, robust accuracy, STS, and the geometry of its embeddings."""

from contraverse.evaluation.geometry import alignment, uniformity
from contraverse.evaluation.metrics import METRICS
from contraverse.evaluation.predict import predict
from contraverse.evaluation.robustness import Attacked, PGDSettings, RobustReport, robust_accuracy
from contraverse.evaluation.sts import (
    STS_SETS,
    StsbDev,
    StsReport,
    StsScores,
    StsSet,
    evaluate_sts,
    load_sts,
)
from contraverse.evaluation.task import TaskEvaluator, evaluate

__all__ = [
    "METRICS",
    "STS_SETS",
    "Attacked",
    "PGDSettings",
    "RobustReport",
    "StsReport",
    "StsScores",
    "StsSet",
    "StsbDev",
    "TaskEvaluator",
    "alignment",
    "evaluate",
    "evaluate_sts",
    "load_sts",
    "predict",
    "robust_accuracy",
    "uniformity",
]
