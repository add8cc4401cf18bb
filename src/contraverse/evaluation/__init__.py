"""Evaluation of a trained model: task metrics, robust accuracy, STS, and the geometry of its embeddings."""

from contraverse.attacks import AttackSettings
from contraverse.evaluation.diagnostics import Diagnosis
from contraverse.evaluation.geometry import alignment, uniformity
from contraverse.evaluation.metrics import METRICS
from contraverse.evaluation.nli import ANLI_ROUNDS, NliReport, NliScores, evaluate_nli, load_anli
from contraverse.evaluation.noise import NoiseReport, NoiseSettings, noise_robustness, noise_sts
from contraverse.evaluation.own_models import AdversarialExamples, attack
from contraverse.evaluation.predict import TaskEvaluator, predict
from contraverse.evaluation.robustness import (
    Attacked,
    RobustReport,
    evaluate,
    recall_under_attack,
    robust_accuracy,
    rows_done,
)
from contraverse.evaluation.shift import Shift, ShiftReport, representation_shift, shift_attempts
from contraverse.evaluation.sts import StsbDev, StsReport, StsScores, evaluate_sts
from contraverse.evaluation.sts_sets import STS_ON_HUB, STS_SETS, StsSet, StsSources, find_sts, load_sts

__all__ = [
    "ANLI_ROUNDS",
    "METRICS",
    "STS_ON_HUB",
    "STS_SETS",
    "AdversarialExamples",
    "AttackSettings",
    "Attacked",
    "Diagnosis",
    "NliReport",
    "NliScores",
    "NoiseReport",
    "NoiseSettings",
    "RobustReport",
    "Shift",
    "ShiftReport",
    "StsReport",
    "StsScores",
    "StsSet",
    "StsSources",
    "StsbDev",
    "TaskEvaluator",
    "alignment",
    "attack",
    "evaluate",
    "evaluate_nli",
    "evaluate_sts",
    "find_sts",
    "load_anli",
    "load_sts",
    "noise_robustness",
    "noise_sts",
    "predict",
    "recall_under_attack",
    "representation_shift",
    "robust_accuracy",
    "rows_done",
    "shift_attempts",
    "uniformity",
]
