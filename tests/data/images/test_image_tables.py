import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from reference.image_files import PIXELS, encoded

from contraverse.data import load_images
from contraverse.data.images.tasks import CIFAR10
from contraverse.errors import UserError

FILES = [encoded(one) for one in PIXELS[:20]]
LABELS = [i % 2 for i in range(20)]
DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "images"


def expected(rows: Any) -> torch.Tensor:
    return torch.from_numpy(PIXELS[rows].transpose(0, 3, 1, 2).copy())


def load(source: Any, task: str = "images", **arguments: Any) -> Any:
    return load_images(task, source, validation_fraction=0, **arguments)


def refused(source: Any, **arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        load(source, **arguments)
    return str(error.value)


def write(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def test_bytes_with_a_split_column(tmp_path: Path) -> None:
    names = ["train", "test", "extra", "train"] * 5
    path = write(tmp_path / "set.parquet", image=FILES, label=["dog", "dog", "cat", "cat"] * 5, split=names)
    for source in (path, tmp_path):
        splits = load(source)
        assert torch.equal(splits.need("train").pixels, expected([i for i in range(20) if i % 4 in (0, 3)]))
        assert splits.need("train").labels.tolist() == [1, 0] * 5
        assert splits.task.labels == ("cat", "dog")
        assert torch.equal(splits.need("test").pixels, expected(slice(1, 20, 4)))
        assert any("left out the rows whose split is extra" in note for note in splits.notes)


def test_structs_with_declared_classes(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict(
        {"img": [{"bytes": one, "path": None} for one in FILES], "label": LABELS},
        features=datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])}),
    )
    made.to_parquet(tmp_path / "train.parquet")
    splits = load(tmp_path)
    assert splits.task.labels == ("zebra", "ant")
    assert splits.need("train").labels.tolist() == LABELS
    assert torch.equal(splits.need("train").pixels, expected(slice(20)))


