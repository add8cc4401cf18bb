"""From a configuration to a run folder."""

from contraverse.pipeline.measure import measure_sts, measure_task
from contraverse.pipeline.quickstart import QuickstartResult, quickstart
from contraverse.pipeline.run import Interrupted, RunResult, run

__all__ = [
    "Interrupted",
    "QuickstartResult",
    "RunResult",
    "measure_sts",
    "measure_task",
    "quickstart",
    "run",
]
