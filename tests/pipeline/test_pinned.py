"""A run on a Hub model writes the commit that it found, and goes on with it; its token is written nowhere."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM

from contraverse.models.heads import ReconstructionHead, start_from_checkpoint
from contraverse.pipeline.folder import same_commit
from contraverse.pipeline.text import init_text_model, pinned
from contraverse.recipes import ModelConfig, RunConfig, change, configure, load, split_stages

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def on_hub(tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Hub name in a cache, without a network."""
    place = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_folder(), place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    for module in ("constants", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    return "someone/tiny"


def test_the_commit_is_pinned(on_hub: str, tmp_path: Path) -> None:
    config = configure("uscal", settings={"model.name": on_hub, "model.max_length": 16, "model.token": "hf_secret"})
    model, _ = init_text_model(config.model, None, {})
    written = pinned(config)
    assert isinstance(written.model, ModelConfig)
    assert written.model.revision == COMMIT
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(written.to_yaml())
    assert "hf_secret" not in written.to_yaml()
    again = load(tmp_path / "run" / "config.yaml")
    assert same_commit(config, tmp_path / "run").model == written.model
    assert init_text_model(again.model, None, {})[0].embedding_shape == model.embedding_shape
    other = config.model_copy(update={"model": config.model.model_copy(update={"revision": "v2"})})
    assert same_commit(other, tmp_path / "run") == other


def test_a_head_starts_from_the_pinned_commit(on_hub: str, tmp_path: Path, tiny_folder: Callable[..., Path]) -> None:
    """The newest commit is another one, whose files are not in the cache."""
    AutoModelForMaskedLM.from_pretrained(tiny_folder()).save_pretrained(
        tmp_path / "hub" / "models--someone--tiny" / "snapshots" / COMMIT
    )
    (tmp_path / "hub" / "models--someone--tiny" / "refs" / "main").write_text("f" * 40)
    settings = ModelConfig(name=on_hub, revision=COMMIT, max_length=16)
    model, _ = init_text_model(settings, None, {})
    head = ReconstructionHead(model.width, *model.embedding_shape)
    assert start_from_checkpoint(head, model.encoder)


def test_a_folder_is_not_pinned(tiny_folder: Callable[..., Path]) -> None:
    config = configure("uscal", settings={"model.name": str(tiny_folder()), "model.max_length": 16})
    assert pinned(config) is config


def test_a_token_goes_with_stages_and_changes_and_into_no_text() -> None:
    config: RunConfig = configure("itpt", settings={"model.token": "hf_secret", "task": "text"})
    for one in (change(config, {"train.seed": 3}), *(stage.config for stage in split_stages(config))):
        assert one.model.token == "hf_secret"  # type: ignore[union-attr]
        assert "hf_secret" not in one.to_yaml() + repr(one) + str(one.model_dump())
