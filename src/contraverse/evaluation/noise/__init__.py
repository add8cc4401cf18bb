"""Models under noise on texts: a metric clean and by kind and strength, with intervals over rows."""

from contraverse.evaluation.noise.report import NoiseCell, NoiseExample, NoiseReport, NoiseSettings
from contraverse.evaluation.noise.sentences import noise_sts
from contraverse.evaluation.noise.task import noise_robustness

__all__ = ["NoiseCell", "NoiseExample", "NoiseReport", "NoiseSettings", "noise_robustness", "noise_sts"]
