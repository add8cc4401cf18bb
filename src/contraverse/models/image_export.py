"""Writing one set of an `ImageModel`'s batch norms for others: weights by their usual names, and ONNX."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from contraverse.errors import UserError
from contraverse.models.dual_bn import to_plain
from contraverse.models.folders import write_tensors
from contraverse.types import BNBranch
from contraverse.writing import whole_file

if TYPE_CHECKING:
    from contraverse.models.image import ImageModel


def export_weights(model: "ImageModel", path: Path, bn_branch: BNBranch) -> Path:
    """See `ImageModel.export_weights`."""
    state = to_plain(copy.deepcopy(model.encoder), bn_branch).state_dict()
    if model.classifier is not None:
        state |= {f"fc.{name}": value for name, value in model.classifier.state_dict().items()}
    notes = {"mean": model.mean, "std": model.std, "labels": model.labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        write_tensors(state, partial, {"format": "pt"} | {name: json.dumps(value) for name, value in notes.items()})
    return path


def export_onnx(model: "ImageModel", path: Path, bn_branch: BNBranch, size: int | None) -> Path:
    """See `ImageModel.export_onnx`."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("ONNX export needs onnx and onnxscript", hint="pip install 'contraverse[onnx]'") from error
    height, width = (size, size) if size is not None else model.image_size or (32, 32)
    pixels = torch.rand(2, len(model.mean), height, width, device=model.device)
    with warnings.catch_warnings(), _only_errors(logging.getLogger("torch.onnx")):
        # torch's exporter uses what torch itself has deprecated, and misses torchvision, which is not needed.
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            model.plain(bn_branch),
            (pixels,),
            input_names=["pixels"],
            output_names=["features" if model.labels is None else "logits"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        program.save(partial, external_data=False)
    return path


@contextmanager
def _only_errors(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
