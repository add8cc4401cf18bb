"""Cost of each method on the known models, as a page: ``python -m contraverse.planning.tables docs``.

The forward passes are measured once, into a file of JSON beside the page; everything else follows from what methods
declare.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from contraverse.methods import METHODS
from contraverse.models import AnyModel
from contraverse.planning.cost import Training, training_with
from contraverse.planning.measure import Forward, forward_of
from contraverse.planning.shapes import SHAPES, build_model
from contraverse.recipes import RunConfig, configure

PAGE, FORWARDS = "scale-tables.md", "results/forward-passes.json"
DEVICES = (1, 8, 512)
_COLUMNS = (
    "| method | F | FLOPs, 1 device | 8 | 512 | activations | fixed, 1 | several | all-reduced | gathered, 8 | 512 |"
)
TOKENS = 128
ROWS = {"text": 32, "images": 64}
"""Rows of a device."""
LORA = {"mistral-7b": {"model.peft": {"type": "lora", "r": 8}, "model.dtype": "bfloat16"}}
"""Settings of models that are too large to train whole."""

_HEAD = """# Cost of a step, by model and method

Written by `python -m contraverse.planning.tables docs`; [scale](scale.md) says what the figures are and how they are
tested. `contraverse plan` prints them for your own model, batch and devices.

Each device has {text} texts of {tokens} tokens, or {images} images, in a step, trained in bf16 with AdamW. *FLOPs* are
of all devices. *Activations* are held by each at its peak, beside weights, gradients and AdamW's states (*fixed*;
several devices hold gradients twice). *All-reduced* are the gradients, whatever the number of devices; *gathered* is
what each device receives. Methods have their default settings.
"""


def measure_forwards() -> dict[str, dict[str, Any]]:
    """A forward pass of each known model: its figures by name."""
    passes = {}
    for name in SHAPES:
        config, model = _bare(name)
        method = METHODS[config.method.name]()
        passes[name] = asdict(forward_of(model, method, SHAPES[name].size or TOKENS, bf16=True))
    return passes


def page(passes: dict[str, dict[str, Any]]) -> str:
    """The page as Markdown.

    Args:
        passes: as `measure_forwards` gives them.
    """
    parts = [_HEAD.format(tokens=TOKENS, **ROWS)]
    for name, shape in SHAPES.items():
        parts.append(_section(name, Forward(**passes[name]), "text" if shape.size is None else "images"))
    return "\n".join(parts)


def _section(name: str, forward: Forward, modality: str) -> str:
    config, model = _bare(name)
    rows = ROWS[modality]
    weights = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    adapted = f", of which LoRA (r = 8) trains {trained / 1e6:,.1f}" if trained < weights else ""
    lines = [
        f"## {SHAPES[name].summary}\n",
        f"{weights / 1e6:,.1f} million weights{adapted}; F is {forward.flops / 1e9:.3g} GFLOP a row.\n",
        _COLUMNS,
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method_name, kind in METHODS.items():
        if kind.modality not in ("both", modality):
            continue
        method = kind()
        if modality == "images" and {spec.kind for spec in method.heads.values()} - {"projection", "mlp", "patches"}:
            continue  # reads tokens
        model.heads, model.head_specs = nn.ModuleDict(), {}
        own = _bare(name)[1] if kind.trainable == "classifier" else model  # which is frozen from then on
        training = training_with(forward, own, method, config.train)
        lines.append(_row(method_name, training, rows))
    return "\n".join(lines) + "\n"


def _row(name: str, training: Training, rows: int) -> str:
    cells = [f"[`{name}`](methods/{name}.md)", f"{training.units:g}"]
    cells += [written_flops(training.flops(rows) * devices) for devices in DEVICES]
    cells.append(written_size(training.activations(rows)))
    cells += [written_size(training.fixed(devices)) for devices in DEVICES[:2]]
    cells.append(written_size(training.reduced(8)))
    cells += [written_size(training.gathered_bytes(rows, devices)) for devices in DEVICES[1:]]
    return f"| {' | '.join(cells)} |"


def _bare(name: str) -> tuple[RunConfig, AnyModel]:
    """Settings of a run with the model, and the model as an encoder without heads."""
    settings = {"model.name": name, **LORA.get(name, {})}
    config = configure("simcse" if SHAPES[name].size is None else "probe", settings=settings)
    return config, build_model(config, None)


def written_flops(number: float) -> str:
    """FLOPs for a reader, with three digits."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if number >= size:
            return f"{number / size:.3g} {unit}FLOP"
    return f"{number / 1e6:.3g} MFLOP"


def written_size(number: float) -> str:
    """Bytes for a reader, with three digits; a dash for none."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} KB" if number else "-"


def main() -> None:
    """Measure, and write page and figures into the folder that the command line names."""
    docs = Path(sys.argv[1])
    passes = measure_forwards()
    (docs / FORWARDS).write_text(json.dumps(passes, indent=1) + "\n", encoding="utf-8", newline="\n")
    (docs / PAGE).write_text(page(passes), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
