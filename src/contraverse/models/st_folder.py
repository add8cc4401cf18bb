"""Folders of sentence-transformers: read without running their code, and written so that it loads them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.models.encoding import LAYERS, Pooling
from contraverse.models.heads import NGrams, own_pooler
from contraverse.models.loading import damaged, read_json, read_object
from contraverse.models.tail import DenseSpec, LayerNormSpec, NormalizeSpec, Spec, Tail

if TYPE_CHECKING:
    from contraverse.models.text import TextModel

MODULES, POOLING, PROMPTS = "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"
MARKS = (MODULES, POOLING)
"""Files by one of which a folder is known as one of sentence-transformers."""
_TRANSFORMER = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)  # fmt: skip
THEIR_POOLING: dict[str, Pooling] = {
    "cls": "cls", "lasttoken": "last", "mean": "mean", "max": "max",
    "mean_sqrt_len_tokens": "mean-sqrt-len", "weightedmean": "weighted-mean",
}  # fmt: skip
_FLAGS = {
    "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max", "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}  # fmt: skip


@dataclass
class Modules:
    """Modules by which a folder of sentence-transformers makes an embedding.

    ``encoder``: the folder of the network. ``specs`` and ``weights``: of the modules after the pooling.
    ``max_seq_length``: tokens at which it cuts a text; None for the network's own limit.
    """

    encoder: Path
    pooling: Pooling
    specs: list[Spec] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_seq_length: int | None = None
    lowercase: bool = False

    def tail(self) -> Tail | None:
        """The modules after the pooling, with their weights; None where there are none."""
        if not self.specs:
            return None
        tail = Tail(self.specs)
        tail.load_state_dict(self.weights)
        return tail.requires_grad_(False).eval()


def read_modules(folder: Path) -> Modules | None:
    """Read the modules of a sentence-transformers ``folder``; None for another folder.

    Raises:
        UserError: a damaged file, or a module that cannot be reproduced here, by its name.
    """
    path = folder / MODULES
    if not path.is_file():
        stored = folder / POOLING
        return Modules(folder, _pooling(stored)) if stored.is_file() else None
    listed = read_json(path)
    with damaged(path):
        entries = [(str(entry["type"]), folder / str(entry["path"])) for entry in listed]
    names = [_class_name(kind, path) for kind, _ in entries]
    for _, place in entries:
        if not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"names a folder outside its own: {place}", where=str(path))
    if names[:2] != ["Transformer", "Pooling"]:
        raise _cannot(path, " and ".join(names[:2]) or "nothing", "begins with")
    modules = Modules(entries[0][1], _pooling(entries[1][1] / "config.json"))
    for name, (_, place) in list(zip(names, entries, strict=True))[2:]:
        _add(modules, name, place, path)
    _read_transformer(modules)
    _read_prompts(modules, folder / PROMPTS, entries[1][1] / "config.json")
    return modules


def _class_name(kind: str, path: Path) -> str:
    """The last part of a class's name. Only names are compared: nothing is imported because a file says so."""
    if not kind.startswith("sentence_transformers."):
        raise _cannot(path, kind)
    return kind.rpartition(".")[2]


def _cannot(path: Path, name: str, how: str = "has a module") -> UserError:
    return UserError(
        f"{how} {name} of sentence-transformers, which cannot be reproduced here",
        where=str(path),
        hint="Transformer, Pooling, Dense, LayerNorm, Dropout and Normalize can",
    )


def _pooling(path: Path) -> Pooling:
    stored = read_object(path)
    modes = stored.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if stored.get(flag)] or "mean"
    mode = modes[0] if isinstance(modes, list) and len(modes) == 1 else modes
    if not isinstance(mode, str) or mode not in THEIR_POOLING:
        raise UserError(
            f"pools by {' and '.join(map(str, mode)) if isinstance(mode, list) else mode}, which is not known here",
            where=str(path),
            hint=f"known, one at a time: {', '.join(THEIR_POOLING)}",
        )
    return THEIR_POOLING[mode]


def _add(modules: Modules, name: str, place: Path, path: Path) -> None:
    if name == "Dropout":  # embeddings are made in eval mode
        return
    if name not in ("Dense", "Normalize", "LayerNorm"):
        raise _cannot(path, name)
    settings = read_object(place / "config.json") if (place / "config.json").is_file() else {}
    names = ("module_input_name", "module_output_name")
    if any(settings.get(key) not in (None, "sentence_embedding") for key in names):
        raise _cannot(path, f"{name} of {settings.get(names[0])}")
    if name == "Normalize":
        modules.specs.append(NormalizeSpec())
        return
    with damaged(place / "config.json"):
        modules.specs.append(_dense(settings) if name == "Dense" else LayerNormSpec(width=settings["dimension"]))
        weights = _weights(place)
    number = len(modules.specs) - 1
    modules.weights |= {f"parts.{number}.{key}": value for key, value in weights.items()}
    with damaged(place):
        Tail(modules.specs).load_state_dict(modules.weights)


