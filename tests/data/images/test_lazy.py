"""Images that are decoded when a batch is made: the same pixels, batches, splits and order as in memory."""

import io
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from contraverse.data import ImageData, ImageSplits, load_images
from contraverse.data.images import CropFlip, OneView, lazy, listing
from contraverse.data.images.lazy import LazyPixels
from contraverse.data.images.source import natural
from contraverse.errors import UserError
from contraverse.methods import CrossEntropy
from contraverse.models import ImageModel
from contraverse.training import Trainer


def encoded(value: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lazy")
    for split, count in (("train", 12), ("test", 4)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                number = len(list(root.rglob("*.png")))
                (root / split / name / f"{i}.png").write_bytes(encoded(number))
    return root


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training images of ``folder``: 24 in two tars; classes by ``.cls`` and, in the second, by ``.json``."""
    root = tmp_path_factory.mktemp("tars")
    for number in range(2):
        with tarfile.open(root / f"set-train-{number:06d}.tar", "w") as tar:
            for i in range(number * 12, number * 12 + 12):
                label = (json.dumps({"label": i // 12}).encode(), "json") if number else (b"0", "cls")
                for data, ending in ((encoded(i), "png"), label):
                    info = tarfile.TarInfo(f"{i:04d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return root


def both(source: Path, **options: object) -> tuple[ImageSplits, ImageSplits]:
    return tuple(load_images("images", source, in_memory=kept, **options) for kept in (True, False))  # type: ignore


def rows(data: ImageData) -> tuple[torch.Tensor, list[int] | None]:
    return data.pixels[:], None if data.labels is None else data.labels.tolist()


def test_splits_pixels_and_labels_are_those_in_memory(folder: Path) -> None:
    kept, left = both(folder)
    for split in ("train", "validation", "test"):
        ours, theirs = left.need(split), kept.need(split)  # type: ignore[arg-type]
        assert isinstance(ours.pixels, LazyPixels)
        assert ours.pixels.shape == theirs.pixels.shape
        assert torch.equal(rows(ours)[0], rows(theirs)[0])
        assert (rows(ours)[1], ours.label_names) == (rows(theirs)[1], theirs.label_names)
    assert any("decoded as they are needed" in note for note in left.notes)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_to_the_bit_those_in_memory(folder: Path, workers: int) -> None:
    def batches(data: ImageData, workers: int) -> list[dict[str, torch.Tensor]]:
        torch.manual_seed(3)
        loader: DataLoader[dict[str, torch.Tensor]] = DataLoader(
            data, 10, shuffle=True, collate_fn=data.collate, num_workers=workers
        )
        return [*loader, {"drawn after": torch.rand(3)}]

    kept, left = both(folder, validation_fraction=0)
    for ours, theirs in zip(batches(left.need("train"), workers), batches(kept.need("train"), 0), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_index_that_a_tensor_takes(folder: Path) -> None:
    kept, left = both(folder, validation_fraction=0)
    theirs, ours = kept.need("train").pixels, left.need("train").pixels
    for index in (3, -1, slice(2, 7), slice(None), [4, 1], torch.tensor([5, 0]), np.array([2, 2])):
        assert torch.equal(ours[index], theirs[index])
    assert [len(part) for part in ours.split(10)] == [10, 10, 4]
    assert torch.equal(ours.permute(0, 2, 3, 1), theirs.permute(0, 2, 3, 1))


def test_a_limit_decides_where_the_user_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_images("images", folder).need("train")
    assert isinstance(data.pixels, torch.Tensor)
    monkeypatch.setattr(lazy, "IN_MEMORY", 0)
    monkeypatch.setattr("contraverse.data.images.reading.IN_MEMORY", 0)
    assert isinstance(load_images("images", folder).need("train").pixels, LazyPixels)


def test_a_broken_image_is_named_when_it_is_decoded_and_skipped_where_asked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(40):
            (tmp_path / name / f"{i}.png").write_bytes(encoded(i))
    bad = tmp_path / "b" / "7.png"  # none of those that are tried at the start
    bad.write_bytes(b"no image")
    data = load_images("images", tmp_path, in_memory=False, validation_fraction=0).need("train")
    with pytest.raises(UserError, match=re.escape(str(bad))):
        data.pixels[:]
    bad.write_bytes(encoded(0, side=9))
    with pytest.raises(UserError, match="9x9 and the others are 8x8"):
        data.pixels[:]
    bad.write_bytes(b"no image")
    skipped = load_images("images", tmp_path, in_memory=False, on_bad_row="skip", validation_fraction=0)
    assert (skipped.skipped, len(skipped.need("train"))) == (1, 79)


@pytest.mark.parametrize("in_memory", [True, False])
def test_tars_are_the_images_of_the_folder(folder: Path, tars: Path, in_memory: bool) -> None:
    ours = load_images("images", tars, in_memory=in_memory, validation_fraction=0).need("train")
    theirs = load_images("images", folder, validation_fraction=0).need("train")
    assert torch.equal(rows(ours)[0], rows(theirs)[0])
    assert rows(ours)[1] == rows(theirs)[1]
    assert isinstance(ours.pixels, LazyPixels) != in_memory


def test_a_damaged_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(UserError, match="cannot be read as a tar"):
        load_images("images", tmp_path)
    with tarfile.open(tmp_path / "train-0.tar", "w"):
        pass
    with pytest.raises(UserError, match="holds no images"):
        load_images("images", tmp_path)


def test_a_large_data_set_of_datasets_is_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": encoded(i), "path": None} for i in range(10)], "label": [0, 1] * 5}, features
    )
    small = ImageData.from_dataset(table)
    monkeypatch.setattr(listing, "_CHECKED", 5)
    large = ImageData.from_dataset(table)
    assert torch.equal(small.pixels[:], large.pixels[:])


def test_the_key_of_natural_order_compares_as_pieces_do() -> None:
    def pieces(name: str) -> tuple[list[object], str]:
        parts = re.split("([0-9]+)", name.casefold())
        return [(int(part), part) if i % 2 else part for i, part in enumerate(parts)], name

    random = np.random.default_rng(0)
    names = ["".join(random.choice(list("aB0179._- "), random.integers(1, 9))) for _ in range(2000)]
    assert sorted(names, key=natural) == sorted(names, key=pieces)


@pytest.mark.parametrize("workers", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_training_is_to_the_bit_that_in_memory(folder: Path, tmp_path: Path, workers: int | None) -> None:
    """With random views, and with the workers that a trainer takes by itself."""
    weights = []
    for split, number in zip(both(folder, validation_fraction=0), (0, workers), strict=True):
        torch.manual_seed(0)
        model = ImageModel.from_pretrained("resnet8", labels=["a", "b"])
        options = {} if number is None else {"dataloader_num_workers": number}
        trainer = Trainer(
            model, CrossEntropy(), split, views=OneView(CropFlip()), output_dir=tmp_path / str(len(weights)),
            max_steps=3, per_device_train_batch_size=8, save_strategy="no", **options,
        )  # fmt: skip
        trainer.train()
        weights.append(torch.cat([value.flatten().float() for value in model.state_dict().values()]))
    assert trainer.args.dataloader_num_workers == (workers or min(8, os.cpu_count() or 1))
    assert torch.equal(*weights)
