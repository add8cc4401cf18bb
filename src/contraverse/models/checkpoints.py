"""Reading weights that others trained, by their key names.

Layouts that are known, each with or without ``module.`` or ``model.`` before every name, bare or in one of `WRAPPERS`:

- torchvision's ResNets with a 3 x 3 stem: ``fc`` is the classifier;
- those widespread for CIFAR: ``linear`` is the classifier, ``shortcut`` a block's ``downsample``;
- ACL's: ``bn_list.0`` is the clean set of a batch norm and ``bn_list.1`` the adversarial one, ``downsample.conv`` and
  ``downsample.bn`` a shortcut, ``fc.fcN`` and ``fc.bnN`` the projection head, which becomes the head ``z``;
- wide residual networks as in TRADES' code, which most of RobustBench's are; the copy ``sub_block1`` of a block, which
  that code makes and never runs, is passed over;
- Gowal et al.'s wide residual networks and PreActResNet-18 with SiLU, as in RobustBench (``logits`` is the classifier);
- PreActResNet-18 (``linear`` is the classifier). Whether a shortcut reads the activated input or the raw one, no name
  says: the architecture has to be named.

The normalisation is taken from ``normalize.mean`` and ``normalize.std``, ``mean`` and ``std``, or ``mu`` and ``sigma``.
Where a file has none, that of ImageNet is used for a ResNet, as the papers on contrast do, and none for the others, as
RobustBench does; neither is certain, so that a note says which it is.

Nothing else is left out without a word: a file that lacks a weight of its backbone, or has one too many, is refused.
Only ``num_batches_tracked``, which old files lack, may be missing; it counts from zero then.
"""

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.models.backbones import IMAGENET, Normalisation, build_backbone
from contraverse.models.dual_bn import to_dual
from contraverse.models.heads import mlp
from contraverse.models.resnet import BACKBONES, ResNet
from contraverse.types import HeadSpec

if TYPE_CHECKING:
    from contraverse.models.image import ImageModel

WRAPPERS = ("state_dict", "model_state_dict", "net", "P_state", "model", "last")
PREFIXES = ("module.", "model.")
UNUSED = "sub_block1."
RAW: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""No normalisation: pixels in [0, 1] as they are."""
NORMALISATIONS: dict[str, Normalisation] = {
    "none": RAW,
    "imagenet": IMAGENET,
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Usual normalisations by name; CIFAR's as in RobustBench."""
MEANS = {"normalize.mean": "mean", "normalize.std": "std", "mean": "mean", "std": "std", "mu": "mean", "sigma": "std"}
SETS = {"0": "clean", "1": "adversarial"}
COUNTER = "num_batches_tracked"
SHOWN = 4


@dataclass
class _Weights:
    """Contents of a file, by our names."""

    encoder: dict[str, Tensor] = field(default_factory=dict)
    classifier: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    dual: bool = False
    normalisation: Normalisation | None = None


def load(
    path: Path,
    cls: "type[ImageModel]",
    labels: Sequence[str] | None = None,
    *,
    arch: str | None = None,
    normalisation: Normalisation | None = None,
) -> tuple["ImageModel", list[str]]:
    """The model, and what its user should know of it; see `ImageModel.from_checkpoint`."""
    state, beside = read_weights(path)
    weights = _translated(state, str(path))
    if "mean" in beside and "std" in beside:
        weights.normalisation = tuple(json.loads(beside["mean"])), tuple(json.loads(beside["std"]))
    name, notes = _fitting(weights, str(path), arch), list[str]()
    if normalisation is None and weights.normalisation is None:
        with torch.device("meta"):
            of_imagenet = isinstance(BACKBONES[name](), ResNet)
        words = "ImageNet's is used" if of_imagenet else "pixels are taken as they are"
        notes.append(f"{path.name} ({name}) has no mean and std to normalise with: {words}")
        normalisation = IMAGENET if of_imagenet else RAW
    encoder, width, _ = build_backbone(name, pretrained=False)
    if weights.classifier:
        classes = len(weights.classifier.get("weight", "?"))
        _check("classifier", weights.classifier, lambda: nn.Linear(width, classes), str(path))
        labels = labels or json.loads(beside.get("labels", "null")) or [str(i) for i in range(classes)]
        if len(labels) != classes:
            raise UserError(f"has {classes} classes, and {len(labels)} labels were given", where=str(path))
    mean, std = normalisation or weights.normalisation or IMAGENET
    model = cls(encoder, width, backbone=name, labels=labels, dual=weights.dual, mean=mean, std=std)
    _fill(model.encoder, weights.encoder)
    if weights.classifier and model.classifier is not None:
        model.classifier.load_state_dict(weights.classifier)
    if weights.head:
        layers = max(int(part[1]) for part in (re.match(r"[a-z]+(\d)", key) for key in weights.head) if part)
        _check("projection head", weights.head, lambda: _dual_if(weights.dual, mlp(width, width, layers)), str(path))
        model.add_heads({"z": HeadSpec(kind="mlp", layers=layers)})
        _fill(model.heads["z"], weights.head)
    return model.eval(), notes


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata of a safetensors file; no code in the file is run.

    Raises:
        UserError: it cannot be read, or holds no tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"cannot be read as weights: {str(error).splitlines()[0]}",
            where=str(path),
            hint="give a file of tensors alone: a state dict by torch.save, or safetensors",
        ) from error
    for _ in WRAPPERS:
        inner = next(
            (w for w in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(w), Mapping)), None
        )
        content = content[inner] if inner else content
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state:
        raise UserError("holds no weights by name", where=str(path), hint="give a file that holds a state dict")
    return state, {}


