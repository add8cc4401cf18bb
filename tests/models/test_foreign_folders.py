"""Foreign folders: nobody's code runs, and whatever is wrong is one message that names the file."""

import contextlib
import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.foreign import edit_json, evil_folder
from reference.tiny import LABELS
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from contraverse.errors import UserError
from contraverse.models import ImageModel, TextModel, load_model
from contraverse.types import HeadSpec

Make = Callable[..., TextModel]
LOADERS: dict[str, Callable[[Path], Any]] = {
    "encoder": TextModel.from_pretrained,
    "classifier": lambda folder: TextModel.from_pretrained(folder, labels=LABELS),
    "load": TextModel.load,
    "any": load_model,
}


# nobody's code


@pytest.mark.parametrize("how", list(LOADERS))
def test_code_of_a_folder_is_not_run_whatever_standard_input_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, ran = evil_folder(tmp_path / "evil", tmp_path / "ran"), tmp_path / "ran"
    given = io.StringIO("y\nhello\n")
    monkeypatch.setattr(sys, "stdin", given)
    with pytest.raises(UserError, match="code of its own") as caught:
        LOADERS[how](folder)
    assert "--trust-remote-code" in str(caught.value)
    assert not ran.exists()
    assert given.read() == "y\nhello\n"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_beside_a_known_architecture_is_not_run(tiny_model: Make, tmp_path: Path, file: str) -> None:
    folder, ran = tiny_model(labels=None).save(tmp_path / "model"), tmp_path / "ran"
    (folder / "evilcode.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n")
    names = {"AutoConfig": "evilcode.Evil", "AutoModel": "evilcode.Evil", "AutoTokenizer": ["evilcode.Evil", None]}
    edit_json(folder / file, auto_map=names)
    with contextlib.suppress(UserError):
        TextModel.load(folder)
    assert not ran.exists()


def test_code_runs_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, ran = evil_folder(tmp_path / "evil", tmp_path / "ran"), tmp_path / "ran"
    with pytest.raises(UserError):  # there is no tokenizer, which is found out later
        TextModel.from_pretrained(folder, trust_remote_code=True)
    assert ran.exists()


