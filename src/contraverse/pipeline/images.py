"""Runs on images: their rows and labels, the backbone or model that they start from, and how it is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from contraverse.data import ImageData, ImageSplits, ImageTask, get_image_task, load_images
from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.data.images.lazy import LazyPixels
from contraverse.data.images.load import is_local
from contraverse.data.images.transforms import Augment
from contraverse.errors import UserError
from contraverse.evaluation import predict
from contraverse.evaluation.images import find_clusters, matched_accuracy
from contraverse.models import ImageModel, evaluating, is_image_model
from contraverse.models.backbones import TIMM, build_backbone, is_backbone
from contraverse.models.image import ClassifierInit
from contraverse.models.opening import listed
from contraverse.pipeline.folder import model_dir
from contraverse.pipeline.measure import measure_probe
from contraverse.pipeline.result import Counting, Say
from contraverse.pipeline.steps import Steps
from contraverse.pipeline.text import hub_names
from contraverse.recipes import ImageModelConfig, ImageRunConfig
from contraverse.types import UNLABELLED

_UNDER_ATTACK = ("robust_accuracy", "eval_robust_accuracy")


class ImageSteps(Steps[ImageSplits, ImageModel]):
    """Steps of a run on images."""

    config: ImageRunConfig

    @property
    def supervised(self) -> bool:
        return super().supervised and self.config.data.clusters is None

    def rows_on_hub(self) -> list[str]:
        source = self.config.data.source
        if isinstance(source, str):
            return [] if is_local(source) else [source]
        return hub_names(get_image_task(self.config.task)) if source is None else []

    def model_on_hub(self) -> bool:
        return self.config.model.name.startswith(TIMM) and self.config.model.pretrained

    def load(self) -> ImageSplits:
        return load_images(get_image_task(self.config.task), **self.config.data.where())

    def check_rows(self, splits: ImageSplits) -> None:
        train = splits.need("train")
        if self.supervised and train.labels is None:
            hint = "put the images of each class into a folder of its own, or name a table's column with --label; "
            hint += "or train without labels: simclr, acl-ds"
            raise UserError(f"{self.config.recipe} needs labels, and the training rows have none", hint=hint)
        if self.config.evaluation.noise:
            raise UserError("noise is for texts, and these rows are images", where="evaluation.noise")
        height, width = train.pixels.shape[-2:]
        self.method.check_image_size(height, width)
        if self.supervised:
            self._check_validation(splits)
        if self._own_targets and self.config.data.pseudo_labels is not None:
            raise UserError(
                "the model's own predictions are the target, and no teacher is asked",
                where="data.pseudo_labels",
                hint="leave it out; uat with method.target=teacher reads them",
            )

    @property
    def _own_targets(self) -> bool:
        """True where the method learns from unlabelled rows without a teacher."""
        return self.method.uses_unlabelled and self.method.teacher is None

    def _check_validation(self, splits: ImageSplits) -> None:
        """Refuse to choose the best weights by figures of validation images that are not measured."""
        patience = self.config.train.early_stopping_patience
        if splits.validation is None and patience is not None:
            raise UserError(
                f"{patience} evaluations without a better one, and there are no validation images to evaluate on",
                where="train.early_stopping_patience",
                hint="set data.validation_fraction above 0, or leave it out: the last weights are then kept",
            )
        attacked = self.config.evaluation.robust_validation and self.config.evaluation.epsilons
        chosen = self.config.train.arguments.get("metric_for_best_model")
        if splits.validation is not None and chosen in _UNDER_ATTACK and not attacked:
            raise UserError(
                f"{chosen} is to choose the best weights, and no validation image is attacked",
                where="train.metric_for_best_model",
                hint="set it to accuracy, or evaluation.robust_validation=true and a radius in evaluation.epsilons",
            )

    def drop_labels(self, splits: ImageSplits) -> None:
        """Remove the labels, and keep them for a probe; with ``validation_fraction: 0`` no image is set aside."""
        train, data = splits.need("train"), self.config.data
        if train.labels is None:
            return
        splits.hidden = train.labels
        splits.train = replace(train, labels=None)
        if splits.validation is None:
            everything = f"all {len(train):,} training images are seen, those that other runs validate on among them"
            splits.notes.append(f"{everything}, without labels: data.validation_fraction={data.validation_fraction:g}")
            if splits.test is None:
                hint = "set data.validation_fraction above 0 to test on images that are set aside"
                splits.notes.append(f"no image is left to probe the encoder on: {hint}")
        unused = f", so that data.labels: {data.labels} changes nothing" if data.labels not in (None, "all") else ""
        splits.notes.append(f"{self.config.method.name} does not use the labels of {self.config.task}{unused}")

    def hide_labels(self, splits: ImageSplits) -> None:
        """Hide labels as ``data.labels`` says, and leave out images without one that no teacher or method uses."""
        train, settings, method = splits.need("train"), self.config.data, self.method
        assert train.labels is not None
        known = train.has_label
        if settings.labels is not None and settings.labels != "all":
            known = torch.zeros(len(train), dtype=torch.bool)
            known[train.labelled_rows(settings.labels, settings.seed)] = True
            if not train.has_label.all():
                labelled = int(train.has_label.sum())
                kept = f"data.labels: {settings.labels} keeps {int(known.sum()):,} of {labelled:,} labels"
                splits.notes.append(f"{kept}, and --labels all every one")
        if known.all():
            return
        others = int((~known).sum())
        if settings.pseudo_labels is None and not method.uses_unlabelled:
            splits.train = train.select(known.nonzero()[:, 0].tolist())
            trained = f"trained on the {len(splits.train):,} labelled images of {len(train):,}"
            splits.notes.append(f"{trained}: {method.name} leaves the other {others:,} out")
            return
        splits.hidden = train.labels
        splits.train = replace(train, labels=torch.where(known, train.labels, UNLABELLED))
        kept = f"{len(train) - others:,} of {len(train):,} images keep their label"
        teacher = settings.pseudo_labels or "the model as it starts"
        others_have = "the others are trained on without" if self._own_targets else f"{teacher} predicts the others"
        splits.notes.append(f"{kept}; {others_have}")

    def row_bytes(self, data: ImageData) -> Iterator[bytes]:
        yield str(tuple(data.pixels.shape)).encode()
        if isinstance(data.pixels, LazyPixels):
            yield data.pixels.digests().tobytes()
            return
        yield data.pixels.contiguous().numpy().data  # type: ignore[misc]  # a buffer, which need not be copied

    def assign_pseudo_labels(self, splits: ImageSplits) -> None:
        """Let the run that ``data.pseudo_labels`` names predict the labels of the images that have none.

        How often it is right is measured: ``splits.figures``. A method that learns from a teacher's logits gets them of
        all images; another gets the predicted classes in the place of the missing labels. With ``data.clusters`` the
        classes are the clusters of its encoder's features.

        Raises:
            UserError: the run is not finished, or has other classes.
        """
        if self.config.data.pseudo_labels is None or self.method.requires != "labels":
            return
        train = splits.need("train")
        teacher = self._load_teacher(train)
        if self.config.data.clusters is not None:
            self._assign_clusters(splits, train, teacher, self.config.data.clusters)
            return
        assert train.labels is not None
        # The teacher was fine-tuned on clean images through its clean batch norm (ACL, step ii).
        logits = torch.from_numpy(
            predict(teacher, train, self.config.evaluation.batch_size, bn_branch="clean")
        )  # (N, C)
        known = train.labels != UNLABELLED  # (N,)
        _measure_teacher(splits, logits.argmax(1), known)
        if self.method.teacher == "targets":
            self.method.set_targets(logits, known)
        else:
            train.labels = torch.where(known, train.labels, logits.argmax(1))

    def check_teacher(self, splits: ImageSplits) -> None:
        if self.config.data.pseudo_labels is not None and self.method.requires == "labels":
            self._load_teacher(splits.need("train"))

    def _load_teacher(self, train: ImageData) -> ImageModel:
        """Load the model of the run that ``data.pseudo_labels`` names; for clusters its classes do not matter."""
        folder = self.config.data.pseudo_labels
        assert folder is not None
        place = model_dir(folder)
        if not is_image_model(place):
            raise UserError("a model of texts is here", where=f"data.pseudo_labels: {folder}")
        teacher = ImageModel.load(place)
        if self.config.data.clusters is None and list(teacher.labels or ()) != list(train.label_names or ()):
            classes = listed(teacher.labels) if teacher.labels else "nothing"
            raise UserError(
                f"the teacher tells {classes} apart, and the images are of {listed(train.label_names or ())}",
                where="data.pseudo_labels",
            )
        return teacher

    def _assign_clusters(self, splits: ImageSplits, train: ImageData, encoder: ImageModel, clusters: int) -> None:
        config = self.config
        labels = find_clusters(
            encoder, train, clusters, seed=config.data.seed, batch_size=config.evaluation.batch_size
        )  # (N,)
        splits.train = replace(train, labels=labels, label_names=tuple(f"cluster {k}" for k in range(clusters)))
        truth = splits.hidden
        if truth is not None and (known := truth != UNLABELLED).any():
            right = matched_accuracy(labels[known], truth[known])
            some = "" if known.all() else " of those with a label"
            agreement = f"{right:.1f} %{some} lie in the one of their class"
            splits.notes.append(f"{clusters} clusters in the place of labels; {agreement}")

    def init_model(self, splits: ImageSplits) -> tuple[ImageModel, list[str]]:
        labels, name = self.class_names(splits), self.config.model.name
        model, notes, classes = init_image_model(self.config.model, splits.task, labels)
        model.image_size = tuple(splits.need("train").pixels.shape[-2:])
        check_image_size(model, name)
        if self.needs_own_teacher() and classes != labels:
            raise self.no_teacher(listed(labels or ()))
        if self.method.teacher == "copy" and is_backbone(name) and not name.startswith(TIMM):
            notes.append(f"{name} is drawn at random, and is its own teacher: begin from a trained encoder with --init")
        # Without weights of its own, and refused by a model that has no pooler: better now than when a run has begun.
        model.add_heads({name: spec for name, spec in self.method.heads.items() if spec.kind == "pooler"})
        return model, notes

    def check_model(self) -> None:
        init_image_model(self.config.model, get_image_task(self.config.task), None)

    def check_architecture(self, splits: ImageSplits | None) -> None:
        """Build a backbone of timm's without its weights: it may be impossible as dual, or take no such images.

        Where timm is missing, and no setting needs it, the run itself reports that.

        Raises:
            UserError: the settings or the images do not go with it.
        """
        settings = self.config.model
        try:
            encoder, width, _ = build_backbone(settings.name, pretrained=False, timm=settings.timm)
        except UserError:
            if settings.dual or settings.timm:
                raise
            return
        model = ImageModel(encoder, width, backbone=settings.name, dual=settings.dual)
        if splits is not None:
            model.image_size = tuple(splits.need("train").pixels.shape[-2:])
            check_image_size(model, settings.name)

    def views(self, splits: ImageSplits) -> OneView | TwoViews:
        settings = self.config.data.views
        flip = settings.flip if settings.flip is not None else 0.5 * splits.task.flip
        cropped = settings.kind == "crop-flip"
        augment: Augment = CropFlip(padding=settings.padding * cropped, flip=flip * cropped)  # else the image itself
        if settings.kind == "simclr":
            augment = SimCLRAugment(
                strength=settings.strength,
                flip=flip,
                blur=settings.blur,
                resample=settings.resample,
                smallest_crop=settings.smallest_crop,
            )
        return TwoViews(augment) if self.method.image_views == 2 else OneView(augment)

    def trained_model(self, model: ImageModel) -> ImageModel:
        model = super().trained_model(model)
        if self.config.data.clusters is not None and self.method.trainable == "all":
            model = model.copy_for_task(dual=model.dual)  # an encoder: telling clusters apart was the way, not the end
        return model

    def source_columns(self, splits: ImageSplits) -> dict[str, Any]:
        return {"columns": 1, "read_from": None}

    def training_figures(self, splits: ImageSplits) -> dict[str, float]:
        return splits.figures

    def measure(
        self, splits: ImageSplits, model: ImageModel, *, say: Say, counting: Counting, test: bool
    ) -> dict[str, Any]:
        if model.labels is None or self.config.data.clusters is not None:
            return self._probe(splits, model, say)
        return self.measure_classifier(splits, model, say=say, counting=counting)

    def _probe(self, splits: ImageSplits, model: ImageModel, say: Say) -> dict[str, Any]:
        """Measure an encoder by a linear classifier, where the labels are known that training did not read."""
        split: Literal["test", "validation"] = "test" if splits.test is not None else "validation"
        rows: ImageData | None = getattr(splits, split)
        if splits.hidden is None or rows is None:
            return {"split": "none", "metrics": {}}
        train = replace(splits.need("train"), labels=splits.hidden, label_names=rows.label_names).labelled()
        say(f"Probing: a linear classifier on the features of {len(train):,} images, tested on {len(rows):,}")
        return {"split": split, **measure_probe(model, train, rows, self.config.evaluation.batch_size)}


def _measure_teacher(splits: ImageSplits, predicted: torch.Tensor, known: torch.Tensor) -> None:
    """Measure the teacher's accuracy, where true labels are there to compare with.

    On all training images whose label is known to anybody, as ACL does, and on those whose label training does not get.

    Args:
        splits: gets the figures and a note.
        predicted: (N,) classes.
        known: (N,) bool, images whose label training gets.
    """
    truth = splits.hidden
    if truth is None:
        return
    right, labelled = predicted == truth, truth != UNLABELLED
    splits.figures["teacher_accuracy"] = 100 * float(right[labelled].float().mean())
    if (others := ~known & labelled).any():
        splits.figures["teacher_accuracy_unlabelled"] = 100 * float(right[others].float().mean())
        some = f"{splits.figures['teacher_accuracy_unlabelled']:.1f} % of the {int(others.sum()):,} other images"
        some += "" if torch.equal(others, ~known) else " whose label is known"
        splits.notes.append(f"the teacher is right on {some}")


def check_image_size(model: ImageModel, name: str) -> None:
    """Run the model on a black image of its ``image_size``, which some networks refuse.

    Raises:
        UserError: it refuses it, or gives no features (B, width).
    """
    assert model.image_size is not None
    height, width = model.image_size
    hint = f"scale the images with --size, or build the network for them: --set model.timm.img_size={height}"
    try:
        with torch.no_grad(), evaluating(model):
            h = model({"pixel_values": torch.zeros(1, 3, height, width, device=model.device)}, want=("h",)).h
    except Exception as error:  # whatever the network's forward pass raises, often an AssertionError
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{name} takes no images of {height} x {width}: {why}", where="model.name", hint=hint
        ) from error
    if not isinstance(h, torch.Tensor) or h.shape != (1, model.width):
        shape = tuple(h.shape) if isinstance(h, torch.Tensor) else type(h).__name__
        raise UserError(
            f"{name} gives features of shape {shape} of an image, not (1, {model.width})", where="model.timm"
        )


def init_image_model(
    settings: ImageModelConfig, task: ImageTask, labels: Sequence[str] | None
) -> tuple[ImageModel, list[str], list[str] | None]:
    """Build the model that training starts from.

    Returns:
        The model, notes for the user, and the classes of the classifier that it had before.

    Raises:
        UserError: no such model, or one that does not fit.
    """
    path, notes = Path(settings.name), list[str]()
    at_random = is_backbone(settings.name) and not (settings.name.startswith(TIMM) and settings.pretrained)
    if settings.arch is not None and not path.is_file():
        raise UserError("names the backbone of a file of weights", where="model.arch", hint="leave it out")
    classifier: ClassifierInit = "zero"
    if settings.classifier_init == "default" or (settings.classifier_init == "auto" and at_random):
        classifier = "default"
    if is_backbone(settings.name) or not path.exists():
        mean, std = (task.mean, task.std) if at_random else (None, None)
        model = ImageModel.from_pretrained(
            settings.name,
            labels=labels,
            dual=settings.dual,
            mean=mean,
            std=std,
            classifier_init=classifier,
            pretrained=settings.pretrained,
            timm=settings.timm,
        )
        return model, notes, None
    if settings.timm:
        hint = "a trained model keeps what it was made with: leave it out"
        raise UserError("only a new backbone of timm's takes settings", where="model.timm", hint=hint)
    if (path / "config.json").is_file():
        raise UserError("a model of texts is here, and this is a task of images", where=settings.name)
    before = ImageModel.load(path) if path.is_dir() else ImageModel.from_checkpoint(path, arch=settings.arch)
    model = before.copy_for_task(labels, dual=settings.dual, bn_branch=settings.bn_branch, classifier_init=classifier)
    if before.labels and labels and before.labels != list(labels):
        anew = "begins at zero" if classifier == "zero" else "is drawn anew"
        notes.append(f"{settings.name} tells {listed(before.labels)} apart: the classifier {anew}")
    if before.dual and not settings.dual:
        notes.append(f"goes on with the {settings.bn_branch} batch norm of {settings.name}")
    return model, notes, before.labels
