"""Attacks on any network: `attack` for single inputs, and wrappers by which evaluators measure it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contraverse.attacks import AttackSettings, LossOf, Objective, perturbation_inputs
from contraverse.errors import UserError
from contraverse.evaluation.attack_loop import LOSSES, ball_of, frozen, seeded
from contraverse.evaluation.predict import logits_of
from contraverse.functional import Norm
from contraverse.models import AnyModel, ImageModel, TextModel, attacking
from contraverse.models.inputs import text_data
from contraverse.models.own import unchanged
from contraverse.types import Batch, BNBranch


class AdversarialExamples(NamedTuple):
    """Adversarial inputs of N rows, in their order.

    Attributes:
        inputs: pixels (N, C, H, W) in [0, 1]; or word embeddings (N, T, D), for the argument ``inputs_embeds`` of a
            transformers model beside ``batch["attention_mask"]``.
        delta: perturbation, in the shape of ``inputs``: zero on padding, of norm at most epsilon for each row.
        logits: (N, C) float32, at ``inputs``.
        clean_logits: (N, C) float32, without a perturbation.
        success: (N,) bool, True where the class predicted at ``inputs`` is not the label.
        zero_grad_rows: number of gradients, over rows and steps, that were zero, not finite or lost to underflow. The
            attack was blind there: many of them, and failure is no evidence of robustness.
        batch: the clean inputs: ``pixel_values``; or ``input_ids`` and ``attention_mask`` (N, T), and token types.
    """

    inputs: Tensor
    delta: Tensor
    logits: Tensor
    clean_logits: Tensor
    success: Tensor
    zero_grad_rows: Tensor
    batch: dict[str, Tensor]


def attack(
    model: nn.Module,
    x: Any,
    y: Any,
    *,
    epsilon: float,
    attack: str = "pgd",
    norm: Norm | None = None,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = False,
    relative: bool = False,
    tokenizer: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    bn_branch: BNBranch = "adversarial",
) -> AdversarialExamples:
    """Attack ``model`` at the inputs ``x`` with labels ``y``: white-box, untargeted, in eval mode.

    Of all perturbations tried on a row, the one of largest loss is returned among those that change the prediction
    away from the label, or else among all. A row is attacked independently of the rows beside it.

    The model's weights, their ``.grad`` and ``requires_grad``, modes, device and the global random state are left as
    they were. Cost: ``restarts * (2 * steps + 1) + 2`` forward-units with one loss.

    Args:
        model: any network of images, pixels (B, C, H, W) -> logits (B, classes); a transformers
            ``...ForSequenceClassification`` with its ``tokenizer``; an `ImageModel` or a `TextModel`.
        x: images (N, C, H, W) in [0, 1], a tensor or an array; or a list of texts, or of pairs of texts.
        y: labels (N,): class ids.
        epsilon: radius of the ball, > 0: of a row's pixels, or of a sequence's word embeddings.
        attack: ``"pgd"`` or ``"apgd"``; see `contraverse.attacks.AttackSettings`.
        norm: ``"linf"`` or ``"l2"``; None for ``"linf"`` on images and ``"l2"`` on texts.
        steps: gradient steps, >= 1.
        step_size: length of a (first) step; None for 2.5 epsilon / steps with PGD and 2 epsilon with APGD.
        restarts: attempts on each row whose prediction is still its label; the second and later start at random.
        random_start: start the first attempt at random, too; else at zero.
        relative: ``epsilon`` and ``step_size`` are fractions of the norm of each row's own pixels or embeddings.
        tokenizer: of a transformers model.
        mean: of each channel: the network expects ``(x - mean) / std``, while ``x`` and ``epsilon`` stay in [0, 1].
            None where the network normalises by itself, or takes pixels in [0, 1].
        std: see ``mean``.
        batch_size: rows a batch.
        seed: of the random starts.
        bn_branch: set of a dual `ImageModel`'s batch norms.

    Returns:
        `AdversarialExamples`, on the device of ``x`` for images and of the model for texts.

    Raises:
        UserError: ``x`` is no such input or not in [0, 1], another number of labels, a label that is no class of the
            model, a regression, or an impossible setting.
    """
    if not 0 < epsilon < float("inf"):
        raise UserError(f"epsilon must be a finite number above 0, not {epsilon}")
    with torch.inference_mode(False), torch.enable_grad(), unchanged(model):
        pixels = None if is_text_model(model, tokenizer) else _pixels(x)
        with measurable(model, tokenizer=tokenizer, mean=mean, std=std, pixels=pixels) as target:
            settings = AttackSettings(
                attack=attack,
                norm=norm or ("l2" if pixels is None else "linf"),
                steps=steps,
                step_size=step_size,
                restarts=restarts,
                random_start=random_start,
                relative=relative,
                seed=seed,
                bn_branch=bn_branch,
            )
            if isinstance(target, TextModel):
                batch = _tokens(target, x)
            else:
                assert pixels is not None
                batch = {"pixel_values": pixels.to(target.device)}
            if len(target.labels or ()) < 2:
                raise UserError("an attack needs a classifier of two classes or more")
            labels = _labels(y, target, len(next(iter(batch.values()))))
            with attacking(target), frozen(target), seeded(seed):
                parts = [
                    _attack_batch(
                        target,
                        {name: value[first : first + batch_size] for name, value in batch.items()},
                        labels[first : first + batch_size],
                        first,
                        epsilon,
                        settings,
                    )
                    for first in range(0, len(labels), batch_size)
                ]
    device = pixels.device if pixels is not None else labels.device
    inputs, delta, logits, clean = (torch.cat(rows).to(device) for rows in list(zip(*parts, strict=True))[:4])
    return AdversarialExamples(
        inputs=inputs,
        delta=delta,
        logits=logits,
        clean_logits=clean,
        success=logits.argmax(1) != labels.to(device),
        zero_grad_rows=torch.stack([part.zero_grad_rows for part in parts]).sum().to(device),
        batch={name: value.to(device) for name, value in batch.items()},
    )


class _Part(NamedTuple):
    """Fields of `AdversarialExamples` for one batch."""

    inputs: Tensor
    delta: Tensor
    logits: Tensor
    clean_logits: Tensor
    zero_grad_rows: Tensor


def _attack_batch(
    model: AnyModel, batch: Batch, labels: Tensor, first: int, epsilon: float, settings: AttackSettings
) -> _Part:
    """Attack the rows ``first``, ``first + 1``, ... of all."""
    inputs = perturbation_inputs(model, batch)
    with torch.no_grad():
        clean = logits_of(model, batch, bn_branch=settings.bn_branch)  # (B, C)
    worst = _Worst(inputs.values, clean, labels)
    zero_grad_rows = torch.zeros((), dtype=torch.long, device=labels.device)
    losses = settings.losses(clean.shape[1])
    for attempt in range(settings.restarts * len(losses)):
        rows = (~worst.wrong).nonzero().squeeze(1)  # (R,)
        if not len(rows):
            break
        some = {name: value[rows] for name, value in batch.items()}
        there = perturbation_inputs(model, some)
        ball = ball_of(there, first + rows.cpu().numpy(), epsilon, settings, attempt)
        loss_of = worst.watch(model, some, rows, LOSSES[losses[attempt // settings.restarts]], settings.bn_branch)
        random = settings.random_start or attempt % settings.restarts > 0
        run = settings.spec.load()(loss_of, ball, there, steps=settings.steps, random_start=random)
        zero_grad_rows += run.zero_grad_rows
    return _Part(inputs.values + worst.delta, worst.delta, worst.logits, clean, zero_grad_rows)


class _Worst:
    """For each row of a batch the worst perturbation that an attack has tried.

    A perturbation under which the row is classified wrongly is worse than any other; among those, and among the others,
    the one of largest cross-entropy is the worst.
    """

    def __init__(self, values: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.labels, self.logits, self.delta = labels, logits.clone(), torch.zeros_like(values)
        self.wrong = torch.zeros_like(labels, dtype=torch.bool)
        self.ce = torch.full_like(logits[:, 0], -torch.inf)

    def watch(
        self, model: AnyModel, batch: Batch, rows: Tensor, loss: Callable[[Tensor, Tensor], Tensor], bn_branch: BNBranch
    ) -> LossOf:
        """Loss to maximize on ``rows`` (R,), of which ``batch`` is; each perturbation that it gets is considered."""
        labels = self.labels[rows]

        def loss_of(delta: Tensor) -> Objective:
            logits = logits_of(model, batch, delta, bn_branch=bn_branch)  # (R, C)
            self._consider(rows, delta.detach(), logits.detach())
            return Objective(loss(logits, labels), logits)

        return loss_of

    def _consider(self, rows: Tensor, delta: Tensor, logits: Tensor) -> None:
        labels = self.labels[rows]
        # A loss that overflowed is a success of the attack, not a reason to forget it.
        ce = F.cross_entropy(logits, labels, reduction="none").nan_to_num(nan=torch.inf)
        wrong = logits.argmax(1) != labels
        worse = (wrong & ~self.wrong[rows]) | ((wrong == self.wrong[rows]) & (ce > self.ce[rows]))
        rows = rows[worse]
        self.delta[rows], self.logits[rows], self.ce[rows] = delta[worse], logits[worse], ce[worse]
        self.wrong[rows] = wrong[worse]


@contextmanager
def measurable(
    model: nn.Module,
    *,
    tokenizer: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixels: Tensor | None = None,
) -> Iterator[AnyModel]:
    """Anybody's ``model`` as one of ours inside, in eval mode; its modes and configuration are put back afterwards.

    Args:
        model: see `attack`; an `ImageModel` or a `TextModel` stays as it is.
        tokenizer: of a transformers model.
        mean: see `attack`.
        std: see `attack`.
        pixels: images (N, C, H, W), whose shape a network of images takes.

    Raises:
        UserError: no tokenizer beside a transformers model, or a normalisation beside a model that has its own.
    """
    if isinstance(model, TextModel | ImageModel):
        if mean is not None or std is not None:
            raise UserError("mean and std are another network's", hint="a model of contraverse normalises by itself")
        yield model
        return
    with unchanged(model):
        if is_text_model(model, tokenizer):
            if tokenizer is None:
                raise UserError("a model of texts needs its tokenizer", hint="give tokenizer=...")
            network: Any = model  # of transformers: checked there
            yield TextModel.from_transformers(network, tokenizer)
            return
        assert pixels is not None
        channels = pixels.shape[1]
        mean, std = mean or (0.0,) * channels, std or (1.0,) * channels
        yield ImageModel.from_module(model, mean=mean, std=std, image_size=pixels.shape[-2:])


def is_text_model(model: nn.Module, tokenizer: Any = None) -> bool:
    """True for a `TextModel`, for a transformers classifier of sequences, and for what comes with a tokenizer."""
    return isinstance(model, TextModel) or tokenizer is not None or "ForSequenceClassification" in type(model).__name__


def _pixels(x: Any) -> Tensor:
    """Images (N, C, H, W) as float32.

    Raises:
        UserError: another shape, or values outside [0, 1].
    """
    pixels = x.detach().clone() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    if pixels.dim() != 4 or not len(pixels) or not pixels.is_floating_point():
        got = f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
        raise UserError(f"x must be floats (N, C, H, W) in [0, 1], got {got}", hint="bytes are divided by 255 first")
    low, high = pixels.min().item(), pixels.max().item()
    if not (low >= 0 and high <= 1):
        hint = "give images before normalisation, and the normalisation as mean=..., std=..."
        raise UserError(f"x must be in [0, 1], and is from {low:.3g} to {high:.3g}", hint=hint)
    return pixels.float()


def _tokens(model: TextModel, x: Any) -> dict[str, Tensor]:
    """Tokens of texts (N, T), padded to the longest, on the model's device."""
    data = text_data(x)
    if not len(data):
        raise UserError("x has no texts")
    columns = [list(column) for column in zip(*data.texts, strict=True)]
    tokens = model.tokenizer(
        *columns, truncation=True, max_length=model.max_length, padding=True, return_tensors="pt", verbose=False
    )
    return {name: value.to(model.device) for name, value in tokens.items()}


def _labels(y: Any, model: AnyModel, rows: int) -> Tensor:
    """Class ids (N,), on the model's device; names become ids.

    Raises:
        UserError: another number of labels than rows, or a label that is no class of the model.
    """
    names = list(model.labels or ())
    values = y.tolist() if hasattr(y, "tolist") else list(y)
    labels = [names.index(value) if value in names and isinstance(value, str) else value for value in values]
    if len(labels) != rows:
        raise UserError(f"{rows} rows in x, and {len(labels)} labels in y")
    for i, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(names):
            raise UserError(f"label {label!r} is none of the model's {len(names)} classes", where=f"y[{i}]")
    return torch.tensor(labels, device=model.device)
