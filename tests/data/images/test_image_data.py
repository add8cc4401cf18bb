from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contraverse.data import ImageCollator, ImageData, ImageSplits, TextData
from contraverse.data.images import IMAGE_TASKS, get_image_task
from contraverse.data.images.tasks import IMAGENET_MEAN, IMAGENET_STD
from contraverse.errors import UserError
from contraverse.models.image import IMAGENET


def numbered(labels: list[int], classes: int | None = None) -> ImageData:
    """Images whose first byte is their number."""
    pixels = np.zeros((len(labels), 4, 5, 3), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(labels))
    names = None if classes is None else [f"class {i}" for i in range(classes)]
    return ImageData.from_arrays(pixels, labels, names)


def rows(data: ImageData) -> list[int]:
    return data.pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3), (2, 1, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["uint8", "int64", "float32"])
def test_arrays_become_three_channels_of_bytes(shape: tuple[int, ...], kind: str) -> None:
    whole = np.random.default_rng(0).integers(0, 256, shape)
    given = (whole / 255).astype("float32") if kind == "float32" else whole.astype(kind)
    data = ImageData.from_arrays(given)
    assert data.pixels.dtype == torch.uint8
    assert data.pixels.shape == (2, 3, 4, 5)
    value = whole[1, 2, 3] if len(shape) == 3 else whole[1, 2, 3, 0] if shape[1] == 4 else whole[1, 0, 2, 3]
    assert data.pixels[1, 0, 2, 3] == value
    if 3 not in shape:
        assert torch.equal(data.pixels[:, 0], data.pixels[:, 2])


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((2, 4, 5, 4), np.uint8), "shape (2, 4, 5, 4) holds no images"),
        (np.zeros((4, 5), np.uint8), "shape (4, 5) holds no images"),
        (np.zeros((0, 4, 5), np.uint8), "shape (0, 4, 5) holds no images"),
        (np.full((1, 4, 5), 300), "int64 from 300 to 300"),
        (np.full((1, 4, 5), -0.5), "float64 from -0.5"),
        (np.full((1, 4, 5), np.nan), "float64 from nan"),
        (np.full((1, 4, 5), 128.0), "float64 from 128.0"),
        (np.zeros((1, 4, 5), bool), "bool"),
    ],
)
def test_arrays_that_are_no_images_are_refused(pixels: np.ndarray, says: str) -> None:
    with pytest.raises(UserError) as error:
        ImageData.from_arrays(pixels)
    assert says in str(error.value)


@pytest.mark.parametrize("labels", [[0, 1, 3], [0, -1, 1], [0, 1], [0.0, 1.0, 2.0]])
def test_labels_that_are_no_classes_are_refused(labels: list[Any]) -> None:
    with pytest.raises(UserError):
        ImageData.from_arrays(np.zeros((3, 2, 2)), labels, ["a", "b", "c"])


def test_items_and_batches() -> None:
    data = numbered([1, 0, 2])
    assert data.label_names == ("0", "1", "2")
    item = data[2]
    assert set(item) == {"pixel_values", "label", "index"}
    assert item["pixel_values"].dtype == torch.uint8
    assert (item["label"], item["index"]) == (2, 2)
    data.pixels[0] = 255
    batch = ImageCollator()([data[2], data[0]])
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"].shape == (2, 3, 4, 5)
    # No normalisation here: pixels lie in [0, 1], where an epsilon of 8/255 means what it says.
    assert batch["pixel_values"][0, 0, 0, 0] == torch.tensor(2 / 255)
    assert (batch["pixel_values"][1] == 1).all()
    assert batch["labels"].tolist() == [2, 1]
    assert batch["index"].tolist() == [2, 0]
    at_once = ImageCollator()(data.__getitems__([2, 0]))
    assert at_once.keys() == batch.keys()
    assert all(torch.equal(at_once[name], batch[name]) and at_once[name].dtype == batch[name].dtype for name in batch)
    assert [item["index"] for item in data.__getitems__([2, 0])] == [2, 0]  # for a collator of one's own
    without = ImageData(data.pixels, None, None)
    assert set(ImageCollator()(without.__getitems__([0]))) == {"pixel_values", "index"}
    assert set(ImageCollator()([without[0]])) == {"pixel_values", "index"}


def test_a_trainer_draws_batches_of_them(tmp_path: Any) -> None:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, remove_unused_columns=False, report_to=[], use_cpu=True, seed=1
    )
    data = numbered([i % 3 for i in range(10)])
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=data, data_collator=ImageCollator())
    epochs = []
    for _ in range(2):
        batches = list(trainer.get_train_dataloader())
        assert [len(batch["index"]) for batch in batches] == [4, 4, 2]
        epochs.append(torch.cat([batch["index"] for batch in batches]).tolist())
    assert sorted(epochs[0]) == list(range(10))
    assert epochs[0] != list(range(10))
    for batch in batches:
        assert (batch["pixel_values"][:, 0, 0, 0] * 255).round().tolist() == batch["index"].tolist()
        assert (batch["index"] % 3 == batch["labels"]).all()


def test_consecutive_epochs_differ_and_drawing_leaves_torchs_generator_alone() -> None:
    data = numbered([i % 2 for i in range(30)])
    loader = torch.utils.data.DataLoader(data, 30, shuffle=True, collate_fn=ImageCollator())
    first, second = (next(iter(loader))["index"].tolist() for _ in range(2))
    assert first != second
    state = torch.get_rng_state()
    data.split(0.5, 1)
    data.sample(4, 1)
    data.labelled_fraction(4, 1)
    assert torch.equal(torch.get_rng_state(), state)


