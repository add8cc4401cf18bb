"""``contraverse export``: a model of images as a file that others read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from contraverse.cli.console import doing, say
from contraverse.cli.files import check_target, load_model
from contraverse.cli.images import measured_route
from contraverse.errors import UserError


def export(
    model: Annotated[str, typer.Argument(help="A run's folder, or a model's folder.")],
    output: Annotated[Path, typer.Option(help="X.onnx, or X.safetensors with torchvision's names.")],
    bn_branch: Annotated[
        Literal["clean", "adversarial"] | None,
        typer.Option(help="Batch norms of a dual model. (default: adversarial, where they were trained)"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=4, help="Height and width of an image, for ONNX. (default: of those that it was trained on)"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite --output.")] = False,
) -> None:
    """Write a model of images as ONNX, pixels in [0, 1] to logits, or as a plain state dict of its backbone.

    Models of texts need none: the folder model/ of their run loads in transformers or sentence-transformers.
    """
    check_target(output, (".onnx", ".safetensors"), force)
    source = load_model(model)
    loaded = source.model
    from contraverse.models import ImageModel

    if not isinstance(loaded, ImageModel):
        hint = "its folder loads in transformers (a classifier) or sentence-transformers (an encoder) as it is"
        raise UserError("a model of texts needs no export", where=model, hint=hint)
    through = measured_route(source, bn_branch)
    with doing(f"Writing {output}…"):
        if output.suffix == ".onnx":
            loaded.export_onnx(output, through, size=size)
        else:
            loaded.export_weights(output, through)
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (loaded.mean, loaded.std))
    inside = "the normalisation is inside" if output.suffix == ".onnx" else f"normalise with mean {mean} and std {std}"
    say(f"{output}: {inside}")
