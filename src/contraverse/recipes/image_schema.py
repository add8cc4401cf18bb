"""Configuration of a run on images: the sections in which it differs from one on texts."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from contraverse.errors import UserError
from contraverse.recipes.schema import EvaluationConfig, RunConfig, Section
from contraverse.units import Number


class ImageModelConfig(Section):
    """Backbone that training starts from.

    ``name``: of a backbone (``resnet18``, ``resnet20``, ``timm/...``), drawn at random but for timm's; a folder with a
    model; or a file of weights. ``dual``: batch norm with one set of statistics for clean and one for adversarial
    images. ``bn_branch``: the set that is taken where a dual model goes on with a single one. ``arch``: backbone of a
    file of weights that does not tell it. ``classifier_init``:
    weights of a classifier that is new: ``default``, as torch draws a linear layer's; ``zero``; ``auto``, zero on an
    encoder that was trained before, as ACL fine-tunes, and else drawn. ``pretrained``: of timm's backbones, whether
    with its weights. ``timm``: further arguments of timm's, as ``model.timm.img_size=32``.
    """

    name: str = "resnet18"
    dual: bool = False
    bn_branch: Literal["clean", "adversarial"] = "adversarial"
    arch: str | None = None
    classifier_init: Literal["auto", "default", "zero"] = "auto"
    pretrained: bool = True
    timm: dict[str, Any] = Field(default_factory=dict)


class ViewsConfig(Section):
    """The random views of an image: SimCLR's, the margin, crop and flip of fine-tuning, or none: the image itself.

    ``strength``, ``blur``, ``resample`` and ``smallest_crop`` are SimCLR's, the last as a share of the image's area: .1
    is ACL's, .08 SimCLR's own. ``padding`` is the width of the margin. ``flip``: probability of the mirror image, None
    for a half where the task's classes allow it and else 0.
    """

    kind: Literal["simclr", "crop-flip", "none"] = "crop-flip"
    strength: float = Field(default=1.0, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=1)
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    smallest_crop: float = Field(default=0.1, gt=0, le=1)
    padding: int = Field(default=4, ge=0)
    flip: float | None = Field(default=None, ge=0, le=1)


class ImageDataConfig(Section):
    """Source of the images, and the use of their labels.

    ``source``: a folder, an npz or Parquet file, files by split, ``digits``, a Hub id, or None for the task's own.
    ``image`` and ``label``: columns. ``size``: height and width that images are scaled to. ``seed``,
    ``validation_fraction`` and the counts of rows: as for texts, and with a fraction of 0 nothing is set aside.
    ``labels``: keep labels for so many training images, ``10%`` or a number, balanced over the classes; None or ``all``
    for every one. ``pseudo_labels``: a run whose model predicts the missing labels; without it such images are left
    out, unless the method uses unlabelled rows. ``clusters``: ignore the labels, and learn this number of clusters of
    the features of that run's encoder, made by k-means. ``views``: of training images. ``in_memory``: decode all
    images before training, or each when a batch is made; ``auto`` for the first up to 2 GiB of pixels a split.
    """

    source: str | dict[str, str] | None = None
    image: str | None = None
    label: str | None = None
    size: int | None = Field(default=None, ge=4)
    seed: int = Field(default=42, ge=0)
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    train_rows: int | None = Field(default=None, ge=1)
    validation_rows: int | None = Field(default=None, ge=1)
    test_rows: int | None = Field(default=None, ge=1)
    labels: str | float | None = None
    pseudo_labels: str | None = None
    clusters: int | None = Field(default=None, ge=2)
    views: ViewsConfig = ViewsConfig()
    on_bad_row: Literal["error", "skip"] = "error"
    in_memory: bool | Literal["auto"] = "auto"

    def where(self) -> dict[str, Any]:
        """Arguments of `contraverse.data.load_images`: the source, without the use of labels and the views."""
        return self.model_dump(exclude={"labels", "pseudo_labels", "clusters", "views"})

    @model_validator(mode="after")
    def _check_clusters(self) -> "ImageDataConfig":
        if self.clusters is not None and self.pseudo_labels is None:
            raise UserError(
                "no encoder to find them with", where="data.clusters", hint="name its run: data.pseudo_labels"
            )
        if self.clusters is not None and self.labels is not None:
            raise UserError("clusters are learnt without labels", where="data.labels", hint="leave one of them out")
        return self


class ImageEvaluationConfig(EvaluationConfig):
    """Evaluation of the trained model: under an attack on pixels, by default PGD-20 within 8/255 of each."""

    epsilons: list[Annotated[Number, Field(gt=0)]] = [8 / 255]
    attack: str = "pgd"
    norm: Literal["l2", "linf"] = "linf"
    steps: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _refuse_noise(self) -> "ImageEvaluationConfig":
        if self.noise:
            raise UserError("noise is for texts", where="evaluation.noise", hint="for images: evaluate --corruptions")
        if self.evasion:
            hint = "for images: evaluate --attack autoattack"
            raise UserError("evasion is for texts", where="evaluation.evasion", hint=hint)
        return self


class ImageRunConfig(RunConfig):
    """All that decides a run on images."""

    model: ImageModelConfig = ImageModelConfig()  # type: ignore[assignment]
    data: ImageDataConfig = ImageDataConfig()  # type: ignore[assignment]
    evaluation: ImageEvaluationConfig = ImageEvaluationConfig()