def test_structs_with_paths(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(FILES[i])
    rows = [{"bytes": None, "path": f"{i}.png"} for i in range(4)]
    write(tmp_path / "train.parquet", image=rows, label=[0, 1, 0, 1])
    assert torch.equal(load(tmp_path / "train.parquet").need("train").pixels, expected(slice(4)))


def test_shards_and_splits_by_file(tmp_path: Path) -> None:
    for i in range(2):
        rows = slice(8 * i, 8 * i + 8)
        write(tmp_path / f"train-0000{i}-of-00002.parquet", image=FILES[rows], label=LABELS[rows])
    write(tmp_path / "test-00000-of-00001.parquet", image=FILES[16:], label=LABELS[16:])
    splits = load(tmp_path)
    assert torch.equal(splits.need("train").pixels, expected(slice(16)))
    assert torch.equal(splits.need("test").pixels, expected(slice(16, 20)))
    assert not any("left out" in note for note in splits.notes)


@pytest.mark.parametrize("hidden", [-1, None])
def test_a_test_split_whose_labels_are_hidden_is_not_used(tmp_path: Path, hidden: int | None) -> None:
    write(tmp_path / "train.parquet", image=FILES[:10], label=LABELS[:10])
    write(tmp_path / "test.parquet", image=FILES[10:], label=pa.array([hidden] * 10, pa.int64()))
    splits = load(tmp_path)
    assert splits.test is None
    assert any("test.parquet: has no labels, so it is not used as a test split" in note for note in splits.notes)


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    images, labels = [*FILES], [*map(float, LABELS)]
    images[2], images[5] = None, b""
    labels[7], labels[9] = None, 0.5
    path = write(tmp_path / "train.parquet", image=images, label=labels)
    said = refused(path)
    assert "3 of 20 images cannot be used" in said
    for row, what in ((3, "the image is missing"), (6, "is empty"), (10, "label 0.5")):
        assert any(f"train.parquet, row {row}: " in line and what in line for line in said.splitlines())
    splits = load(path, on_bad_row="skip")
    kept = [i for i in range(20) if i not in (2, 5, 9)]
    assert splits.skipped == 3
    assert torch.equal(splits.need("train").pixels, expected(kept))
    assert splits.need("train").labels.tolist() == [-100 if i == 7 else LABELS[i] for i in kept]


def test_columns_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", photo=FILES, kind=LABELS, label=list(range(20)))
    assert "no column is called image or img" in refused(path)
    assert "photo, kind, label (--image)" in refused(path, image="picture")
    assert "(--label)" in refused(path, image="photo", label="sort")
    assert load(path, image="photo", label="kind").need("train").labels.tolist() == LABELS


def test_what_is_no_column_of_images(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", image=["a.png"] * 3, label=[0, 1, 0])
    assert "column 'image' holds str, not encoded images" in refused(path)
    path.write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in refused(path)
    several = [write(tmp_path / f"{name}.parquet", image=FILES[:2], label=[0, 1]) for name in ("a", "b")]
    path.unlink()
    assert "no file of the folder is called train: a.parquet, b.parquet" in refused(tmp_path)
    assert len(several) == 2


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", image=FILES * 2, label=[f"id {i}" for i in range(40)])
    assert "40 different values in 40 images: no classes" in refused(path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """``hub(column, label, names)``: a Hub whose every data set has 12 training and 8 test images in such columns."""

    def serve(image: str, labels: dict[str, list[str]], grey: bool = False) -> list[tuple[Any, ...]]:
        asked: list[tuple[Any, ...]] = []

        def split(rows: slice) -> datasets.Dataset:
            files = [encoded(one[:, :, 0] if grey else one) for one in PIXELS[rows]]
            ids = {name: [(3 * i) % len(names) for i in range(20)][rows] for name, names in labels.items()}
            kinds = {name: datasets.ClassLabel(names=names) for name, names in labels.items()}
            features = datasets.Features({image: datasets.Image(), **kinds})
            columns = {image: [{"bytes": one, "path": None} for one in files], **ids}
            return datasets.Dataset.from_dict(columns, features=features)

        def load_dataset(*arguments: Any) -> datasets.DatasetDict:
            asked.append(arguments)
            return datasets.DatasetDict({"train": split(slice(12)), "test": split(slice(12, 20))})

        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def test_cifar10_on_the_hub(hub: Callable[..., Any]) -> None:
    asked = hub("img", {"label": list(CIFAR10)})
    splits = load(None, "cifar10")
    assert asked == [("uoft-cs/cifar10", None)]
    assert torch.equal(splits.need("train").pixels, expected(slice(12)))
    assert splits.need("test").labels.tolist() == [(3 * i) % 10 for i in range(12, 20)]


def test_cifar100_on_the_hub_has_fine_labels(hub: Callable[..., Any]) -> None:
    asked = hub("img", {"coarse_label": ["a", "b"], "fine_label": [f"{i}" for i in range(100)]})
    splits = load("uoft-cs/cifar100", "cifar100")
    assert asked == [("uoft-cs/cifar100", None)]
    assert splits.need("train").labels.tolist() == [3 * i for i in range(12)]


@pytest.mark.parametrize("task", ["mnist", "fashion_mnist"])
def test_grey_images_of_the_hub(hub: Callable[..., Any], task: str) -> None:
    hub("image", {"label": list("0123456789")}, grey=True)
    splits = load(None, task)
    for channel in range(3):
        assert np.array_equal(splits.need("test").pixels[:, channel], PIXELS[12:20, :, :, 0])
    assert any("12 images are grey" in note for note in splits.notes)


def test_any_data_set_of_the_hub(hub: Callable[..., Any]) -> None:
    asked = hub("image", {"label": ["dog", "cat"]})
    splits = load("someone/pets:small")
    assert asked == [("someone/pets", "small")]
    assert splits.task.labels == ("dog", "cat")
    assert "task 'images' has no data set of its own" in refused(None)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the project's data is not here")
@pytest.mark.parametrize(("task", "sizes"), [("cifar10", (18_000, 2_000, 10_000)), ("cifar100", (4_500, 500, 2_000))])
def test_the_real_files(task: str, sizes: tuple[int, int, int]) -> None:
    splits = load_images(task, DATA / task)
    assert tuple(len(splits.need(name)) for name in ("train", "validation", "test")) == sizes
    file = next((DATA / task).glob("*.parquet"))
    table = parquet.read_table(file).to_pylist()
    test = [row for row in table if row["split"] == "test"]
    from PIL import Image

    for i in (0, 7, len(test) - 1):
        image = np.asarray(Image.open(io.BytesIO(test[i]["image"])))
        assert np.array_equal(splits.need("test").pixels[i], image.transpose(2, 0, 1))
        assert splits.need("test").labels[i] == test[i]["label"]  # type: ignore[index]
