"""What images take, side by side in one run: a step of ACL-DS beside the plain way, and PGD beside other packages.

    python benchmarks/image_speed.py             # both tables, ResNet-18, 32x32, one thread
    python benchmarks/image_speed.py --only step
    python benchmarks/image_speed.py --only pgd --images 64

Prints two Markdown tables. The ways take turns; *ratio* is the median, over rounds, of the time of the plain way (of
the package) over ours in the same round, so above 1 ours is faster. --cpu-time counts the time that the process had
the core, for a machine that others use too.

step: forward, attack and backward of a batch of two views, PGD-5. The plain way is what the authors' code does:
``loss.backward()`` inside the attack, which computes gradients of the weights too, images and weights in torch's
default layout, convolution and batch norm one after the other in every mode as torchvision has them, a clean and an
adversarial pass: 42F. Given the same random start both have to give the same loss.

pgd: PGD-20, 8/255, step 2/255, one random start, of the ResNet-18 that the package pyautoattack ships, on the first
images of CIFAR-10's test part. All attack the same network. It needs ``pip install pyautoattack``; foolbox and the
adversarial-robustness-toolbox are skipped where they are missing:

    pip install foolbox==3.3.4 adversarial-robustness-toolbox==1.20.1
"""

import argparse
import copy
import importlib.util
import io
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse import METHODS, step
from contraverse.attacks import perturbation_inputs
from contraverse.data import ImageData
from contraverse.evaluation import AttackSettings, robust_accuracy
from contraverse.evaluation.attack_loop import attack_batch, ball_of, frozen, seeded
from contraverse.models import ImageModel, attacking
from contraverse.models.dual_bn import routed
from contraverse.types import Batch, BNBranch

EPSILON, STEP_SIZE = 8 / 255, 2 / 255
CIFAR10 = Path(__file__).parents[1] / ".." / "shared" / "data" / "images" / "cifar10" / "cifar10_20k_10k.parquet"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OURS = "contraverse"


class Rivals(NamedTuple):
    """What attacks pixels (N, 3, H, W) of given labels (N,), by name, and what is missing."""

    attacks: dict[str, Callable[[Tensor, Tensor], Tensor]]
    missing: list[str]


