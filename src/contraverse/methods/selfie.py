"""Selfie (Trinh et al., 2019), clean and adversarial: which of the hidden patches belongs here."""

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.errors import UserError
from contraverse.functional import Norm
from contraverse.methods.settings import EPSILON, STEP_SIZE, Epsilon, Steps, StepSize
from contraverse.models.modes import attacking
from contraverse.types import Batch, BNBranch, ForwardCall, ForwardCalls, HeadCall, HeadSpec, Loss, Method

Grid = Annotated[int, Field(ge=2, description="patches along a side of an image")]
Hidden = Annotated[int, Field(ge=2, description="patches that are hidden")]
CleanShare = Annotated[float, Field(ge=0, le=1, description="of the clean loss; what is left is the adversarial one's")]


class Selfie(Method):
    """Patches of an image are hidden; from those that are seen, each is to be told from the other hidden ones.

        v_m = u(seen patches) + place of patch m
        l   = -1/M sum_m log exp(v_m . h_m) / sum_k exp(v_m . h_k)
        L   = c l(x) + (1 - c) max_{||delta|| <= epsilon} l(x + delta)

    h are the patches' features, u is attention over those that are seen, and k runs over the M hidden patches of the
    same image. c = 1 is Selfie; c = 1/2 is its adversarial form, with which Adv-SS pre-trains and ACL compares. The
    maximum is sought by PGD on all pixels from a start uniform in the ball, in eval mode; the last of k iterates is
    trained on. Which patches are hidden is drawn anew for each image and step, and is the same in all its passes.

    Batch: images, whose sides are multiples of ``grid``. Cost: k (F + b) + 2 (F + B) = 26F with the defaults, 3F less
    with c = 0; 3F with c = 1. F is a pass of all patches, as dear as one of the image, and of the head, which adds 9 M
    multiplications to the 555 M of ResNet-18. The clean images go through a dual model's clean batch norms, the
    adversarial ones through its adversarial ones.

    Departures: the whole backbone reads patches, so that all of it is pre-trained; Selfie pre-trains the first three
    of ResNet-50's four stages. Attention is 128 wide, places are sines and cosines where Selfie learns them, and
    scores are divided by the root of 128. The cross-entropy reads scores; Adv-SS gives it their softmax, of which it
    takes another. Adv-SS attacks in training mode, where each step moves the running statistics of batch norm.

    Args:
        clean: c, share of the clean loss, in [0, 1].
        grid: patches along a side, >= 2: 4 x 4 of 8 x 8 pixels in CIFAR's images.
        hidden: M, >= 2 and below ``grid`` squared.
        epsilon: largest norm of a perturbation, in pixels of [0, 1], > 0.
        step_size: > 0.
        steps: k, >= 1.
        norm: ``"linf"`` or ``"l2"``, over a whole image.
    """

    name = "selfie"
    summary = "hidden patches of an image are told apart by those that are seen, also under attack"
    paper = "Selfie; ACL"
    equation = "the patch classification of Selfie; Table 1 of ACL"
    requires = "inputs"
    modality = "images"
    heads = {"patches": HeadSpec(dim=128, kind="patches")}

    @validate_call
    def __init__(
        self,
        *,
        clean: CleanShare = 0.5,
        grid: Grid = 4,
        hidden: Hidden = 4,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 10,
        norm: Norm = "linf",
    ) -> None:
        super().__init__()
        if hidden >= grid**2:
            raise ValueError(f"hidden={hidden} leaves nothing to be seen of {grid} x {grid} patches")
        self.ball = NormBall(epsilon, step_size, norm)
        self.clean, self.grid, self.hidden, self.steps = clean, grid, hidden, steps
        self.bn_branch: BNBranch = "adversarial" if clean < 1 else "clean"

    @property
    def cost(self) -> str:  # type: ignore[override]
        """3F for each loss that counts, and 2F for each step of the attack."""
        return f"{3 * (self.clean > 0) + (2 * self.steps + 3) * (self.clean < 1)}F"

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of so many pixels part into the patches.

        Raises:
            UserError: a side is no multiple of the grid.
        """
        if height % self.grid or width % self.grid:
            raise UserError(
                f"images of {height} x {width} pixels do not part into {self.grid} x {self.grid} patches",
                hint="resize them, or choose another method.grid",
            )

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        rows, places = len(inputs.values), self.grid**2
        hidden, visible = (
            torch.rand(rows, places, device=inputs.values.device).argsort(1).tensor_split([self.hidden], 1)
        )
        patches, answers = self._patches(inputs.values), torch.arange(self.hidden, device=hidden.device).repeat(rows)

        def each(deltas: dict[BNBranch, Tensor | None]) -> dict[BNBranch, Objective]:
            """The loss of each row (B,) by bn_branch, of images perturbed so, and the scores that it reads."""
            images = {"pixel_values": patches}
            moved = {bn_branch: None if delta is None else self._patches(delta) for bn_branch, delta in deltas.items()}
            outs = model(
                ForwardCalls(tuple(ForwardCall(images, delta, ("h",), bn_branch) for bn_branch, delta in moved.items()))
            )
            given = [(out.h.unflatten(0, (rows, places)), visible, hidden) for out in outs]
            calls = [HeadCall("patches", features, out) for features, out in zip(given, outs, strict=True)]
            outs = model(
                ForwardCalls(
                    tuple(ForwardCall(call, bn_branch=bn_branch) for bn_branch, call in zip(deltas, calls, strict=True))
                )
            )
            objectives = {}
            for bn_branch, out in zip(deltas, outs, strict=True):
                scores = out.heads["patches"].float()  # (B, M, M)
                loss = F.cross_entropy(scores.flatten(0, 1), answers, reduction="none").view(rows, -1).mean(1)
                objectives[bn_branch] = Objective(loss, scores)
            return objectives

        deltas, log = dict[BNBranch, Tensor | None](), dict[str, Tensor]()
        if self.clean < 1:
            with attacking(model):
                attack = pgd(
                    lambda delta: each({"adversarial": delta})["adversarial"],
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
        for bn_branch, (loss, _, _) in each(deltas).items():
            total = total + (self.clean if bn_branch == "clean" else 1 - self.clean) * loss.mean()
            log["selfie" if bn_branch == "clean" else "selfie_adv"] = loss.mean().detach()
        yield Loss(total, log)

    def _patches(self, pixels: Tensor) -> Tensor:
        """Of images (B, C, H, W), row by row of the grid: (B * grid^2, C, H / grid, W / grid)."""
        grid = self.grid
        self.check_image_size(*pixels.shape[-2:])
        parts = pixels.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # (B, C, grid, h, grid, w)
        return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
