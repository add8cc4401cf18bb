"""Writing a `TextModel` so that others can load it, and reading it back."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.models import adapters, loading, st_folder
from contraverse.models.detector import Detector, class_id
from contraverse.models.encoding import Pooling
from contraverse.models.finite import refuse_not_finite
from contraverse.models.flow import Flow
from contraverse.models.folders import SETTINGS, read_settings, replace_folder, write_tensors
from contraverse.models.normalizing import UNICODE, is_hardened, make_plain
from contraverse.models.opening import open_model
from contraverse.models.postprocess import Postprocess
from contraverse.models.tail import Spec, Tail
from contraverse.models.whitening import Whitening
from contraverse.types import HeadSpec

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

HEADS, POSTPROCESS, TAIL = "heads.safetensors", "postprocess.safetensors", "tail.safetensors"
POSTPROCESSES: dict[str, type[Postprocess]] = {"whitening": Whitening, "flow": Flow}


class Stored(BaseModel):
    """Settings of a `TextModel` beside its weights: what ``contraverse.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["text"] = "text"
    labels: list[str] | None
    pooling: Pooling
    embedding: Literal["h", "z", "ngrams"]
    max_length: int = Field(ge=1)
    heads: dict[str, HeadSpec]
    postprocess: dict[str, Any] | None = None
    tail: list[Spec] = []
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    normalize: Literal["unicode"] | None = None
    detector: Detector | None = None


def save(model: "TextModel", folder: Path) -> Path:
    """See `TextModel.save`."""
    refuse_not_finite(model, folder)
    after = model.postprocess
    settings: dict[str, Any] = {
        "labels": model.labels,
        "pooling": model.pooling,
        "embedding": model.embedding,
        "max_length": model.max_length,
        "heads": {name: asdict(spec) for name, spec in model.head_specs.items()},
        "postprocess": {"name": after.name, **after.settings} if after is not None else None,
    }
    if model.tail is not None:
        settings["tail"] = [spec.model_dump() for spec in model.tail.specs]
    if model.prompts:
        settings |= {"prompts": model.prompts, "default_prompt": model.default_prompt}
    if is_hardened(model.tokenizer):
        settings["normalize"] = UNICODE
    if model.detector is not None:
        settings["detector"] = model.detector.model_dump()
    return replace_folder(folder, settings, lambda new: _write(model, new))


def _write(model: "TextModel", folder: Path) -> None:
    merged = adapters.merged_state(model.encoder) if model.adapter is not None else None
    model.encoder.save_pretrained(folder, state_dict=merged)
    model.tokenizer.save_pretrained(folder)
    adapters.write_adapter(model, folder / adapters.FOLDER)
    if model.labels is None:
        st_folder.add_modules(model, folder)
    parts = {HEADS: model.heads, POSTPROCESS: model.postprocess, TAIL: model.tail}
    for name, part in parts.items():
        if part is not None and (weights := part.state_dict()):
            write_tensors(weights, folder / name)
    if is_hardened(model.tokenizer):  # after all that writes a tokenizer
        make_plain(folder, model.tokenizer.model_input_names)


def load(folder: Path, cls: "type[TextModel]", *, trust_remote_code: bool = False) -> "TextModel":
    """See `TextModel.load`."""
    modules = st_folder.read_modules(folder) if not (folder / SETTINGS).is_file() else None
    encoder = folder if modules is None else modules.encoder
    if not (encoder / "config.json").is_file() and not loading.is_adapter(encoder):
        raise UserError(
            "no model here (a model's folder holds config.json)",
            where=str(folder),
            hint="give the model/ folder of a finished run, or any transformers folder",
        )
    origin = loading.Origin(str(encoder), trust_remote_code)
    if (folder / SETTINGS).is_file():
        return _load_own(folder, cls, origin)
    classes = loading.classes_of(loading.load_config(origin))
    if classes is not None:
        return open_model(cls, origin, classes).eval()
    if modules is None:
        return open_model(cls, origin).eval()
    model = open_model(cls, origin, pooling=modules.pooling)
    model.tail, model.prompts, model.default_prompt = modules.tail(), modules.prompts, modules.default_prompt
    if model.tail is not None:
        model.tail.to(model.encoder.dtype)
    if modules.max_seq_length is not None:
        model.tokenizer.model_max_length = modules.max_seq_length
    if modules.lowercase and model.tokenizer(["A Word"])["input_ids"] != model.tokenizer(["a word"])["input_ids"]:
        raise UserError("asks for lower case beside a tokenizer that tells cases apart", where=str(folder))
    return model.eval()


def _load_own(folder: Path, cls: "type[TextModel]", origin: loading.Origin) -> "TextModel":
    stored = read_settings(folder, Stored)
    if stored.labels is not None and loading.classes_of(loading.load_config(origin)) != stored.labels:
        raise UserError("names other classes than config.json", where=str(folder / SETTINGS))
    model = open_model(
        cls, origin, stored.labels, pooling=stored.pooling, embedding=stored.embedding, max_length=stored.max_length
    )
    with loading.damaged(folder / HEADS):
        model.add_heads(stored.heads)
        if model.heads.state_dict():  # the encoder's own pooler as a head has no weights of its own, and no file
            model.heads.load_state_dict(load_file(folder / HEADS))
    if stored.postprocess is not None:
        with loading.damaged(folder / SETTINGS):
            settings = dict(stored.postprocess)
            model.postprocess = POSTPROCESSES[settings.pop("name")](**settings).requires_grad_(False)
        with loading.damaged(folder / POSTPROCESS):
            model.postprocess.load_state_dict(load_file(folder / POSTPROCESS))
    if stored.tail:
        with loading.damaged(folder / TAIL):
            model.tail = Tail(stored.tail).requires_grad_(False)
            weights = load_file(folder / TAIL) if model.tail.state_dict() else {}
            model.tail.load_state_dict(weights)
    model.prompts, model.default_prompt = stored.prompts, stored.default_prompt
    if stored.detector is not None:
        class_id(stored.detector.positive, stored.labels, where=str(folder / SETTINGS))
        model.detector = stored.detector
    return model.eval()


def digest_of_model(model: nn.Module) -> str:
    """A fingerprint of a module's weights and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            digest.update(name.encode() + content)
    return digest.hexdigest()
