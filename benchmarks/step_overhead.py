"""Work of the host in a training step of each method: operations, copies and reads that it waits for, milliseconds.

    python benchmarks/step_overhead.py                       # all methods
    python benchmarks/step_overhead.py --methods acl-ds uscal --steps 5

A tiny model, whose arithmetic takes next to no time, on the CPU. *Operations* are those that torch dispatches in views,
losses, attack, backward and optimizer (each starts one kernel or more on a GPU). *Blocking copies* to a device make the
host wait; they are counted on torch's meta device, where a value cannot be read: a step that reads one ends there.
*Milliseconds* are those of the process, the median of ``--steps``. Prints a Markdown table.
"""

import argparse
import statistics
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers.masking_utils
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reference.driving import METHODS, make, ready
from reference.images import image_batch, tiny
from reference.tiny import LABELS, random_batch, tiny_config, tiny_tokenizer, with_pairs
from reference.waiting import BlockingCopies

from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.models import AnyModel, TextModel
from contraverse.training import step
from contraverse.training.lars import LARS


class Dispatched(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def text_model() -> TextModel:
    """A BERT of two layers."""
    config = tiny_config("bert", 0.1)
    config.num_labels = len(LABELS)
    encoder = AutoModelForSequenceClassification.from_config(config)
    return TextModel(encoder, tiny_tokenizer(type_ids=True), labels=list(LABELS), max_length=32)


def to_device(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """The batch, those inside it included, on ``device``."""
    return {name: to_device(v, device) if isinstance(v, dict) else v.to(device) for name, v in batch.items()}


class Training:
    """A method, its model and optimizer on one device, and steps of them."""

    def __init__(self, name: str, images: bool, device: str) -> None:
        self.model: AnyModel = tiny(dual=True) if images else text_model()
        self.method = make(name, hidden_size=self.model.width)
        two = self.method.image_views == 2
        self.views: Any = None
        self.batch: dict[str, Any] = with_pairs(random_batch(8, 16))
        if images:
            self.views = TwoViews(SimCLRAugment()) if two else OneView(CropFlip())
            pair = {"pixel_values": image_batch(8, 16, seed=1)["pixel_values"]}
            self.batch = {**image_batch(8, 16), "negative": pair}
        self.model.add_heads(self.method.heads)
        self.model.train()
        ready(self.method, self.model)
        self.method.to(device)
        self.model.to(device)
        self.batch = to_device(self.batch, device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if images:
            self.optimizer: torch.optim.Optimizer = (
                LARS(trained, 0.1) if two else torch.optim.SGD(trained, 0.1, momentum=0.9, foreach=True)
            )
        else:
            self.optimizer = torch.optim.AdamW(trained, 1e-3, fused=device == "cpu")

    def losses(self) -> None:
        """Views, attack, losses, backward."""
        batch = self.views(self.batch) if self.views else self.batch
        step(self.method, self.model, batch, backward=lambda loss: loss.backward())

    def whole(self) -> None:
        """One step."""
        self.losses()
        self.optimizer.step()
        self.method.after_step(self.model)
        self.optimizer.zero_grad()


def measure(name: str, images: bool, steps: int) -> str:
    """A row of the table."""
    on_meta = Training(name, images, "meta")
    with BlockingCopies() as copies:
        try:
            on_meta.whole()
            blocking = str(len(copies.seen))
        except (RuntimeError, NotImplementedError):  # a value was read, which meta has not
            blocking = f"{len(copies.seen)}, then a read"
    training = Training(name, images, "cpu")
    training.whole()
    times = []
    for _ in range(steps):
        began = time.process_time()
        training.whole()
        times.append(1000 * (time.process_time() - began))
    with Dispatched() as losses:
        training.losses()
    with Dispatched() as optimizer:
        training.optimizer.step()
    kind = "images" if images else "text"
    counts = f"{losses.count + optimizer.count:,} | {optimizer.count:,} | {blocking}"
    return f"| {name} | {kind} | {training.method.cost} | {counts} | {statistics.median(times):.0f} |"


def trains_on(name: str, images: bool) -> bool:
    """Whether the method is measured on texts or images: on those of its paper."""
    kind = METHODS[name]
    if kind.modality == "both":
        return images == (kind.image_views == 2 or name in ("trades", "pgd-at", "uat", "probe", "deacl"))
    return images == (kind.modality == "images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    autocast: Any = torch.autocast  # which meta lacks
    torch.autocast = lambda kind, *a, **k: nullcontext() if kind == "meta" else autocast(kind, *a, **k)  # type: ignore
    # transformers looks once in each forward whether the mask has padding; see tests/training/test_hot_path.py.
    transformers.masking_utils._ignore_bidirectional_mask_sdpa = lambda *args, **kwargs: False  # type: ignore
    print("| method | data | cost | operations | of the optimizer | blocking copies | milliseconds |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name in arguments.methods:
        for images in (False, True):
            if trains_on(name, images):
                print(measure(name, images, arguments.steps), flush=True)


if __name__ == "__main__":
    main()
