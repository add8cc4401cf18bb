"""Any convolutional backbone, with a perturbation added to its pixels and, if wanted, dual batch norm."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.models import checkpoints, image_export, image_storage, own, predicting
from contraverse.models.backbones import IMAGENET, Normalisation, build_backbone, is_backbone, switch_checkpointing
from contraverse.models.chunks import chunked
from contraverse.models.dual_bn import DualBatchNorm, routed, to_dual, to_plain
from contraverse.models.heads import build_head, find_head
from contraverse.models.modes import channels_last, default_layout
from contraverse.models.plain import PlainImageModel, normalised
from contraverse.types import (
    NOT_REQUESTED,
    Batch,
    BNBranch,
    ForwardCalls,
    HeadCall,
    HeadSpec,
    Inputs,
    Outputs,
    Wanted,
)

ClassifierInit = Literal["default", "zero"]
"""Weights of a new classifier: as torch draws a linear layer's, or zeros, with which ACL starts to fine-tune."""


class ImageModel(predicting.Predictor):
    """A backbone, its linear classifier (where there are labels) and projection heads, for pixels in [0, 1].

    The normalisation is a part of the model, so that an epsilon is in pixels everywhere. Build one with
    `from_pretrained`, `from_checkpoint` or `load`, or around a module of your own.

    Args:
        encoder: normalised pixels (B, C, H, W) -> features (B, width); with ``dual``, its batch norms are replaced.
        width: of the features.
        backbone: its name, for `load` to build it again; None for a module of one's own.
        labels: class names in the order of the logits; None for an encoder.
        dual: whether every batch norm, those of heads included, has a set for clean and one for adversarial inputs.
        mean, std: of the normalisation, a value for each channel.
        image_size: height and width of the images that it is for, where that is known: of an export.
        timm: arguments that a backbone of timm was made with, besides its name.

    Raises:
        UserError: not as many means as deviations, a deviation that is not above 0, or ``dual`` of an encoder that has
            no batch norm.
    """

    modality = "images"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        *,
        backbone: str | None = None,
        labels: Sequence[str] | None = None,
        dual: bool = False,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        image_size: Sequence[int] | None = None,
        timm: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.timm = dict(timm or {})
        self.encoder = channels_last(to_dual(encoder) if dual else encoder)
        if dual and not any(isinstance(part, DualBatchNorm) for part in self.encoder.modules()):
            raise UserError(
                f"{backbone or type(encoder).__name__} has no batch norm that could be dual",
                where="dual",
                hint="leave dual out (model.dual=false): each pass of layer or group norm is normalised by itself",
            )
        self.register_state_dict_post_hook(default_layout)
        self.width, self.backbone, self.dual = width, backbone, dual
        self.labels = list(labels) if labels is not None else None
        self.image_size = tuple(image_size) if image_size is not None else None
        self.set_normalisation(mean, std)
        self.classifier = nn.Linear(width, len(labels)) if labels is not None else None
        self.heads = nn.ModuleDict()
        self.head_specs: dict[str, HeadSpec] = {}

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "resnet18",
        *,
        labels: Sequence[str] | None = None,
        dual: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bn_branch: BNBranch = "adversarial",
        classifier_init: ClassifierInit = "default",
        pretrained: bool = True,
        timm: Mapping[str, Any] | None = None,
    ) -> Self:
        """A backbone to train: drawn at random, pre-trained by timm, or taken from a model that was trained before.

        Args:
            name: of `BACKBONES`, drawn at random; ``timm/<name>``, with timm's weights; a folder that `save` wrote;
                or a file of weights, as `from_checkpoint` reads it.
            labels: class names, for a classifier; None for an encoder.
            dual: see the class.
            mean, std: of the normalisation; None for the trained model's own, ImageNet's for a random one.
            bn_branch: which set of a dual model's batch norms is taken where ``dual`` is false. See `copy_for_task`.
            classifier_init: weights of a classifier that is new, not the trained model's own.
            pretrained: of timm's backbones: with its weights, or drawn at random.
            timm: of timm's backbones: further arguments of ``timm.create_model``, as ``{"img_size": 32}``.

        Raises:
            UserError: no such backbone, timm is not installed, or what is in the file or folder is no such model.
        """
        path = Path(name)
        if path.exists() and not is_backbone(str(name)):
            trained = cls.from_checkpoint(path) if path.is_file() else cls.load(path)
            model = trained.copy_for_task(labels, dual=dual, bn_branch=bn_branch, classifier_init=classifier_init)
            model.set_normalisation(mean or model.mean, std or model.std)
            return model
        encoder, width, before = build_backbone(str(name), pretrained=pretrained, timm=timm)
        mean, std = mean or before[0], std or before[1]
        model = cls(encoder, width, backbone=str(name), labels=labels, dual=dual, mean=mean, std=std, timm=timm)
        model._begin_classifier(classifier_init)
        return model

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        labels: Sequence[str] | None = None,
        arch: str | None = None,
        normalisation: Normalisation | None = None,
    ) -> Self:
        """Others' weights, by their key names, in eval mode; the file tells the backbone.

        See `contraverse.models.checkpoints` for the layouts that are known: torchvision's, ACL's and RobustBench's.

        Args:
            path: what ``torch.save`` wrote (read with ``weights_only=True``), or safetensors.
            labels: class names in the order of the logits; None numbers them. Where the file has no classifier, a new
                one is drawn for ``labels``.
            arch: name of the backbone, where the file does not tell it.
            normalisation: mean and std of each channel; None for the file's own. Where it has none, ImageNet's for a
                ResNet, and none for wide and pre-activation networks.

        Raises:
            UserError: no such file, weights that fit no backbone whole, or more or fewer ``labels`` than logits.
        """
        model, _ = checkpoints.load(Path(path), cls, labels, arch=arch, normalisation=normalisation)
        assert isinstance(model, cls)
        return model

    @classmethod
    def from_module(
        cls,
        network: nn.Module,
        labels: Sequence[str] | None = None,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        image_size: Sequence[int] | None = None,
    ) -> Self:
        """Anybody's network of images, in eval mode, to be attacked and measured; its weights are shared, not copied.

        Args:
            network: pixels (B, C, H, W) -> logits (B, classes), or an output with the field ``logits``.
            labels: class names in the order of the logits; None counts the logits of a grey image and numbers them.
            mean: of each channel: the network gets ``(pixels - mean) / std``. By default it gets pixels in [0, 1].
            std: see ``mean``.
            image_size: height and width of its images; None tries usual ones where the classes are counted.

        Raises:
            UserError: no module, or it gives no logits (B, classes) for an image.
        """
        model = own.image_model(cls, network, labels, mean, std, image_size)
        assert isinstance(model, cls)
        return model

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters(), self._mean).device

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise with these from now on, a value for each channel.

        Raises:
            UserError: not as many means as deviations, or a deviation that is not above 0.
        """
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise UserError(
                f"cannot normalise with mean {list(mean)} and std {list(std)}",
                hint="give a mean and a std for each channel, no std 0",
            )
        self.mean, self.std = tuple(mean), tuple(std)
        for name, values in (("_mean", self.mean), ("_std", self.std)):
            value = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            before = self._buffers.get(name)
            self.register_buffer(name, value if before is None else value.to(before), persistent=False)

    def add_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        for name, spec in heads.items():
            if name not in self.heads:
                if spec.kind not in ("projection", "mlp", "patches"):
                    raise UserError(f"a head of kind {spec.kind} reads tokens, and images have none")
                head = build_head(spec, self.width, embedding_shape=(0, self.width)).to(self.device)
                self.heads[name] = (to_dual(head) if self.dual else head).train(self.training)
                self.head_specs[name] = spec

    def freeze_encoder(self) -> None:
        self.encoder.requires_grad_(False)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **others: Any
    ) -> None:
        """Recompute layers in the backward pass, where the backbone can; called by the trainer.

        Raises:
            UserError: there is batch norm, whose statistics would count each batch twice, or the backbone cannot.
        """
        switch_checkpointing(self, self.encoder)

    @chunked
    def forward(
        self,
        batch: Batch | HeadCall | ForwardCalls,
        *,
        delta: Tensor | None = None,
        want: Sequence[Wanted] = ("logits",),
        bn_branch: BNBranch = "clean",
    ) -> Outputs | tuple[Outputs, ...]:
        """Run the backbone once.

        Args:
            batch: ``pixel_values`` (B, C, H, W) in [0, 1]; one channel is repeated where the normalisation has more.
                Or a call of one head on a pass that was made, or several passes, each with arguments of its own.
            delta: (B, C, H, W), added to the pixels before the normalisation.
            want: any of ``"inputs"``, ``"h"``, ``"z"``, ``"logits"``, and names of heads.
            bn_branch: which set of a dual model's batch norms is used and, in training mode, updated; others ignore it.

        Raises:
            ValueError: a head is wanted that the model does not have, tokens, or logits of an encoder; another number
                of channels; or no such branch.
        """
        if isinstance(batch, ForwardCalls):
            return batch.run(self)
        want = (want,) if isinstance(want, str) else want
        with routed(self, bn_branch) if self.dual else nullcontext():
            if isinstance(batch, HeadCall):
                return batch.outputs.with_head(batch.head, find_head(self.heads, batch.head)(*batch.inputs))
            pixels = batch["pixel_values"]
            inputs = NOT_REQUESTED
            if "inputs" in want:
                everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=pixels.device)
                inputs = Inputs(pixels.detach(), everywhere, 0.0, 1.0)
                if len(want) == 1:
                    return Outputs(inputs=inputs)
            if missing := {"tokens", "embedded", "pooled"}.intersection(want):
                raise ValueError(f"a model of images has no {missing.pop()}: take h")
            if "logits" in want and self.classifier is None:
                raise ValueError("an encoder has no logits: load it with labels=[...]")
            h = self.encoder(self.normalise(pixels if delta is None else pixels + delta))
            return Outputs(
                logits=self.classifier(h) if "logits" in want and self.classifier is not None else NOT_REQUESTED,
                z=find_head(self.heads, "z")(h) if "z" in want else NOT_REQUESTED,
                h=h if "h" in want else NOT_REQUESTED,
                inputs=inputs,
                heads={name: find_head(self.heads, name)(h) for name in want if name not in Outputs._fields},
            )

    def normalise(self, pixels: Tensor) -> Tensor:
        """``(pixels - mean) / std``, channels last, which convolutions run faster on.

        Raises:
            ValueError: another number of channels than the normalisation has.
        """
        if pixels.shape[1] not in (1, len(self.mean)):
            raise ValueError(f"pixel_values of {pixels.shape[1]} channels, and the model takes {len(self.mean)}")
        return normalised(pixels, self._mean, self._std)

    def _logits(self, inputs: Any, batch_size: int, bn_branch: BNBranch) -> np.ndarray:
        return predicting.predict_images(self, inputs, batch_size, bn_branch)

    def copy_for_task(
        self,
        labels: Sequence[str] | None = None,
        *,
        dual: bool = False,
        bn_branch: BNBranch = "adversarial",
        classifier_init: ClassifierInit = "default",
    ) -> Self:
        """A copy for another task: this encoder without its heads, and its classifier if it is for exactly ``labels``.

        Args:
            labels: class names; a classifier for others than this model's is drawn anew. None for an encoder.
            dual: whether the copy has dual batch norm: both sets of this model's, or twice its single one.
            bn_branch: which set of a dual model's batch norms the copy has where ``dual`` is false. The papers
                fine-tune and test with the adversarial one.
            classifier_init: weights of a classifier that is drawn anew.
        """
        encoder = copy.deepcopy(self.encoder)
        if not dual:
            encoder = to_plain(encoder, bn_branch)
        model = type(self)(
            encoder,
            self.width,
            backbone=self.backbone,
            labels=labels,
            dual=dual,
            mean=self.mean,
            std=self.std,
            image_size=self.image_size,
            timm=self.timm,
        )
        if self.classifier is not None and model.classifier is not None and model.labels == self.labels:
            model.classifier.load_state_dict(self.classifier.state_dict())
        else:
            model._begin_classifier(classifier_init)
        return model.to(self.device).train(self.training)

    def plain(self, bn_branch: BNBranch = "adversarial") -> PlainImageModel:
        """A copy with one set of batch norms, in eval mode: pixels in [0, 1] -> logits, or features without labels.

        An ordinary module, which knows nothing of contraverse's types: for export, and for others' attacks.
        """
        encoder = to_plain(copy.deepcopy(self.encoder), bn_branch)
        return PlainImageModel(encoder, copy.deepcopy(self.classifier), self.mean, self.std).to(self.device).eval()

    def save(self, folder: str | Path) -> Path:
        """Write a folder that `load` reads: the weights as safetensors, heads included, and ``contraverse.json``.

        The folder appears whole or not at all; a model that is there is replaced.

        Raises:
            UserError: ``folder`` holds something else.
        """
        return image_storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, encoder: nn.Module | None = None) -> Self:
        """Read what `save` wrote, in eval mode.

        Args:
            folder: the model's.
            encoder: where the saved model was built around a module of one's own: another like it, to be filled.

        Raises:
            UserError: the folder holds no model of images, ``encoder`` is missing, or it has other weights.
        """
        model = image_storage.load(Path(folder), cls, encoder)
        assert isinstance(model, cls)
        return model

    def export_weights(self, path: str | Path, bn_branch: BNBranch = "adversarial") -> Path:
        """Write the backbone as one safetensors file, of the names that torchvision (or its authors) give it.

        The classifier is ``fc``. The normalisation is not in it: see ``mean`` and ``std``.

        Args:
            path: of the file, which appears whole or not at all.
            bn_branch: which set of a dual model's batch norms.
        """
        return image_export.export_weights(self, Path(path), bn_branch)

    def export_onnx(self, path: str | Path, bn_branch: BNBranch = "adversarial", *, size: int | None = None) -> Path:
        """Write one ONNX file: ``pixels`` (batch, C, H, W) in [0, 1] -> ``logits``, ``features`` without labels.

        Args:
            path: of the file, which appears whole or not at all.
            bn_branch: which set of a dual model's batch norms.
            size: H and W, in pixels; None for the model's ``image_size``, or 32 where that is not known.

        Raises:
            UserError: onnx is not installed.
        """
        return image_export.export_onnx(self, Path(path), bn_branch, size)

    def _begin_classifier(self, init: ClassifierInit) -> None:
        if init == "zero" and self.classifier is not None:
            nn.init.zeros_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
