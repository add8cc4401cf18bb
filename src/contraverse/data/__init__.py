"""Data: the registry of tasks, where rows come from, and how they become batches."""

from contraverse.data.batching import Collator, LengthGroupedSampler
from contraverse.data.bundled import quickstart_data
from contraverse.data.dataset import EncodedText, Row, Splits, TextData
from contraverse.data.sources import load_splits
from contraverse.data.tasks import TASKS, Task, get_task

__all__ = [
    "TASKS",
    "Collator",
    "EncodedText",
    "LengthGroupedSampler",
    "Row",
    "Splits",
    "Task",
    "TextData",
    "get_task",
    "load_splits",
    "quickstart_data",
]