def _translated(state: dict[str, Tensor], where: str) -> _Weights:
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) or name in MEANS for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
    lists = {match[1] for name in state if (match := re.search(r"\bbn_list\.(\d+)\.", name))}
    if not lists <= SETS.keys():
        raise UserError(f"has {len(lists)} sets of batch norms, and two are known: clean, adversarial", where=where)
    weights = _Weights(dual=len(lists) > 1)
    normal: dict[str, tuple[float, ...]] = {}
    for name, value in state.items():
        if name in MEANS:
            normal[MEANS[name]] = tuple(value.flatten().tolist())
            continue
        # Where there is one list, or none, its batch norm is the only one.
        name = re.sub(r"\bbn_list\.(?:(\d+)\.)?", lambda m: f"{SETS[m[1]]}." if weights.dual else "", name)
        if match := re.fullmatch(r"(?:fc|linear|logits)\.(weight|bias)", name):
            weights.classifier[match[1]] = value
        elif match := re.fullmatch(r"fc\.(fc|bn)(\d)\.(.+)", name):
            weights.head[f"{'linear' if match[1] == 'fc' else 'norm'}{match[2]}.{match[3]}"] = value
        else:
            name = re.sub(r"\bshortcut\.(\d)", r"downsample.\1", name)
            name = name.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
            weights.encoder[name] = value
    if normal:
        if len(normal) == 1:
            raise UserError("has a mean or a std to normalise with, and not both", where=where)
        weights.normalisation = normal["mean"], normal["std"]
    return weights


def _fitting(weights: _Weights, where: str, arch: str | None) -> str:
    """The backbone that these weights fit exactly; ``arch`` where it is given.

    Raises:
        UserError: there is none, several fit by their names, or ``arch`` is another one.
    """
    if arch is not None and arch not in BACKBONES:
        raise UserError(f"no backbone is called {arch!r}", hint=f"known: {', '.join(BACKBONES)}")
    shapes = _shapes(weights.encoder)
    nearest: tuple[int, str, str] | None = None
    fitting = []
    for name in BACKBONES if arch is None else [arch]:
        with torch.device("meta"):
            backbone = BACKBONES[name]()
        expected = _shapes(_dual_if(weights.dual, backbone).state_dict())
        if shapes == expected:
            fitting.append(name)
            continue
        differences = _differences(shapes, expected)
        if nearest is None or differences[0] < nearest[0]:
            nearest = (differences[0], name, differences[1])
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        name = fitting[0]
        hint = f"name one of them: --model-arch {name}, to train --set model.arch={name}, in Python arch={name!r}"
        raise UserError(f"may be {' or '.join(fitting)}: their weights have the same names", where=where, hint=hint)
    assert nearest is not None
    near = f"of {arch}" if arch else f"fits no backbone; of {nearest[1]}, the nearest"
    raise UserError(f"{near}, {nearest[2]}", where=where)


def _check(part: str, state: Mapping[str, Tensor], build: Callable[[], nn.Module], where: str) -> None:
    with torch.device("meta"):
        expected = _shapes(build().state_dict())
    if _shapes(state) != expected:
        raise UserError(f"of the {part}, {_differences(_shapes(state), expected)[1]}", where=where)


def _dual_if(dual: bool, module: nn.Module) -> nn.Module:
    return to_dual(module) if dual else module


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items() if not name.endswith(COUNTER)}


def _differences(shapes: dict[str, torch.Size], expected: dict[str, torch.Size]) -> tuple[int, str]:
    """Number of names, and the first few of them."""
    kinds = {
        "lacks": sorted(expected.keys() - shapes.keys()),
        "does not know": sorted(shapes.keys() - expected.keys()),
        "has another shape of": sorted(k for k in shapes.keys() & expected.keys() if shapes[k] != expected[k]),
    }
    words = [
        f"it {kind} {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for kind, names in kinds.items()
        if names
    ]
    return sum(map(len, kinds.values())), "; ".join(words)


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    missing = {name: value for name, value in module.state_dict().items() if name.endswith(COUNTER)}
    module.load_state_dict({**missing, **state})