@pytest.mark.parametrize("kernel", ["evil/kernel", "kernels-community/flash-attn", "paged|evil/kernel"])
@torch.no_grad()
def test_no_kernel_is_loaded_because_a_config_names_it(
    tiny_model: Make, tmp_path: Path, batch: Any, kernel: str
) -> None:
    model = tiny_model()
    folder = model.save(tmp_path / "model")
    edit_json(folder / "config.json", _attn_implementation=kernel, attn_implementation=kernel)
    loaded = TextModel.load(folder)
    assert loaded.encoder.config._attn_implementation == "sdpa"
    torch.testing.assert_close(loaded(batch).logits, model(batch).logits)
    eager = TextModel.from_pretrained(folder, labels=LABELS, attn_implementation="eager")
    assert eager.encoder.config._attn_implementation == "eager"


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_pickles_are_tensors_or_refused(tiny_model: Make, tmp_path: Path, batch: Any) -> None:
    model = tiny_model(labels=None)
    folder = model.save(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    torch.testing.assert_close(TextModel.load(folder)(batch, want=("h",)).h, model(batch, want=("h",)).h)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil(tmp_path / "ran")))
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        TextModel.load(folder)
    torch.save({**state, "evil": _Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        TextModel.load(folder)
    assert not (tmp_path / "ran").exists()


# damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != name}))

    return change


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


def setting(**changes: Any) -> Callable[[Path], None]:
    return lambda path: edit_json(path, **changes)


OURS, THEIRS = "contraverse.json", "config.json"
DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "empty settings": (OURS, text("")),
    "a list of settings": (OURS, text("[1]")),
    "settings of bytes": (OURS, lambda path: path.write_bytes(b"\xff\xfe\x00{")  and None),
    "deep settings": (OURS, text("[" * 100_000)),
    "null settings": (OURS, text("null")),
    "an unknown setting": (OURS, setting(surprise=1)),
    "no heads": (OURS, without("heads")),
    "heads that are a list": (OURS, setting(heads=[1])),
    "a head of no kind": (OURS, setting(heads={"z": {"kind": "hydra"}})),
    "a head with a setting too many": (OURS, setting(heads={"z": {"surprise": 1}})),
    "a pooling that is none": (OURS, setting(pooling="best")),
    "a length that is none": (OURS, setting(max_length="long")),
    "classes that are a number": (OURS, setting(labels=3)),
    "other classes than the network": (OURS, setting(labels=["a", "b", "c"])),
    "a postprocess that is none": (OURS, setting(postprocess={"name": "magic"})),
    "a postprocess without its sizes": (OURS, setting(postprocess={"name": "whitening"})),
    "heads cut": ("heads.safetensors", cut),
    "heads gone": ("heads.safetensors", Path.unlink),
    "heads of another": ("heads.safetensors", lambda path: save_file({"x": torch.ones(1)}, path)),
    "a network's config cut": (THEIRS, cut),
    "a list of a config": (THEIRS, text("[]")),
    "weights cut": ("model.safetensors", cut),
    "weights empty": ("model.safetensors", text("")),
    "weights of bytes": ("model.safetensors", lambda path: path.write_bytes(b"\xff" * 64) and None),
    "a tokenizer cut": ("tokenizer.json", cut),
    "a tokenizer that is a list": ("tokenizer.json", text("[]")),
    "a tokenizer's config cut": ("tokenizer_config.json", cut),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_file_is_named(tiny_model: Make, tmp_path: Path, name: str) -> None:
    folder = tiny_model(heads={"z": HeadSpec()}).save(tmp_path / "model")
    file, damage = DAMAGES[name]
    damage(folder / file)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    named = str(caught.value)
    assert file in named or (file.startswith("tokenizer") and str(folder) in named)
    assert len(named.splitlines()) <= 3


UNFIT: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights gone": ("model", lambda folder: (folder / "model.safetensors").unlink()),
    "a network of other names": (
        "lack", lambda folder: save_file({"x": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"}),
    ),
    "a deeper network": ("lack", lambda folder: edit_json(folder / THEIRS, num_hidden_layers=3)),
    "a wider network": (".", lambda folder: edit_json(folder / THEIRS, hidden_size=64)),
    "no type": ("model_type", lambda folder: without("model_type")(folder / THEIRS)),
    "a type that is none": (".", lambda folder: edit_json(folder / THEIRS, model_type="surprise")),
    "a type that is a number": (".", lambda folder: edit_json(folder / THEIRS, model_type=7)),
    "a size that is text": (".", lambda folder: edit_json(folder / THEIRS, hidden_size="wide")),
    "heads that do not divide": (".", lambda folder: edit_json(folder / THEIRS, num_attention_heads=5)),
    "a fit for images": (".", lambda folder: edit_json(folder / THEIRS, model_type="vit")),
    "a dtype that is none": (".", lambda folder: edit_json(folder / THEIRS, model_type="bert", hidden_act="magic")),
    "not a number": ("NaN", lambda folder: _scale(folder, float("nan"))),
    "zeros": ("same vector", lambda folder: _scale(folder, 0.0)),
}  # fmt: skip


def _scale(folder: Path, factor: float) -> None:
    state = {name: value * factor for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("how", ["encoder", "classifier", "load"])
@pytest.mark.parametrize("name", list(UNFIT))
def test_weights_that_do_not_fit_are_the_users_mistake(
    tiny_folder: Callable[..., Path], tmp_path: Path, name: str, how: str
) -> None:
    folder = tmp_path / "model"
    AutoModel.from_pretrained(tiny_folder()).save_pretrained(folder)
    for path in tiny_folder().glob("*token*"):
        (folder / path.name).write_bytes(path.read_bytes())
    said, damage = UNFIT[name]
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        LOADERS[how](folder)
    assert str(folder) in str(caught.value)
    assert caught.value.hint


# tokenizers


@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_a_folder_without_a_tokenizer_is_refused(
    tiny_folder: Callable[..., Path], tmp_path: Path, architecture: str, kept: tuple[str, ...]
) -> None:
    for path in tiny_folder(architecture).iterdir():
        if "token" not in path.name or path.name in kept:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="tokenizer"):
        TextModel.from_pretrained(tmp_path, labels=LABELS)


def test_a_tokenizer_of_a_larger_table_is_refused(tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model(labels=None)
    model.tokenizer.add_tokens(["surprise"])
    with pytest.raises(UserError, match=r"id 119.*119 rows"):
        TextModel.load(model.save(tmp_path / "model"))


def test_a_model_is_tried_in_its_own_precision(tiny_folder: Callable[..., Path]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        TextModel.from_pretrained(tiny_folder(), labels=LABELS)


# images


@pytest.mark.parametrize(
    "damage",
    [text(""), text("[1]"), setting(surprise=1), without("mean"), setting(backbone="magic"), setting(width="wide"),
     setting(heads={"z": {"kind": "hydra"}}), setting(mean=[]), setting(std=[0.0, 0.0, 0.0])],
)  # fmt: skip
def test_damaged_settings_of_images_are_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = ImageModel.from_pretrained("resnet8", labels=["a", "b"]).save(tmp_path / "model")
    damage(folder / OURS)
    with pytest.raises(UserError):
        load_model(folder)
