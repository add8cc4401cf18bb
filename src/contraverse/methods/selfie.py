"""Selfie (Trinh et al., 2019), clean and adversarial: classification of masked patches."""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.errors import UserError
from contraverse.functional import Norm
from contraverse.methods._settings import EPSILON, STEP_SIZE, Epsilon, Share, Steps, StepSize, settings
from contraverse.models.modes import attacking
from contraverse.types import (
    Batch,
    BNBranch,
    ForwardCall,
    ForwardCalls,
    HeadCall,
    HeadSpec,
    Loss,
    Method,
)


@settings
class Selfie(Method):
    """Masked-patch classification, clean and adversarial: match each hidden patch with its place from the visible ones.

        v_m = u(visible patches) + place of patch m
        l   = -1/M sum_m log exp(v_m . h_m) / sum_k exp(v_m . h_k)
        L   = c l(x) + (1 - c) max_{||delta|| <= epsilon} l(x + delta)

    h are the patches' features, u is attention over the visible ones, and k runs over the M hidden patches of the
    same image. c = 1 is Selfie; c = 1/2 is its adversarial form, with which Adv-SS pre-trains and ACL compares. The
    maximum is searched by PGD on all pixels from a start uniform in the ball, in eval mode; training uses the last of k
    iterates. The hidden patches are drawn anew for each image and step, and are the same in all its passes.

    Batch: images, whose sides are multiples of ``grid``. Cost: k (F + b) + 2 (F + B) = 26F with the defaults, 3F less
    with c = 0; 3F with c = 1. F is a pass of all patches, as dear as one of the image, and of the head, which adds 9 M
    multiplications to the 555 M of ResNet-18. Clean images go through a dual model's clean batch-norm branch,
    adversarial ones through its adversarial branch.

    Departures: the whole backbone reads patches, so that all of it is pre-trained; Selfie pre-trains the first three
    of ResNet-50's four stages. Attention is 128 wide, places are sines and cosines where Selfie learns them, and
    scores are divided by the root of 128. The cross-entropy reads scores; Adv-SS gives it their softmax, of which it
    takes another. Adv-SS attacks in training mode, where each step moves the running statistics of batch norm.

    Raises:
        UserError: no patch stays visible.
    """

    name = "selfie"
    summary = "masked-patch classification, clean and adversarial"
    paper = "Selfie; ACL"
    equation = "the patch classification of Selfie; Table 1 of ACL"
    requires = "inputs"
    modality = "images"
    stochastic = True
    heads = {"patches": HeadSpec(dim=128, kind="patches")}
    test_settings = {
        "selfie-clean": {"clean": 1.0},
        "selfie-adversarial": {"clean": 0.0, "norm": "l2", "epsilon": 0.3, "step_size": 0.1},
    }

    clean: Share = 0.5
    """Share c of the clean loss; the adversarial loss has the rest. 1 is Selfie, .5 its adversarial form."""
    grid: Annotated[int, Field(ge=2)] = 4
    """Patches along a side of the image: 4 x 4 of 8 x 8 pixels in CIFAR's images."""
    hidden: Annotated[int, Field(ge=2)] = 4
    """Number M of hidden patches, below `grid` squared."""
    epsilon: Epsilon = EPSILON
    """Largest norm of a perturbation, in pixels of [0, 1]."""
    step_size: StepSize = STEP_SIZE
    """Length of one attack step."""
    steps: Steps = 10
    """Number k of attack steps."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole image."""

    def setup(self) -> None:
        if self.hidden >= self.grid**2:
            size = f"{self.grid} x {self.grid}"
            raise UserError(f"hidden={self.hidden} leaves none of the {size} patches visible", hint="hide fewer")
        self.ball = NormBall(self.epsilon, self.step_size, self.norm)
        self.bn_branch: BNBranch = "adversarial" if self.clean < 1 else "clean"
        self.cost = f"{3 * (self.clean > 0) + (2 * self.steps + 3) * (self.clean < 1)}F"
        self.graphs = 1 + (0 < self.clean < 1)

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of this size in pixels can be cut into the patches.

        Raises:
            UserError: a side is no multiple of the grid.
        """
        if height % self.grid or width % self.grid:
            raise UserError(
                f"images of {height} x {width} pixels cannot be cut into {self.grid} x {self.grid} patches",
                hint="resize them, or choose another method.grid",
            )

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        rows, places = len(inputs.values), self.grid**2
        order = torch.rand(rows, places, device=inputs.values.device).argsort(1)  # (B, grid^2), random permutations
        hidden, visible = order.tensor_split([self.hidden], 1)  # (B, M), (B, grid^2 - M)
        patches = self._patches(inputs.values)  # (B * grid^2, C, h, w)
        answers = torch.arange(self.hidden, device=hidden.device).repeat(rows)  # (B * M,)

        def losses_of(deltas: dict[BNBranch, Tensor | None]) -> dict[BNBranch, Objective]:
            """Losses of the rows (B,) and their scores by batch-norm branch, under a perturbation (B, C, H, W) each."""
            images = {"pixel_values": patches}
            moved = {name: None if delta is None else self._patches(delta) for name, delta in deltas.items()}
            calls = tuple(ForwardCall(images, delta, ("h",), bn_branch) for bn_branch, delta in moved.items())
            outputs = model(ForwardCalls(calls))
            # h is (B * grid^2, H), the head reads (B, grid^2, H) and gives (B, M, M): places by patches.
            inputs = [(out.h.unflatten(0, (rows, places)), visible, hidden) for out in outputs]
            heads = [HeadCall("patches", features, out) for features, out in zip(inputs, outputs, strict=True)]
            calls = tuple(ForwardCall(head, bn_branch=branch) for branch, head in zip(deltas, heads, strict=True))
            objectives = {}
            for branch, out in zip(deltas, model(ForwardCalls(calls)), strict=True):
                scores = out.heads["patches"].float()  # (B, M, M)
                loss = F.cross_entropy(scores.flatten(0, 1), answers, reduction="none")  # (B * M, M) -> (B * M,)
                objectives[branch] = Objective(loss.view(rows, -1).mean(1), scores)  # (B,)
            return objectives

        deltas, log = dict[BNBranch, Tensor | None](), dict[str, Tensor]()
        if self.clean < 1:
            with attacking(model):
                attack = pgd(
                    lambda delta: losses_of({"adversarial": delta})["adversarial"],
                    self.ball,
                    inputs,
                    steps=self.steps,
                    random_start=True,
                    keep="last",
                )
            deltas["adversarial"], log = attack.delta, attack.log(inputs)
        if self.clean > 0:
            deltas["clean"] = None
        total = torch.zeros((), device=hidden.device)
        for bn_branch, (loss, _, _) in losses_of(deltas).items():
            total = total + (self.clean if bn_branch == "clean" else 1 - self.clean) * loss.mean()
            log["selfie" if bn_branch == "clean" else "selfie_adv"] = loss.mean().detach()
        yield Loss(total, log)

    def _patches(self, pixels: Tensor) -> Tensor:
        """Cut images (B, C, H, W) into patches, row by row of the grid: (B * grid^2, C, H / grid, W / grid)."""
        grid = self.grid
        self.check_image_size(*pixels.shape[-2:])
        parts = pixels.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # (B, C, grid, h, grid, w)
        return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # (B, grid, grid, C, h, w) -> (B * grid^2, C, h, w)
