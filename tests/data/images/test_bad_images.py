from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.image_files import PIXELS, encoded, write_folder

from contraverse.data import ImageSplits, load_images
from contraverse.errors import UserError


def refused(source: Any, **arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        load_images("images", source, **arguments)
    return str(error.value)


def kept(source: Any, **arguments: Any) -> ImageSplits:
    return load_images("images", source, on_bad_row="skip", validation_fraction=0, **arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    return tmp_path


def grey16() -> bytes:
    return encoded(np.full((8, 8), 40_000, np.uint16))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"hello", "is no image"),
        (encoded(PIXELS[0])[:900], "cannot be decoded (image file is truncated"),
        (encoded(PIXELS[0], "JPEG")[:1200], "cannot be decoded (image file is truncated"),
        (encoded(PIXELS[0])[8:], "is no image"),
        (encoded(PIXELS[0])[:60] + b"\0\0\0\0" + encoded(PIXELS[0])[64:], "cannot be decoded"),
        (grey16(), "more than 8 bits a channel (mode I;16)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is no image"),
    ],
)
def test_a_bad_image_is_named_or_left_out_and_counted(folder: Path, data: bytes, says: str) -> None:
    (folder / "cat" / "1.png").write_bytes(data)
    said = refused(folder)
    assert "1 of 6 images cannot be used" in said
    assert f"{folder / 'cat' / '1.png'}: " in said
    assert says in said
    assert "--on-bad-row skip" in said
    splits = kept(folder)
    assert splits.skipped == 1
    train = splits.need("train")
    assert train.labels is not None
    assert train.labels.tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(train.pixels, PIXELS[[0, 2, 3, 4, 5], :8, :8].transpose(0, 3, 1, 2))
    assert any("1 bad images left out" in note and "1.png" in note and says in note for note in splits.notes)


def test_ten_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 15, "dog": 15})
    for i in range(14):
        (tmp_path / "dog" / f"{i}.png").write_bytes(b"x")
    said = refused(tmp_path)
    assert "14 of 30 images cannot be used" in said
    assert [f"dog/{i}.png" in said for i in (0, 9, 10, 13)] == [True, True, False, False]
    assert "and 4 more" in said
    splits = kept(tmp_path)
    assert splits.skipped == 14
    assert any("and 4 more" in note for note in splits.notes)


def test_no_image_is_left(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="no usable image is left"):
        kept(tmp_path)


def test_a_decompression_bomb_is_a_bad_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert "6 of 6 images" in refused(folder)
    assert "exceeds limit of 50 pixels" in refused(folder)


def one_of(folder: Path, data: bytes, **arguments: Any) -> tuple[torch.Tensor, list[str]]:
    """What becomes of ``data`` as the first image of the folder, and the notes."""
    (folder / "cat" / "0.png").write_bytes(data)
    splits = load_images("images", folder, validation_fraction=0, **arguments)
    return splits.need("train").pixels[0], splits.notes


def said(notes: list[str], what: str) -> bool:
    return any(f"1 images {what}" in note for note in notes)


def test_grey_becomes_three_channels(folder: Path) -> None:
    grey = PIXELS[0, :8, :8, 0]
    pixels, notes = one_of(folder, encoded(grey))
    assert np.array_equal(pixels, np.stack([grey] * 3))
    assert said(notes, "are grey")
    pixels, _ = one_of(folder, encoded(grey > 99))
    assert np.array_equal(pixels[0], np.where(grey > 99, 255, 0))


def test_a_palette_is_converted(folder: Path) -> None:
    image = Image.fromarray(PIXELS[0, :8, :8]).quantize(16)
    colors = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    image.save(folder / "p.png")
    data = (folder / "p.png").read_bytes()
    (folder / "p.png").unlink()
    pixels, notes = one_of(folder, data)
    assert np.array_equal(pixels, colors.transpose(2, 0, 1))
    assert said(notes, "have a palette")


def test_transparency_is_laid_on_white(folder: Path) -> None:
    rgba = np.concatenate([PIXELS[0, :8, :8], np.full((8, 8, 1), 255, np.uint8)], axis=2)
    pixels, notes = one_of(folder, encoded(rgba))
    assert np.array_equal(pixels, rgba[:, :, :3].transpose(2, 0, 1))
    assert not said(notes, "have transparent")
    rgba[0, 0, 3], rgba[0, 1] = 0, (100, 0, 200, 51)
    pixels, notes = one_of(folder, encoded(rgba))
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    # A fifth of the color on four fifths of white.
    assert pixels[:, 0, 1].tolist() == [224, 204, 244]
    assert said(notes, "have transparent parts")
    with_alpha = np.stack([PIXELS[0, :8, :8, 0], np.zeros((8, 8), np.uint8)], axis=2)
    pixels, notes = one_of(folder, encoded(with_alpha))
    assert (pixels == 255).all()


def test_cmyk_is_converted(folder: Path) -> None:
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cmyk.save(folder / "c.tif")
    data = (folder / "c.tif").read_bytes()
    (folder / "c.tif").unlink()
    pixels, notes = one_of(folder, data)
    assert pixels[:, 0, 0].tolist() == [0, 255, 255]
    assert said(notes, "are CMYK")


def test_a_photo_is_turned_as_its_exif_says(folder: Path) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    stored = np.rot90(upright, 1)
    pixels, notes = one_of(folder, encoded(stored, "PNG", exif=exif))
    assert np.array_equal(pixels, upright.transpose(2, 0, 1))
    assert said(notes, "are turned")


def test_of_several_frames_the_first_is_read(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    data = (folder / "a.gif").read_bytes()
    (folder / "a.gif").unlink()
    pixels, notes = one_of(folder, data)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert said(notes, "have several frames")


def test_different_sizes_are_named_unless_a_size_is_given(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "dog" / "1.png").write_bytes(encoded(PIXELS[1, :12, :20]))
    for arguments in ({}, {"on_bad_row": "skip"}):
        told = refused(tmp_path, **arguments)
        assert "different sizes" in told
        assert f"8x8: 5, as {tmp_path / 'cat' / '0.png'}" in told
        assert f"20x12: 1, as {tmp_path / 'dog' / '1.png'}" in told
        assert "--size 32" in told
    splits = load_images("images", tmp_path, size=8, validation_fraction=0)
    train = splits.need("train")
    assert train.pixels.shape == (6, 3, 8, 8)
    assert np.array_equal(train.pixels[0], PIXELS[0, :8, :8].transpose(2, 0, 1))
    middle = Image.fromarray(PIXELS[1, :12, :20]).resize((8, 8), Image.Resampling.BILINEAR, box=(4, 0, 16, 12))
    assert np.array_equal(train.pixels[4], np.asarray(middle).transpose(2, 0, 1))
    assert any("1 images are resized to 8x8" in note for note in splits.notes)
    assert any("1 images are not square" in note for note in splits.notes)


def test_splits_of_different_sizes(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 1}, side=10)
    told = refused(tmp_path)
    assert "8x8: 6" in told
    assert "10x10: 2" in told
    assert load_images("images", tmp_path, size=9).need("test").pixels.shape == (2, 3, 9, 9)


def test_faults_are_told_before_sizes_and_in_order(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "test", {"cat": 1, "dog": 1}, side=10)
    (tmp_path / "train" / "dog" / "0.png").write_bytes(b"")
    (tmp_path / "test" / "cat" / "0.png").write_bytes(b"")
    told = refused(tmp_path)
    assert "2 of 8 images" in told
    assert told.index("/train/dog/0.png: the file is empty") < told.index("/test/cat/0.png: the file is empty")
