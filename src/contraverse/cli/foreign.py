"""Models that others made: files of weights, and a network of the user's own."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraverse.cli.console import say
from contraverse.errors import UserError

if TYPE_CHECKING:
    from contraverse.models import ImageModel
    from contraverse.models.backbones import Normalisation

ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".th", ".safetensors")
OURS = ("config.yaml", "config.json", "contraverse.json", "modules.json")

Arch = Annotated[
    str | None, typer.Option("--model-arch", help="File of weights: its backbone, where the file's names fit several.")
]
Normalise = Annotated[
    str | None,
    typer.Option(help="File of weights: none, imagenet, cifar10, cifar100, half, or MEAN/STD as .5,.5,.5/.2,.2,.2."),
]


def weights_file(path: Path) -> Path | None:
    """The file of weights that ``path`` is, or the only one in a folder that is no run's and no model's.

    Raises:
        UserError: the folder holds several.
    """
    if path.is_file():
        return path
    if not path.is_dir() or any((path / name).is_file() for name in OURS):
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    if len(files) > 1:
        listed = ", ".join(file.name for file in files[:5])
        raise UserError(f"several files of weights are here: {listed}", where=str(path), hint="name one of them")
    return files[0] if files else None


def load_weights(file: Path, arch: str | None, normalise: str | None) -> "ImageModel":
    """The model of a published file of weights, read as tensors alone; prints a note where something is uncertain.

    Raises:
        UserError: the file cannot be read, or fits no backbone.
    """
    from contraverse.models import ImageModel, checkpoints

    own = normalisation(normalise) if normalise is not None else None
    model, notes = checkpoints.load(file, ImageModel, arch=arch, normalisation=own)
    classes = f"{len(model.labels)} classes" if model.labels else "no classifier"
    say(f"{file}: {model.backbone}, {classes}{', dual batch norm' if model.dual else ''}")
    for note in notes:
        say(f"{note} (change it with --normalise)")
    return model


def normalisation(written: str) -> "Normalisation":
    """A normalisation by name, or as ``mean/std`` with commas between the channels.

    Raises:
        UserError: it is neither.
    """
    from contraverse.models.checkpoints import NORMALISATIONS

    if written in NORMALISATIONS:
        return NORMALISATIONS[written]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    try:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in written.split("/"))
    except ValueError:
        mean = std = ()
    if len(mean) != 3 or len(std) != 3 or not all(0 < value < float("inf") for value in std):
        hint = f"use {', '.join(NORMALISATIONS)}, or numbers as .5,.5,.5/.25,.25,.25"
        raise UserError(f"{written!r} is no normalisation", where="--normalise", hint=hint)
    return mean, std


def load_network(spec: str, weights: str | None) -> "ImageModel":
    """Run the user's own ``FILE.py:FUNCTION``, and load ``weights`` into the network that it gives, if there are any.

    Raises:
        UserError: there is no such file or function, running it fails, it gives no network, or the weights do not fit.
    """
    from torch import nn

    from contraverse.models import ImageModel
    from contraverse.models.checkpoints import read_weights

    path = None if weights is None else weights_file(Path(weights))
    if weights is not None and path is None:
        raise UserError("there is no file of weights", where=weights, hint="leave it out if FUNCTION loads its own")
    network = _called(load_function(spec, "--module"), spec)
    if not isinstance(network, nn.Module):
        raise UserError(f"gives a {type(network).__name__}, not a torch.nn.Module", where=spec)
    if path is not None:
        state = read_weights(path)[0]
        if all(key.startswith("module.") for key in state):
            state = {key.removeprefix("module."): value for key, value in state.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"the weights do not fit the network: {error}", where=str(path)) from error
    return ImageModel.from_module(network)


def load_function(spec: str, flag: str) -> Callable[..., Any]:
    """Run the user's own ``FILE.py`` and give its ``FUNCTION``; ``flag`` is the option that names them.

    Raises:
        UserError: there is no such file or function, or running the file fails.
    """
    name, _, function = spec.rpartition(":")
    file = Path(name)
    if file.suffix != ".py" or not function.isidentifier():
        raise UserError(f"{spec!r} names no function", where=flag, hint="give FILE.py:FUNCTION, as own.py:build")
    if not file.is_file():
        raise UserError("there is no such file", where=str(file))
    build = getattr(_run(file), function, None)
    if not callable(build):
        raise UserError(f"has no function {function}", where=str(file))
    return build


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_network", file)
    assert spec is not None
    assert spec.loader is not None
    module, folder = importlib.util.module_from_spec(spec), str(file.absolute().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"cannot be run: {type(error).__name__}: {error}", where=str(file)) from error
    finally:
        sys.path.remove(folder)
    return module


def _called(build: Any, spec: str) -> Any:
    try:
        return build()
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"raised {type(error).__name__}: {error}", where=spec) from error
