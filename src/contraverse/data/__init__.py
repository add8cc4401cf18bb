"""Data: the registry of tasks, where rows come from, and how they become batches."""

from .batching import Collator, LengthGroupedSampler
from .bundled import quickstart_data
from .dataset import EncodedText, Row, Splits, TextData
from .sources import load_splits
from .tasks import TASKS, Task, get_task

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
