"""Evaluations of image models beyond PGD: AutoAttack, corruptions, unforeseen attacks, linear probes."""

from contraverse.evaluation.images.autoattack import VERSIONS, AutoAttackReport, auto_attack
from contraverse.evaluation.images.clusters import find_clusters, matched_accuracy
from contraverse.evaluation.images.corruptions import (
    ALL_CORRUPTIONS,
    CIFAR_C,
    COMMON_CORRUPTIONS,
    CorruptionReport,
    check_corruptible,
    corruption_accuracy,
    load_cifar_c,
)
from contraverse.evaluation.images.probing import ProbeReport, linear_separability
from contraverse.evaluation.images.unforeseen import (
    CIFAR10_ATA,
    IMAGENET_SIZES,
    REFERENCE_STEPS,
    UNFORESEEN,
    UnforeseenReport,
    planned,
    unforeseen_accuracy,
)

__all__ = [
    "ALL_CORRUPTIONS",
    "CIFAR10_ATA",
    "CIFAR_C",
    "COMMON_CORRUPTIONS",
    "IMAGENET_SIZES",
    "REFERENCE_STEPS",
    "UNFORESEEN",
    "VERSIONS",
    "AutoAttackReport",
    "CorruptionReport",
    "ProbeReport",
    "UnforeseenReport",
    "auto_attack",
    "check_corruptible",
    "corruption_accuracy",
    "find_clusters",
    "linear_separability",
    "load_cifar_c",
    "matched_accuracy",
    "planned",
    "unforeseen_accuracy",
]
