"""Measuring a saved model under noise on texts, the same for a run and for ``contraverse evaluate``."""

from collections.abc import Callable
from typing import Any

from contraverse.data import Task, TextData
from contraverse.evaluation import NoiseSettings, StsSources, find_sts, noise_robustness, noise_sts
from contraverse.evaluation.noise.task import Scorer
from contraverse.models import AnyModel, TextModel
from contraverse.recipes import EvaluationConfig

Progress = Callable[[int], None]


def noise_settings(settings: EvaluationConfig, seed: int) -> NoiseSettings:
    """Noise of an evaluation; ``seed`` is that of its rows."""
    return NoiseSettings(
        tuple(settings.noise),
        tuple(settings.noise_strengths),
        settings.noise_draws,
        seed,
        settings.noise_side,
        tuple(settings.keep),
    )


def noise_progress_total(rows: int, settings: EvaluationConfig, seed: int) -> int:
    """Rows that `measure_noise` reports to ``progress`` in all."""
    return noise_settings(settings, seed).progress_total(min(settings.rows or rows, rows))


def measure_noise(
    model: AnyModel | Scorer,
    rows: TextData,
    task: Task,
    settings: EvaluationConfig,
    *,
    seed: int,
    train: TextData | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the task's metric under ``settings.noise``, on ``settings.rows`` of ``rows``.

    Returns:
        ``noise``: `NoiseReport.to_dict`.

    Raises:
        UserError: the rows have no labels.
    """
    chosen = rows.sample(settings.rows, seed) if settings.rows else rows
    report = noise_robustness(
        model,
        chosen,
        noise_settings(settings, seed),
        metric=task.metric,
        train=train,
        positive=settings.positive,
        batch_size=settings.batch_size,
        progress=progress,
    )
    return {"noise": report.to_dict()}


def measure_noise_sts(
    model: TextModel,
    source: str | StsSources,
    settings: EvaluationConfig,
    *,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure Spearman's correlation on STS sets under ``settings.noise``.

    Returns:
        ``noise``: `NoiseReport.to_dict`.
    """
    sources = source if isinstance(source, StsSources) else find_sts(source)
    report = noise_sts(
        model, sources.test, noise_settings(settings, seed), batch_size=settings.batch_size, progress=progress
    )
    return {"noise": report.to_dict()}
