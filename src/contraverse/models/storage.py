"""Writing a `TextModel` so that others can load it, and reading it back."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig

from contraverse.errors import UserError
from contraverse.models.flow import Flow
from contraverse.models.heads import NGrams, own_pooler
from contraverse.models.pooling import LAYERS
from contraverse.models.postprocess import Postprocess
from contraverse.models.whitening import Whitening
from contraverse.types import HeadSpec

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

SETTINGS, HEADS, POSTPROCESS = "contraverse.json", "heads.safetensors", "postprocess.safetensors"
POSTPROCESSES: dict[str, type[Postprocess]] = {"whitening": Whitening, "flow": Flow}


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
    after = model.postprocess
    if after is not None:
        save_file({k: v.contiguous() for k, v in after.state_dict().items()}, partial / POSTPROCESS)
    settings = {
        "labels": model.labels,
        "pooling": model.pooling,
        "embedding": model.embedding,
        "max_length": model.max_length,
        "heads": {name: asdict(spec) for name, spec in model.head_specs.items()},
        "postprocess": {"name": after.name, **after.settings} if after is not None else None,
    }
    (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _add_sentence_transformer(model: "TextModel", folder: Path) -> None:
    """Add modules.json and a folder for each module, all of them sentence-transformers' own, beside the encoder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(folder), max_seq_length=model.longest)
    transformer.model.config.output_hidden_states = model.pooling in LAYERS
    modules: list[nn.Module] = [transformer]
    if model.embedding == "z" and model.head_specs["z"].kind == "pooler":
        own, tanh = own_pooler(model.encoder)  # which reads the first token, whatever the pooling is
        modules += [Pooling(model.width, pooling_mode="cls"), _dense(own.weight, own.bias, tanh)]
    else:
        modules += _pooling_modules(model)
        if model.embedding == "z":
            dense, activation = model.heads["z"].children()
            assert isinstance(dense, nn.Linear)
            modules.append(_dense(dense.weight, dense.bias, activation))
    if model.postprocess is not None:
        modules += [
            _dense(weight, bias, nn.ReLU() if relu else nn.Identity())
            for weight, bias, relu in model.postprocess.dense_layers()
        ]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


def _pooling_modules(model: "TextModel") -> "list[nn.Module]":
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import CNN, Pooling, WeightedLayerPooling, WordWeights

    if model.embedding == "ngrams":
        head = model.heads["ngrams"]
        assert isinstance(head, NGrams)
        cnn = CNN(model.width, head.filters, list(head.WINDOWS))
        cnn.convs.load_state_dict(head.convs.state_dict())
        vocabulary = model.tokenizer.convert_ids_to_tokens(range(len(model.tokenizer)))
        width = cnn.get_embedding_dimension()
        # Weights of 1 set padding, which would leak into the convolutions, to zero; CNN itself has no ReLU.
        relu = Dense(width, width, bias=False, activation_function=nn.ReLU(), init_weight=torch.eye(width),
                     module_input_name="token_embeddings")  # fmt: skip
        return [WordWeights(vocabulary, {}), cnn, relu, Pooling(width, pooling_mode="mean")]
    if model.pooling not in LAYERS:
        return [Pooling(model.width, pooling_mode=model.pooling)]
    depth = model.encoder.config.num_hidden_layers
    weights = torch.zeros(depth + 1)
    for layer in LAYERS[model.pooling]:
        weights[layer] += 1
    layers = WeightedLayerPooling(model.width, depth, layer_start=1, layer_weights=nn.Parameter(weights[1:].clone()))
    return [layers, Pooling(model.width, pooling_mode="mean")]


def _dense(weight: Tensor, bias: Tensor, activation: nn.Module) -> "nn.Module":
    from sentence_transformers.base.modules import Dense

    outputs, inputs = weight.shape
    return Dense(inputs, outputs, activation_function=activation, init_weight=weight.detach().cpu(),
                 init_bias=bias.detach().cpu())  # fmt: skip


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
    after = settings.pop("postprocess", None)
    model = cls.from_pretrained(folder, **settings)
    model.add_heads(heads)
    if heads:
        model.heads.load_state_dict(load_file(folder / HEADS))
    if after is not None:
        model.postprocess = POSTPROCESSES[after.pop("name")](**after).requires_grad_(False)
        model.postprocess.load_state_dict(load_file(folder / POSTPROCESS))
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
