"""Images: the registry of tasks, where images come from, their batches and random views."""

from contraverse.data.images.dataset import ImageCollator, ImageData, ImageSplits
from contraverse.data.images.load import load_images
from contraverse.data.images.tasks import IMAGE_TASKS, ImageTask, get_image_task
from contraverse.data.images.transforms import CropFlip, OneView, SimCLRAugment, TwoViews

__all__ = [
    "IMAGE_TASKS",
    "CropFlip",
    "ImageCollator",
    "ImageData",
    "ImageSplits",
    "ImageTask",
    "OneView",
    "SimCLRAugment",
    "TwoViews",
    "get_image_task",
    "load_images",
]