@given(st.lists(st.integers(0, 3), min_size=4, max_size=40), st.integers(0, 5))
def test_split_and_sample_draw_what_they_draw_of_texts(labels: list[int], seed: int) -> None:
    images = numbered(labels, 4)
    texts = TextData.from_rows([str(i) for i in range(len(labels))], labels, list("abcd"))
    rest, part = images.split(0.3, seed)
    text_rest, text_part = texts.split(0.3, seed)
    assert rows(rest) == [int(row[0]) for row in text_rest.texts]
    assert rows(part) == [int(row[0]) for row in text_part.texts]
    assert rows(images.sample(3, seed)) == [int(row[0]) for row in texts.sample(3, seed).texts]
    assert part.label_names == images.label_names
    assert part.labels is not None
    assert part.labels.tolist() == [labels[i] for i in rows(part)]


@pytest.mark.parametrize(("amount", "n"), [("10%", 12), (" 10 % ", 12), (0.1, 12), ("0.1", 12), (12, 12), ("12", 12)])
def test_a_labelled_fraction_is_balanced_and_the_rest_keeps_its_images(amount: Any, n: int) -> None:
    labels = [0] * 70 + [1] * 30 + [2] * 20
    unlabelled, labelled = numbered(labels).labelled_fraction(amount, seed=3)
    assert labelled.labels is not None
    assert labelled.labels.bincount().tolist() == [4, 4, 4]
    assert labelled.labels.tolist() == [labels[i] for i in rows(labelled)]
    assert unlabelled.labels is None
    assert "label" not in unlabelled[0]
    assert sorted(rows(labelled) + rows(unlabelled)) == list(range(120))
    assert rows(labelled) == sorted(rows(labelled))
    assert rows(labelled) != rows(numbered(labels).labelled_fraction(amount, seed=4)[1])


def test_fewer_labels_are_part_of_more_and_never_more_than_one_apart() -> None:
    data, before = numbered([i % 5 for i in range(100)]), set[int]()
    extra = set()
    for n in range(5, 60):
        _, labelled = data.labelled_fraction(n, seed=0)
        assert labelled.labels is not None
        counts = labelled.labels.bincount(minlength=5)
        assert len(labelled) == n
        assert counts.max() - counts.min() <= 1
        assert before < set(rows(labelled)) if before else True
        before = set(rows(labelled))
    for seed in range(20):
        _, labelled = data.labelled_fraction(6, seed)
        assert labelled.labels is not None
        extra.add(int(labelled.labels.bincount().argmax()))
    assert len(extra) > 2, "which class has one more is drawn"


def test_a_class_that_lacks_the_one_more_it_was_drawn_for_is_named() -> None:
    data, outcomes = numbered([0] * 8 + [1] * 4, 2), set()
    for seed in range(20):
        try:
            _, labelled = data.labelled_fraction(9, seed)
        except UserError as error:
            outcomes.add(str(error))
        else:
            assert labelled.labels is not None
            outcomes.add(str(labelled.labels.bincount().tolist()))
    assert outcomes == {"[5, 4]", "memory: 5 labels of each class are drawn, and 'class 1' has 4"}


def test_the_papers_fractions() -> None:
    labels = torch.arange(10).repeat(450)
    data = ImageData(torch.zeros(4500, 3, 1, 1, dtype=torch.uint8), labels, tuple("0123456789"))
    for amount, each in (("1%", 4), ("10%", 45)):
        unlabelled, labelled = data.labelled_fraction(amount, 0)
        assert labelled.labels is not None
        assert set(labelled.labels.bincount().tolist()) <= {each, each + 1}
        assert len(unlabelled) + len(labelled) == 4500


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        ("ten", "'ten' is no number"),
        (0, "0 is no number"),
        (-3, "-3 is no number"),
        ("0%", "'0%' is no number"),
        (2.5, "2.5 is no number"),
        ("nan", "no number"),
        ("inf", "no number"),
        (1, "1 labels cannot be balanced over 2 classes"),
        (12, "leave none unlabelled"),
        ("100%", "leave none unlabelled"),
        (10, "'class 1' has 4"),
    ],
)
def test_a_labelled_fraction_that_cannot_be_drawn(amount: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        numbered([0] * 8 + [1] * 4, 2).labelled_fraction(amount, 0)
    assert says in str(error.value)


def test_no_labels_to_draw_from() -> None:
    data = ImageData(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), None, None)
    with pytest.raises(UserError, match="no labels"):
        data.labelled_fraction(2, 0)
    assert len(data.split(0.5, 0)[1]) == 2
    assert data.sample(3, 0).labels is None


def test_a_split_that_is_needed_and_not_there() -> None:
    splits = ImageSplits(numbered([0, 1]), None, None, get_image_task("images"), notes=["nothing was cut"])
    assert splits.need("train") is splits.train
    with pytest.raises(UserError, match=r"no test split(.|\n)*nothing was cut"):
        splits.need("test")


def test_the_registry() -> None:
    assert (IMAGENET_MEAN, IMAGENET_STD) == IMAGENET
    for name, task in IMAGE_TASKS.items():
        assert task.name == name
        assert task.metric in task.metrics
        assert task.labels is None or len(set(task.labels)) == len(task.labels)
        assert len(task.mean) == len(task.std) == 3
    assert len(IMAGE_TASKS["cifar100"].labels or ()) == 100
    assert not IMAGE_TASKS["digits"].flip
    assert not IMAGE_TASKS["mnist"].flip
    with pytest.raises(UserError, match='did you mean "cifar10"'):
        get_image_task("cifar-10")
