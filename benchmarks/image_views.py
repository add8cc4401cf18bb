"""Views of images a second: contraverse on the batch, one image after the other with Pillow, and kornia if it is there.

    python benchmarks/image_views.py               # 32x32, batch 256, one thread, CPU
    python benchmarks/image_views.py --size 96 --threads 2
    python benchmarks/image_views.py --device cuda # Pillow stays on the CPU

SimCLR's views (bicubic crop, flip, color jitter, gray; no blur), from bytes to floats in [0, 1]. The ways take turns,
and the fastest round of each counts. Prints a Markdown table. kornia's crop is bicubic too; it draws one order of the
color jitter for a whole batch, ours and Pillow's one for each image.
"""

import argparse
import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from contraverse.data.images import CropFlip, SimCLRAugment


def pillow_view(image: Image.Image) -> Image.Image:
    """The same view of one image, as a loader's worker makes it."""
    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = random.uniform(0.1, 1.0) * width * height
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            box = (left, top, left + w, top + h)
            break
    view = image.crop(box).resize((width, height), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        view = ImageOps.mirror(view)
    if random.random() < 0.8:
        steps: list[Callable[[Image.Image], Image.Image]] = [
            lambda one: ImageEnhance.Brightness(one).enhance(random.uniform(0.6, 1.4)),
            lambda one: ImageEnhance.Contrast(one).enhance(random.uniform(0.6, 1.4)),
            lambda one: ImageEnhance.Color(one).enhance(random.uniform(0.6, 1.4)),
            _turn_hue,
        ]
        random.shuffle(steps)
        for step in steps:
            view = step(view)
    return view.convert("L").convert("RGB") if random.random() < 0.2 else view


def _turn_hue(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.int16(round(random.uniform(-0.1, 0.1) * 255))
    return Image.merge("HSV", (Image.fromarray((turned % 256).astype(np.uint8)), saturation, value)).convert("RGB")


def one_by_one(pixels: np.ndarray) -> Tensor:
    views = [np.asarray(pillow_view(Image.fromarray(one))) for one in pixels]
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255


def kornia_views(size: int) -> Callable[[Tensor], Tensor] | None:
    try:
        import kornia.augmentation as augmentation
    except ImportError:
        return None
    steps = (
        augmentation.RandomResizedCrop(
            (size, size), (0.1, 1.0), resample="bicubic", cropping_mode="resample", align_corners=False
        ),
        augmentation.RandomHorizontalFlip(),
        augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        augmentation.RandomGrayscale(p=0.2),
    )
    return torch.nn.Sequential(*steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    shape = (arguments.batch, arguments.size, arguments.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(arguments.device)
    ways: dict[str, Callable[[], Tensor]] = {
        "Pillow, one image at a time": lambda: one_by_one(pixels),
        "contraverse, SimCLRAugment": lambda: SimCLRAugment()(batch.float() / 255),
        "contraverse, CropFlip": lambda: CropFlip()(batch.float() / 255),
    }
    if kornia := kornia_views(arguments.size):
        ways["kornia"] = lambda: kornia(batch.float() / 255)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    rates = {name: arguments.batch / min(found[1:]) for name, found in times.items()}  # the first round warms up
    slowest = rates["Pillow, one image at a time"]
    size, threads = f"{arguments.size}x{arguments.size}", f"{arguments.threads} thread(s)"
    print(f"{size}, batch {arguments.batch}, {threads}, {arguments.device}\n")
    print("| views | images/s | ratio |\n|---|---:|---:|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} | {rate / slowest:.1f} |")


if __name__ == "__main__":
    main()
