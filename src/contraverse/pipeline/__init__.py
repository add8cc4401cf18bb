"""From a configuration to a run folder."""

from contraverse.pipeline.measure import (
    measure_probe,
    measure_shift,
    measure_sts,
    measure_task,
    route_of,
    settled_in_all,
)
from contraverse.pipeline.quickstart import QuickstartResult, quickstart
from contraverse.pipeline.quickstart_images import quickstart_images
from contraverse.pipeline.result import Interrupted, RunResult
from contraverse.pipeline.run import run
from contraverse.pipeline.search import SearchResult, Trial, search
from contraverse.pipeline.start import model_of
from contraverse.pipeline.study import run_study

__all__ = [
    "Interrupted",
    "QuickstartResult",
    "RunResult",
    "SearchResult",
    "Trial",
    "measure_probe",
    "measure_shift",
    "measure_sts",
    "measure_task",
    "model_of",
    "quickstart",
    "quickstart_images",
    "route_of",
    "run",
    "run_study",
    "search",
    "settled_in_all",
]
