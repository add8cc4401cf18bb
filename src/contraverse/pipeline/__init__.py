"""From a configuration to a run folder."""

from contraverse.pipeline.run import Interrupted, RunResult, run

__all__ = ["Interrupted", "RunResult", "run"]
