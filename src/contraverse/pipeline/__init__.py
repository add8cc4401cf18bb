"""Runs, searches and studies: a configuration becomes a folder with a model and its figures."""

from contraverse.pipeline.folder import model_dir
from contraverse.pipeline.measure import (
    bn_branch_of,
    measure_probe,
    measure_shift,
    measure_sts,
    measure_task,
    progress_total,
)
from contraverse.pipeline.quickstart import QuickstartResult, quickstart
from contraverse.pipeline.quickstart_images import quickstart_images
from contraverse.pipeline.result import Interrupted, RunResult
from contraverse.pipeline.run import run
from contraverse.pipeline.search import SearchResult, Trial, search
from contraverse.pipeline.study import run_study

__all__ = [
    "Interrupted",
    "QuickstartResult",
    "RunResult",
    "SearchResult",
    "Trial",
    "bn_branch_of",
    "measure_probe",
    "measure_shift",
    "measure_sts",
    "measure_task",
    "model_dir",
    "progress_total",
    "quickstart",
    "quickstart_images",
    "run",
    "run_study",
    "search",
]