def timed(ways: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round of all to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = clock()
            way()
            times[name].append(clock() - began)
    return {name: found[1:] for name, found in times.items()}


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


class PlainResNet(nn.Module):
    """The layers of a `ResNet` of basic blocks, in torch's default layout and each called by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network.to(memory_format=torch.contiguous_format)

    def forward(self, x: Tensor) -> Tensor:
        """As the network's own."""
        network = self.network
        x = F.relu(network.bn1(network.conv1(x)), inplace=True)
        for number in range(network.stages):
            for block in network.get_submodule(f"layer{number + 1}"):
                shortcut = x if block.downsample is None else block.downsample(x)
                x = F.relu(block.bn1(block.conv1(x)), inplace=True)
                x = F.relu(block.bn2(block.conv2(x)) + shortcut, inplace=True)
        return x.mean((2, 3))


class PlainACL:
    """A DS step written down as one would at first, of a model's own layers."""

    def __init__(self, model: ImageModel, temperature: float = 0.5, steps: int = 5) -> None:
        self.model, self.temperature, self.steps = model, temperature, steps
        self.encoder = PlainResNet(model.encoder)
        self.mean, self.std = (torch.tensor(values).reshape(-1, 1, 1) for values in (model.mean, model.std))

    def contrast(self, pixels: Tensor, bn_branch: BNBranch) -> Tensor:
        """NT-Xent of 2N views, row i and row N + i of the same image."""
        with routed(self.model, bn_branch):
            z = F.normalize(self.model.heads["z"](self.encoder((pixels - self.mean) / self.std)))
        similar = (z @ z.T / self.temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
        return F.cross_entropy(similar, torch.arange(len(z)).roll(len(z) // 2))

    def step(self, pixels: Tensor) -> float:
        """The loss; gradients are left in the model."""
        delta = torch.empty_like(pixels).uniform_(-1, 1) * EPSILON
        delta = (pixels + delta).clamp(0, 1) - pixels
        self.model.eval()
        for _ in range(self.steps):
            delta.requires_grad_()
            self.contrast(pixels + delta, "adversarial").backward()
            assert delta.grad is not None
            moved = (delta.detach() + STEP_SIZE * delta.grad.sign()).clamp(-EPSILON, EPSILON)
            delta = (pixels + moved).clamp(0, 1) - pixels
        self.model.train()
        self.model.zero_grad()
        total = 0.0
        for bn_branch, shift in (("adversarial", delta), ("clean", None)):
            loss = self.contrast(pixels if shift is None else pixels + shift, bn_branch)  # type: ignore[arg-type]
            loss.backward()
            total += float(loss.detach())
        return total


def compare_steps(rows: int, rounds: int, clock: Callable[[], float]) -> None:
    """Print the table of DS steps.

    Raises:
        SystemExit: the two ways give other losses.
    """
    torch.manual_seed(0)
    method = METHODS["acl-ds"]()
    model = ImageModel.from_pretrained("resnet18", dual=True)
    model.add_heads(method.heads)

    def ways(model: ImageModel, views: Tensor) -> dict[str, Callable[[], float]]:
        # A copy each: a step moves the running statistics, which the next attack reads.
        plain, own = PlainACL(copy.deepcopy(model).train()), copy.deepcopy(model).train()
        first, second = views.chunk(2)
        batch: Batch = {"pixel_values": first, "positive": {"pixel_values": second}}

        def plainly() -> float:
            torch.manual_seed(1)
            plain.model.zero_grad()
            return plain.step(views)

        def ours() -> float:
            torch.manual_seed(1)
            own.zero_grad()
            parts = step(method, own, batch, backward=torch.Tensor.backward)
            return sum(float(part[name]) for part in parts for name in part if name.startswith("contrast"))

        return {"plain": plainly, OURS: ours}

    # In double precision: the signs of gradients make much of what single precision rounds, in any other layout too.
    exact = {name: way() for name, way in ways(model.double(), torch.rand(8, 3, 32, 32).double()).items()}
    if abs(exact["plain"] - exact[OURS]) > 1e-5 * exact["plain"]:
        sys.exit(f"not the same maths: the losses are {exact['plain']:.7f} and {exact[OURS]:.7f}")
    times = timed(ways(model.float(), torch.rand(2 * rows, 3, 32, 32)), rounds, clock)
    print(f"ACL-DS, PGD-5, {rows} images of two views, {rounds} rounds; same loss in fp64: {exact[OURS]:.6f}\n")
    print("| step | cost | seconds | ratio |\n|---|---|---:|---:|")
    for name, cost in (("plain", "42F"), (OURS, method.cost)):
        median, beside = statistics.median(times[name]), ratio(times["plain"], times[name])
        print(f"| {name} | {cost} | {median:.2f} | {beside:.2f} |")


def read_images(path: Path, count: int) -> ImageData:
    """The first images of the test part."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path, filters=[("split", "=", "test")]).slice(0, count)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_pylist()])
    return ImageData.from_arrays(pixels.transpose(0, 3, 1, 2), np.array(table["label"].to_pylist()), CLASSES)


def rivals(network: nn.Module, batch: int) -> Rivals:
    """The packages that are installed."""
    attacks: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    missing = [name for name in ("foolbox", "art") if importlib.util.find_spec(name) is None]
    if "foolbox" not in missing:
        import foolbox

        bounded = foolbox.PyTorchModel(network, bounds=(0, 1))
        linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=20, random_start=True)

        def by_foolbox(pixels: Tensor, labels: Tensor) -> Tensor:
            rows = zip(pixels.split(batch), labels.split(batch), strict=True)
            return torch.cat([linf(bounded, x, y, epsilons=EPSILON)[1] for x, y in rows])

        attacks[f"foolbox {foolbox.__version__}"] = by_foolbox
    if "art" not in missing:
        import art
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        estimator = PyTorchClassifier(network, nn.CrossEntropyLoss(), (3, 32, 32), len(CLASSES), clip_values=(0, 1))
        projected = ProjectedGradientDescent(
            estimator,
            norm=np.inf,
            eps=EPSILON,
            eps_step=STEP_SIZE,
            max_iter=20,
            num_random_init=1,
            batch_size=batch,
            verbose=False,
        )
        attacks[f"ART {art.__version__}"] = lambda x, y: torch.from_numpy(projected.generate(x.numpy(), y.numpy()))
    return Rivals(attacks, missing)


def whole_attack(model: ImageModel, data: ImageData, settings: AttackSettings, batch: int) -> float:
    """Percent that hold where every image, those that are wrong from the start too, goes through every step."""
    held = 0
    with attacking(model), frozen(model), seeded(settings.seed):
        for rows in np.array_split(np.arange(len(data)), math.ceil(len(data) / batch)):
            given = data.collate([data[int(row)] for row in rows])
            inputs = perturbation_inputs(model, given)
            ball = ball_of(inputs, rows, EPSILON, settings, 0)
            held += int((~attack_batch(model, given, inputs, ball, settings, "ce", True).broken).sum())
    return 100 * held / len(data)


def compare_attacks(path: Path, weights: Path, count: int, batch: int, rounds: int, clock: Callable[[], float]) -> None:
    """Print the table of PGD-20."""
    data = read_images(path, count)
    assert data.labels is not None
    model = ImageModel.from_checkpoint(weights, labels=CLASSES)
    model.set_normalisation((0, 0, 0), (1, 1, 1))
    network, labels = model.plain(), torch.as_tensor(data.labels)
    pixels = data.collate([data[row] for row in range(len(data))])["pixel_values"]
    found: dict[str, float] = {}
    settings = AttackSettings(attack="pgd", norm="linf", steps=20, step_size=STEP_SIZE, random_start=True)

    def ours() -> None:
        report = robust_accuracy(
            model, data, [EPSILON], norm="linf", steps=20, step_size=STEP_SIZE, random_start=True, batch_size=batch
        )
        found[OURS] = report.at[EPSILON].accuracy

    def whole() -> None:
        found[f"{OURS}, no image dropped"] = whole_attack(model, data, settings, batch)

    def theirs(name: str, attack: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            moved = attack(pixels, labels)
            assert (moved - pixels).abs().max() <= EPSILON + 1e-6
            with torch.no_grad():
                right = torch.cat([network(x).argmax(1) for x in moved.split(batch)]) == labels
            found[name] = 100 * float(right.float().mean())

        return run

    others = rivals(network, batch)
    ways = {OURS: ours, f"{OURS}, no image dropped": whole}
    times = timed(ways | {name: theirs(name, attack) for name, attack in others.attacks.items()}, rounds, clock)
    with torch.no_grad():
        clean = 100 * float(torch.cat([network(x).argmax(1) == y for x, y in zip(
            pixels.split(batch), labels.split(batch), strict=True)]).float().mean())  # fmt: skip
    print(f"PGD-20, 8/255, step 2/255, {count} images, batch {batch}, {rounds} rounds; {clean:.1f} % right clean\n")
    print("| attack | accuracy | seconds | ratio |\n|---|---:|---:|---:|")
    for name, seconds in times.items():
        print(f"| {name} | {found[name]:.1f} | {statistics.median(seconds):.1f} | {ratio(seconds, times[OURS]):.2f} |")
    for name in others.missing:
        print(f"\n{name} is not installed; see --help")


def shipped_weights() -> Path:
    """Where pyautoattack keeps its network.

    Raises:
        SystemExit: it is not installed.
    """
    spec = importlib.util.find_spec("pyautoattack")
    if spec is None or spec.origin is None:
        sys.exit("error: no weights: pip install pyautoattack, or give --weights")
    return Path(spec.origin).parent / "examples" / "model_test.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["step", "pgd"])
    parser.add_argument("--rows", type=int, default=32, help="images of two views in a step")
    parser.add_argument("--images", type=int, default=32, help="images that are attacked")
    parser.add_argument("--batch", type=int, default=32, help="images that are attacked together")
    parser.add_argument("--rounds", type=int, default=5, help="of steps; one of attacks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count the process's own time, not the wall clock's")
    parser.add_argument("--data", type=Path, default=CIFAR10, help="CIFAR-10 as Parquet, with a column split")
    parser.add_argument("--weights", type=Path, help="of a ResNet-18 for pixels in [0, 1]; pyautoattack's if left out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print(f"{arguments.threads} thread(s), {'CPU time' if arguments.cpu_time else 'wall clock'}\n")
    if arguments.only != "pgd":
        compare_steps(arguments.rows, arguments.rounds, clock)
        print()
    if arguments.only != "step":
        weights = arguments.weights or shipped_weights()
        compare_attacks(arguments.data, weights, arguments.images, arguments.batch, 1, clock)


if __name__ == "__main__":
    main()
