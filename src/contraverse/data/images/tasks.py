"""The registry of image tasks: classes, metric, size, normalisation, and where the Hub's copy is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from contraverse.errors import unknown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageTask:
    """One task of image classification.

    ``labels``: the classes in the order of their ids, None where they are read from the training images. ``size``: the
    images' own height and width, None where any are taken. ``mean`` and ``std``: of the normalisation inside the model,
    a value for each of three channels; ImageNet's by default, as ACL has them for CIFAR too. ``flip``: whether an
    image's mirror image is of its class, so that views may flip it. ``hub``: (data set id, configuration) on the
    Hugging Face Hub; ``splits``: our split names to the Hub's. ``image`` and ``label``: the columns of that copy.
    ``metrics``: what is measured, ``metric`` the one that chooses the best checkpoint.
    """

    name: str
    summary: str
    labels: tuple[str, ...] | None = None
    size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    flip: bool = True
    hub: tuple[str, str | None] | None = None
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    image: str = "image"
    label: str = "label"
    metrics: tuple[str, ...] = ("accuracy",)
    metric: str = "accuracy"
    kind: Literal["images"] = "images"
    labelled: ClassVar[bool] = True


CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()
)
_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T - shirt / top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_ROWS = (
    ImageTask(
        name="cifar10",
        summary="Ten kinds of animals and vehicles, 32x32",
        labels=CIFAR10,
        size=32,
        hub=("uoft-cs/cifar10", None),
        image="img",
    ),
    ImageTask(
        name="cifar100",
        summary="A hundred kinds of things, 32x32",
        labels=CIFAR100,
        size=32,
        hub=("uoft-cs/cifar100", None),
        image="img",
        label="fine_label",
    ),
    ImageTask(
        name="mnist",
        summary="Handwritten digits, 28x28, grey",
        labels=_DIGITS,
        size=28,
        mean=(0.1307,) * 3,
        std=(0.3081,) * 3,
        flip=False,
        hub=("ylecun/mnist", None),
    ),
    ImageTask(
        name="fashion_mnist",
        summary="Ten kinds of clothes, 28x28, grey",
        labels=_CLOTHES,
        size=28,
        mean=(0.2860,) * 3,
        std=(0.3530,) * 3,
        hub=("zalando-datasets/fashion_mnist", None),
    ),
    ImageTask(
        name="digits",
        summary="Handwritten digits, 8x8, grey, from scikit-learn: needs no network",
        labels=_DIGITS,
        size=8,
        mean=(0.3053,) * 3,
        std=(0.3759,) * 3,
        flip=False,
    ),
    ImageTask(name="images", summary="Your own images and their classes"),
)

IMAGE_TASKS: dict[str, ImageTask] = {row.name: row for row in _ROWS}


def get_image_task(name: str) -> ImageTask:
    """The task of that name; a `UserError` with the nearest names where there is none."""
    if name not in IMAGE_TASKS:
        raise unknown("image task", name, IMAGE_TASKS)
    return IMAGE_TASKS[name]
