"""Saving removes nothing that was not written here, and is whole or not there."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference.tiny import LABELS
from transformers import AutoModel

from contraverse.errors import UserError
from contraverse.models import ImageModel, TextModel, load_model

Make = Callable[..., TextModel]
KINDS = ("text", "sentences", "images")


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tiny_model: Make) -> Any:
    if request.param == "images":
        return ImageModel.from_pretrained("resnet8", labels=["a", "b"])
    return tiny_model(labels=LABELS if request.param == "text" else None)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("marks", [("config.json",), ("model.safetensors",), ("config.json", "modules.json")])
def test_a_folder_that_is_not_ours_is_left_alone(model: Any, tmp_path: Path, marks: tuple[str, ...]) -> None:
    (tmp_path / "p" / "src").mkdir(parents=True)
    (tmp_path / "p" / "src" / "precious.py").write_text("mine")
    for mark in marks:
        (tmp_path / "p" / mark).write_text("{}")
    before = names(tmp_path)
    with pytest.raises(UserError, match="would replace"):
        model.save(tmp_path / "p")
    assert names(tmp_path) == before


@pytest.mark.parametrize("place", ["notes.txt", "data/rows.csv", "1_Pooling/mine.txt", "model.bak"])
def test_files_of_others_in_our_folder_are_not_removed(model: Any, tmp_path: Path, place: str) -> None:
    model.save(tmp_path / "m")
    (tmp_path / "m" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "m" / place).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(UserError, match=place):
        model.save(tmp_path / "m")
    assert names(tmp_path) == before


@pytest.mark.parametrize("neighbour", ["m.partial", ".m.partial", ".m.old", "m.tmp"])
def test_neighbours_are_left_alone(model: Any, tmp_path: Path, neighbour: str) -> None:
    (tmp_path / neighbour / "keep").mkdir(parents=True)
    for _ in range(2):
        model.save(tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"m", neighbour}
    assert (tmp_path / neighbour / "keep").is_dir()


def test_a_card_beside_the_model_does_not_matter(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("a card")
    model.save(tmp_path / "m")
    assert type(load_model(tmp_path / "m")) is type(model)


def test_a_link_is_replaced_and_its_target_is_not(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    before = names(tmp_path / "m")
    model.save(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert names(tmp_path / "m") == before
    assert {path.name for path in tmp_path.iterdir()} == {"m", "link"}


@pytest.mark.parametrize("moment", ["write", "aside", "in place"])
def test_a_save_that_is_stopped_leaves_the_old_model(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Stopped by an error: a full disk, a folder that may not be moved."""
    model.save(tmp_path / "m")
    before, rename = names(tmp_path), Path.rename

    def refuse(path: Path, target: Any) -> Path:
        if (moment == "aside") == (path.name == "m") and not (path.name == "old"):
            raise OSError("no space left on device")
        return rename(path, target)

    if moment == "write":
        monkeypatch.setattr("json.dumps", lambda *_, **__: (_ for _ in ()).throw(OSError("no space")))
    else:
        monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no space"):
        model.save(tmp_path / "m")
    monkeypatch.undo()
    assert names(tmp_path) == before
    load_model(tmp_path / "m")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_weights_are_as_readable_as_other_files(model: Any, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        model.save(tmp_path / "m")
    finally:
        os.umask(before)
    for path in (tmp_path / "m").rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o777 & ~mask


def test_a_model_of_an_older_version_is_replaced(tiny_model: Make, tmp_path: Path) -> None:
    """It lists no files: those that were always written are known by name."""
    from reference.foreign import edit_json

    model = tiny_model(labels=None, pooling="mean")
    model.save(tmp_path / "m")
    edit_json(tmp_path / "m" / "contraverse.json", files=None)
    model.save(tmp_path / "m")
    edit_json(tmp_path / "m" / "contraverse.json", files=None)
    (tmp_path / "m" / "rows.csv").write_text("mine")
    with pytest.raises(UserError, match=r"rows\.csv"):
        model.save(tmp_path / "m")


def test_a_plain_folder_of_transformers_is_not_replaced(tiny_folder: Any, tiny_model: Make, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny_folder()).save_pretrained(tmp_path / "theirs")
    with pytest.raises(UserError, match="would replace"):
        tiny_model().save(tmp_path / "theirs")
