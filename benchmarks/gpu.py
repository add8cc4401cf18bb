"""Seconds of a step and share of the device's bf16 matrix rate, on one GPU; ten minutes at most.

    python benchmarks/gpu.py                # without a GPU: says so and exits with 0
    python benchmarks/gpu.py --tiny         # the same code on the CPU, with models of no size

``ce``, ``scal``, ``carl``, ``uscal`` on a BERT-base of random weights (32 x 128 tokens); ``ce``, ``trades``, ``acl-ds``
on ResNet-18 (512 images of 32 pixels), in bf16, with and without ``torch.compile``. The rate is measured: that of a
product of two square matrices. FLOPs are those of `contraverse.planning`. Prints a Markdown table, row by row.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from contraverse import METHODS, ImageModel, TextModel, step
from contraverse.planning import training_of
from contraverse.recipes import TrainConfig
from contraverse.types import TrainingInfo

TEXT, IMAGES = ("ce", "scal", "carl", "uscal"), ("ce", "trades", "acl-ds")
SECONDS = 540
"""After so many no further row is begun."""


def synchronise(device: str) -> None:
    """Wait until ``device`` has computed all."""
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: str, size: int) -> float:
    """FLOPs a second of a product of square matrices in bf16, the best of five."""
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(5):
        synchronise(device)
        began = time.perf_counter()
        matrix @ matrix
        synchronise(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def build(images: bool, tiny: bool) -> Any:
    """A model of random weights."""
    if images:
        return ImageModel.from_pretrained("resnet8" if tiny else "resnet18", labels=list("0123456789"), dual=True)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=30_522, num_labels=4, **(small if tiny else {}))
    return TextModel(AutoModelForSequenceClassification.from_config(config), None, labels=list("abcd"))


def measure(name: str, images: bool, compiled: bool, device: str, rate: float, tiny: bool) -> str:
    """A row of the table."""
    rows, length = (512, 32) if images else (32, 128)
    rows, length = (4, 16) if tiny else (rows, length)
    kind: Any = METHODS[name]
    with torch.device("meta"):
        shape = build(images, tiny)
    training = training_of(shape, kind(), TrainConfig(), length, bf16=True)
    method, model = kind(**({"start": 1} if name == "carl" else {})), build(images, tiny)
    model.add_heads(method.heads)
    labels = torch.arange(rows) % 4
    method.prepare(TrainingInfo(rows, model.width, labels, epochs=100.0, vocab_size=30_522))
    model.to(device).train()
    method.to(device)
    numbers = torch.arange(rows, device=device)
    batch: dict[str, Any] = {"labels": labels.to(device), "index": numbers}
    if images:
        batch["pixel_values"] = torch.rand(rows, 3, length, length, device=device)
        batch["positive"] = {"pixel_values": torch.rand(rows, 3, length, length, device=device)}
    else:
        ids = torch.randint(1000, 20_000, (rows, length), device=device)
        batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    run: Any = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    times = []
    for turn in range(3 if tiny else 13):
        synchronise(device)
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            step(method, run, batch, backward=torch.Tensor.backward)
        optimizer.step()
        optimizer.zero_grad()
        synchronise(device)
        if turn >= (1 if tiny else 3):  # the first are to warm up, and to compile
            times.append(time.perf_counter() - began)
    seconds = statistics.median(times)
    share = training.flops(rows) / seconds / rate
    kinds = f"{'images' if images else 'text'} | {'yes' if compiled else 'no'}"
    return f"| {name} | {kinds} | {1000 * seconds:.1f} | {share:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="run on the CPU, with models of no size")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        print("No GPU: torch.cuda.is_available() is false. Nothing is measured.")
        return
    device, began = ("cpu" if arguments.tiny else "cuda"), time.perf_counter()
    rate = matrix_rate(device, 64 if arguments.tiny else 8192)
    name = "CPU" if arguments.tiny else torch.cuda.get_device_name()
    print(f"{name}: {rate / 1e12:.3g} TFLOP/s of a bf16 product\n")
    print("| method | data | compiled | milliseconds | share of the rate |\n|---|---|---|---:|---:|")
    for compiled in (False,) if arguments.tiny else (False, True):
        for name, images in [*((name, False) for name in TEXT), *((name, True) for name in IMAGES)]:
            if time.perf_counter() - began > SECONDS:
                print(f"\nStopped after {SECONDS} s.")
                return
            print(measure(name, images, compiled, device, rate, arguments.tiny), flush=True)


if __name__ == "__main__":
    main()