def _dense(settings: dict[str, Any]) -> DenseSpec:
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not str(activation).startswith("torch.nn.modules."):
        raise ValueError(f"an activation {activation} is none of torch's")
    return DenseSpec(
        inputs=settings["in_features"],
        outputs=settings["out_features"],
        bias=settings.get("bias", True),
        activation=str(activation).rpartition(".")[2],
        residual=settings.get("use_residual", False),
    )


def _weights(place: Path) -> dict[str, Tensor]:
    if (place / "model.safetensors").is_file():
        return load_file(place / "model.safetensors")
    weights: dict[str, Tensor] = torch.load(place / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return weights


def _read_transformer(modules: Modules) -> None:
    path = next((modules.encoder / name for name in _TRANSFORMER if (modules.encoder / name).is_file()), None)
    settings = read_object(path) if path else {}
    longest = settings.get("max_seq_length")
    if longest is not None and (not isinstance(longest, int) or longest < 1):
        raise UserError(f"max_seq_length is {longest!r}", where=str(path))
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise _cannot(path or modules.encoder, f"Transformer for {settings['transformer_task']}")
    modules.max_seq_length, modules.lowercase = longest, bool(settings.get("do_lower_case"))


def _read_prompts(modules: Modules, path: Path, pooling: Path) -> None:
    settings = read_object(path) if path.is_file() else {}
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise UserError("its prompts are no texts by name", where=str(path))
    # An empty prompt is no prompt.
    modules.prompts = {str(name): text for name, text in prompts.items() if text}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise UserError(f"names a default prompt {default!r} that it does not have", where=str(path))
    modules.default_prompt = default if default in modules.prompts else None
    if modules.prompts and read_object(pooling).get("include_prompt") is False:
        raise UserError("leaves the prompt out of the pooling, which cannot be done here", where=str(pooling))


def add_modules(model: "TextModel", folder: Path) -> None:
    """Add modules.json and a folder for each module, all of them sentence-transformers' own, beside the encoder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm
    from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling

    trusted = {"trust_remote_code": model.trust_remote_code}
    transformer = Transformer(
        str(folder),
        max_seq_length=model.max_seq_length,
        model_kwargs=trusted,
        config_kwargs=trusted,
        processor_kwargs=trusted,
    )
    transformer.model.config.output_hidden_states = model.pooling in LAYERS
    modules: list[nn.Module] = [transformer]
    if model.embedding == "z" and model.head_specs["z"].kind == "pooler":
        own, tanh = own_pooler(model.encoder)  # which reads the first token, whatever the pooling is
        modules += [TheirPooling(model.width, pooling_mode="cls"), _dense_module(own.weight, own.bias, tanh)]
    else:
        modules += _pooling_modules(model)
        if model.embedding == "z":
            dense, activation = model.heads["z"].children()
            assert isinstance(dense, nn.Linear)
            modules.append(_dense_module(dense.weight, dense.bias, activation))
    for spec, part in zip(model.tail.specs, model.tail.parts, strict=True) if model.tail is not None else ():
        theirs: nn.Module = Normalize()
        if isinstance(spec, DenseSpec):
            theirs = Dense(spec.inputs, spec.outputs, bias=spec.bias, activation_function=part.activation,  # type: ignore[arg-type]
                           use_residual=spec.residual)  # fmt: skip
        elif isinstance(spec, LayerNormSpec):
            theirs = LayerNorm(spec.width)
        theirs.load_state_dict(part.state_dict())
        modules.append(theirs)
    if model.postprocess is not None:
        modules += [
            _dense_module(weight, bias, nn.ReLU() if relu else nn.Identity())
            for weight, bias, relu in model.postprocess.dense_layers()
        ]
    whole = SentenceTransformer(
        modules=modules, device="cpu", prompts=model.prompts or None, default_prompt_name=model.default_prompt
    )
    whole.save(str(folder), create_model_card=False)


def _pooling_modules(model: "TextModel") -> "list[nn.Module]":
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import CNN, WeightedLayerPooling, WordWeights
    from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling

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
        return [WordWeights(vocabulary, {}), cnn, relu, TheirPooling(width, pooling_mode="mean")]
    if model.pooling not in LAYERS:
        ours = {ours: theirs for theirs, ours in THEIR_POOLING.items()}
        return [TheirPooling(model.width, pooling_mode=ours[model.pooling])]
    depth = model.encoder.config.num_hidden_layers
    weights = torch.zeros(depth + 1)
    for layer in LAYERS[model.pooling]:
        weights[layer] += 1
    layers = WeightedLayerPooling(model.width, depth, layer_start=1, layer_weights=nn.Parameter(weights[1:].clone()))
    return [layers, TheirPooling(model.width, pooling_mode="mean")]


def _dense_module(weight: Tensor, bias: Tensor, activation: nn.Module) -> "nn.Module":
    from sentence_transformers.base.modules import Dense

    outputs, inputs = weight.shape
    return Dense(inputs, outputs, activation_function=activation, init_weight=weight.detach().cpu(),
                 init_bias=bias.detach().cpu())  # fmt: skip
