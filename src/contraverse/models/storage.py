"""Writing a `TextModel` so that others can load it, and reading it back."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from contraverse.errors import UserError
from contraverse.types import HeadSpec

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

SETTINGS, HEADS = "contraverse.json", "heads.safetensors"


def save(model: "TextModel", folder: Path) -> Path:
    """See `TextModel.save`."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").is_file()):
        raise UserError("holds something that is no model, which saving would replace", where=str(folder))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.encoder.save_pretrained(partial)
    model.tokenizer.save_pretrained(partial)
    if model.labels is None:
        _add_sentence_transformer(model, partial)
    if model.heads:
        save_file({k: v.contiguous() for k, v in model.heads.state_dict().items()}, partial / HEADS)
    settings = {
        "labels": model.labels,
        "pooling": model.pooling,
        "embedding": model.embedding,
        "max_length": model.max_length,
        "heads": {name: asdict(spec) for name, spec in model.head_specs.items()},
    }
    (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _add_sentence_transformer(model: "TextModel", folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from torch import nn

    # Adds modules.json, 1_Pooling and, where the head is kept at test, 2_Dense beside the plain encoder.
    modules: list[nn.Module] = [
        Transformer(str(folder), max_seq_length=model.longest),
        Pooling(model.width, pooling_mode=model.pooling),
    ]
    if model.embedding == "z":
        dense, activation = model.heads["z"].children()
        assert isinstance(dense, nn.Linear)
        modules.append(
            Dense(
                dense.in_features,
                dense.out_features,
                activation_function=activation,
                init_weight=dense.weight.detach().cpu(),
                init_bias=dense.bias.detach().cpu(),
            )
        )
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


def load(folder: Path, cls: "type[TextModel]") -> "TextModel":
    """See `TextModel.load`."""
    if not (folder / "config.json").is_file():
        raise UserError(
            "no model here (a model's folder holds config.json)",
            where=str(folder),
            hint="give the model/ folder of a finished run, or any transformers folder",
        )
    if not (folder / SETTINGS).is_file():
        return cls.from_pretrained(folder, **_plain_settings(folder))
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    heads = {name: HeadSpec(**spec) for name, spec in settings.pop("heads").items()}
    model = cls.from_pretrained(folder, **settings)
    model.add_heads(heads)
    if heads:
        model.heads.load_state_dict(load_file(folder / HEADS))
    return model.eval()


def _plain_settings(folder: Path) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(folder)
    if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        return {"labels": [config.id2label[i] for i in range(config.num_labels)]}
    pooling = folder / "1_Pooling" / "config.json"
    if not pooling.is_file():
        return {"pooling": "cls"}
    stored = json.loads(pooling.read_text(encoding="utf-8"))
    mean = stored.get("pooling_mode_mean_tokens") or stored.get("pooling_mode") == "mean"
    return {"pooling": "mean" if mean else "cls"}
