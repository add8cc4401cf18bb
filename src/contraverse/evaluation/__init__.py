"""What a trained model is worth: task metrics, robust accuracy, STS, and the geometry of its embeddings."""

from contraverse.evaluation.attack_loop import AttackSettings
from contraverse.evaluation.diagnostics import Diagnosis
from contraverse.evaluation.geometry import alignment, uniformity
from contraverse.evaluation.metrics import METRICS
from contraverse.evaluation.nli import ANLI_ROUNDS, NliReport, NliScores, evaluate_nli, load_anli
from contraverse.evaluation.predict import predict
from contraverse.evaluation.robustness import Attacked, RobustReport, robust_accuracy, settled_rows
from contraverse.evaluation.shift import Shift, ShiftReport, representation_shift, shift_attempts
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
    "ANLI_ROUNDS",
    "METRICS",
    "STS_SETS",
    "AttackSettings",
    "Attacked",
    "Diagnosis",
    "NliReport",
    "NliScores",
    "RobustReport",
    "Shift",
    "ShiftReport",
    "StsReport",
    "StsScores",
    "StsSet",
    "StsbDev",
    "TaskEvaluator",
    "alignment",
    "evaluate",
    "evaluate_nli",
    "evaluate_sts",
    "load_anli",
    "load_sts",
    "predict",
    "representation_shift",
    "robust_accuracy",
    "settled_rows",
    "shift_attempts",
    "uniformity",
]
