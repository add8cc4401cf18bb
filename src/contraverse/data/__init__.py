"""Data: the registry of tasks, where rows come from, and how they become batches."""

from contraverse.data.dataset import Row, TextData, TextSplits
from contraverse.data.encoding import Collator, EncodedText, LengthGroupedSampler, NoisyText
from contraverse.data.images import (
    IMAGE_TASKS,
    ImageCollator,
    ImageData,
    ImageSplits,
    ImageTask,
    get_image_task,
    load_images,
)
from contraverse.data.load import load_splits, quickstart_data
from contraverse.data.splits import Splits
from contraverse.data.tasks import TASKS, Task, any_task, get_task

Encoded = EncodedText | ImageData
"""Rows with numbers in place of words: ``collate`` makes batches of them, whose ``lengths`` are alike."""

Rows = TextData | Encoded
"""Rows to train and to measure on."""

__all__ = [
    "IMAGE_TASKS",
    "TASKS",
    "Collator",
    "Encoded",
    "EncodedText",
    "ImageCollator",
    "ImageData",
    "ImageSplits",
    "ImageTask",
    "LengthGroupedSampler",
    "NoisyText",
    "Row",
    "Rows",
    "Splits",
    "Task",
    "TextData",
    "TextSplits",
    "any_task",
    "get_image_task",
    "get_task",
    "load_images",
    "load_splits",
    "quickstart_data",
]
