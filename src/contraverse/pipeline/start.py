"""What training starts from: an encoder, or the model that another run left."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from contraverse.data import ImageData, ImageSplits, ImageTask, TextData, get_image_task
from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.data.images.transforms import Augment
from contraverse.data.labels import in_order_of
from contraverse.errors import UserError
from contraverse.evaluation import predict
from contraverse.evaluation.images import find_clusters, matched_accuracy
from contraverse.methods import METHODS, UAT, DeACL
from contraverse.models import AnyModel, ImageModel, TextModel, evaluating, is_image_model, load_model
from contraverse.models.backbones import TIMM, is_backbone
from contraverse.models.folders import SETTINGS
from contraverse.models.image import ClassifierInit
from contraverse.models.loading import Origin, classes_of, commit_of, load_config
from contraverse.models.opening import listed, open_model
from contraverse.models.st_folder import Modules, read_modules
from contraverse.pipeline.lengths import token_notes
from contraverse.pipeline.rows import AnySplits, class_names
from contraverse.recipes import ImageModelConfig, ImageRunConfig, ModelConfig, RunConfig
from contraverse.types import UNLABELLED, HeadSpec, Method


def model_dir(folder: str | Path) -> Path:
    """The model of a finished run, or ``folder`` itself where it is a model's.

    Raises:
        UserError: the run is not finished, or there is no model.
    """
    folder = Path(folder)
    where = str(folder)
    if not (folder / "config.yaml").is_file():
        if _is_model(folder):
            return folder
        hint = "give the folder of a finished run, or its model/ folder"
        raise UserError("no run and no model is here", where=where, hint=hint)
    if not (folder / "evaluation.json").is_file():
        raise UserError("this run is not finished", where=where, hint="finish it first: contraverse train --resume")
    if not _is_model(folder / "model"):
        raise UserError("this run has no model any more", where=where, hint="repeat it from its config.yaml")
    return folder / "model"


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or is_image_model(folder)


def start(config: RunConfig, splits: AnySplits, method: Method) -> tuple[AnyModel, list[str]]:
    """The model that training begins with, and what its user should know.

    Raises:
        UserError: no such model, or one that does not fit.
    """
    labels, name = class_names(splits, method), config.model.name
    model: AnyModel
    if isinstance(config, ImageRunConfig):
        assert isinstance(splits, ImageSplits)
        model, notes, told = _start_image_model(config.model, splits.task, labels)
        model.image_size = tuple(splits.need("train").pixels.shape[-2:])
        check_size(model, name)
    else:
        model, notes = start_model(config.model, labels, method.heads)
        told = _classes(config.model) if isinstance(method, UAT) and name != "minilm" else None
    taught = isinstance(method, UAT) and method.target == "teacher"
    if taught and getattr(config.data, "pseudo_labels", None) is None and told != labels:
        raise UserError(
            f"uat learns from a teacher, and {name} has no classifier of {listed(labels or ())}",
            where="model.name",
            hint="begin from the run of a classifier with --init, or of images name one with data.pseudo_labels",
        )
    if isinstance(method, DeACL) and is_backbone(name) and not name.startswith(TIMM):
        notes.append(f"{name} is drawn at random, and is its own teacher: begin from a trained encoder with --init")
    # Without weights of its own, and refused by a model that has no pooler: better now than when a run has begun.
    model.add_heads({name: spec for name, spec in method.heads.items() if spec.kind == "pooler"})
    for split in ("train", "validation", "test"):
        if isinstance(model, TextModel) and isinstance(rows := getattr(splits, split), TextData):
            notes += token_notes(model, rows, name=split)
    return model, notes


def check_size(model: ImageModel, name: str) -> None:
    """Run the model on a black image of its ``image_size``, for nothing: to see that it takes that size.

    Raises:
        UserError: it does not, or gives no features (B, width).
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


def find_start(config: RunConfig) -> None:
    """Build an encoder from what ``model.name`` is, for nothing: to see that it can be done.

    Raises:
        UserError: no such model, or one that does not fit.
    """
    if isinstance(config, ImageRunConfig):
        _start_image_model(config.model, get_image_task(config.task), None)
    else:
        start_model(config.model, None, {})


def assign_pseudo_labels(config: RunConfig, splits: AnySplits, method: Method) -> None:
    """Let the run that ``data.pseudo_labels`` names say what the images are that have no label.

    How often it is right is measured: ``splits.figures``. `UAT` gets its predictions of all images; another method its
    classes, in the place of the labels that are missing. With ``data.clusters`` the classes are the clusters of its
    encoder's features.

    Raises:
        UserError: the run is not finished, or tells other classes apart.
    """
    if not isinstance(config, ImageRunConfig) or config.data.pseudo_labels is None or method.requires != "labels":
        return
    train = splits.need("train")
    assert isinstance(splits, ImageSplits)
    assert isinstance(train, ImageData)
    teacher = load_teacher(config, train)
    if config.data.clusters is not None:
        _learn_clusters(config, splits, train, teacher, config.data.clusters)
        return
    assert train.labels is not None
    # The teacher was fine-tuned on clean images through its clean batch norm (ACL, step ii).
    logits = torch.from_numpy(predict(teacher, train, config.evaluation.batch_size, bn_branch="clean"))
    known = train.labels != UNLABELLED
    _judge(splits, logits.argmax(1), known)
    if isinstance(method, UAT):
        method.set_targets(logits, known)
    else:
        train.labels = torch.where(known, train.labels, logits.argmax(1))


def _judge(splits: ImageSplits, told: torch.Tensor, known: torch.Tensor) -> None:
    """Count how often the teacher's classes (N,) are right: of all training images whose label is known to anybody, as
    ACL does, and of those whose label training does not get; ``known`` (N,) are the others."""
    truth = splits.hidden
    if truth is None:
        return
    right, labelled = told == truth, truth != UNLABELLED
    splits.figures["teacher_accuracy"] = 100 * float(right[labelled].float().mean())
    if (asked := ~known & labelled).any():
        splits.figures["teacher_accuracy_unlabelled"] = 100 * float(right[asked].float().mean())
        some = f"{splits.figures['teacher_accuracy_unlabelled']:.1f} % of the {int(asked.sum()):,} other images"
        some += "" if torch.equal(asked, ~known) else " whose label is known"
        splits.notes.append(f"the teacher is right on {some}")


def load_teacher(config: ImageRunConfig, train: ImageData) -> ImageModel:
    """The model of the run that ``data.pseudo_labels`` names: of any classes where clusters are to be found.

    Raises:
        UserError: the run is not finished, is one of texts, or tells other classes apart.
    """
    assert config.data.pseudo_labels is not None
    teacher = load_model(model_dir(config.data.pseudo_labels))
    if not isinstance(teacher, ImageModel):
        raise UserError("a model of texts is here", where=f"data.pseudo_labels: {config.data.pseudo_labels}")
    if config.data.clusters is None and list(teacher.labels or ()) != list(train.label_names or ()):
        told = listed(teacher.labels) if teacher.labels else "nothing"
        raise UserError(
            f"the teacher tells {told} apart, and the images are of {listed(train.label_names or ())}",
            where="data.pseudo_labels",
        )
    return teacher


def _learn_clusters(
    config: ImageRunConfig, splits: ImageSplits, train: ImageData, encoder: ImageModel, clusters: int
) -> None:
    found = find_clusters(encoder, train, clusters, seed=config.data.seed, batch_size=config.evaluation.batch_size)
    splits.train = replace(train, labels=found, label_names=tuple(f"cluster {k}" for k in range(clusters)))
    truth = splits.hidden
    if truth is not None and (asked := truth != UNLABELLED).any():
        right, some = matched_accuracy(found[asked], truth[asked]), "" if asked.all() else " of those with a label"
        said = f"{right:.1f} %{some} lie in the one of their class"
        splits.notes.append(f"{clusters} clusters in the place of labels; {said}")


def views_of(config: RunConfig, splits: AnySplits) -> OneView | TwoViews | None:
    """The random views of training images; none of texts."""
    if not isinstance(config, ImageRunConfig):
        return None
    assert isinstance(splits, ImageSplits)
    settings = config.data.views
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
    return TwoViews(augment) if METHODS[config.method.name].image_views == 2 else OneView(augment)


def _start_image_model(
    settings: ImageModelConfig, task: ImageTask, labels: Sequence[str] | None
) -> tuple[ImageModel, list[str], list[str] | None]:
    """The model, notes, and what the start told apart before."""
    path, notes = Path(settings.name), list[str]()
    drawn = is_backbone(settings.name) and not (settings.name.startswith(TIMM) and settings.pretrained)
    classifier: ClassifierInit = "zero"
    if settings.classifier_init == "default" or (settings.classifier_init == "auto" and drawn):
        classifier = "default"
    if is_backbone(settings.name) or not path.exists():
        mean, std = (task.mean, task.std) if drawn else (None, None)
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
    before = ImageModel.load(path) if path.is_dir() else ImageModel.from_checkpoint(path)
    model = before.copy_for_task(labels, dual=settings.dual, bn_branch=settings.bn_branch, classifier_init=classifier)
    if before.labels and labels and before.labels != list(labels):
        anew = "begins at zero" if classifier == "zero" else "is drawn anew"
        notes.append(f"{settings.name} tells {listed(before.labels)} apart: the classifier {anew}")
    if before.dual and not settings.dual:
        notes.append(f"goes on with the {settings.bn_branch} batch norm of {settings.name}")
    return model, notes, before.labels


def start_model(
    settings: ModelConfig, labels: Sequence[str] | None, heads: Mapping[str, HeadSpec]
) -> tuple[TextModel, list[str]]:
    """The model that training begins with, and what its user should know.

    From a model that was trained before, the encoder is taken; its classifier, with its own order, if it tells
    ``labels`` apart, which the trainer matches with the rows'; and
    those of its heads that are among ``heads``, of the same kind and size. Everything else is drawn anew.

    Raises:
        UserError: no such model, or a count of layers that it does not have.
    """
    folder = Path(settings.name)
    if is_backbone(settings.name) and not folder.exists():
        raise UserError(f"{settings.name} reads images, and this is a task of texts", where="model.name")
    ours, notes = (folder / SETTINGS).is_file(), list[str]()
    modules = None
    if not ours and folder.is_dir():
        try:
            modules = read_modules(folder)
        except UserError as error:
            notes.append(f"{error.where} {error.what}: training starts from the network alone")
    origin = origin_of(settings) if modules is None else replace(origin_of(settings), name=str(modules.encoder))
    model = open_model(
        TextModel,
        origin,
        labels if labels is None else in_order_of(labels, classes_of(load_config(origin))),
        # A recipe's cls is the token that stands for the text: in a decoder, the last.
        pooling=None if settings.pooling == "cls" else settings.pooling,
        embedding=settings.embedding,
        max_length=settings.max_length,
        keep_layers=settings.keep_layers,
        reinit_layers=settings.reinit_layers,
    )
    notes += model.notes
    if model.pooling != settings.pooling:
        notes.append(f"{settings.name} reads from left to right: pooling {model.pooling}, not {settings.pooling}")
    if ours:
        trained = TextModel.load(folder, trust_remote_code=settings.trust_remote_code)
        if trained.pooling != model.pooling:
            notes.append(
                f"{settings.name} was trained with pooling {trained.pooling}, and goes on with {model.pooling}"
            )
        _take_heads(model, trained, heads)
    if modules is not None:
        notes += _left_of(modules, settings.name, model.pooling)
    return model, notes


def origin_of(settings: ModelConfig) -> Origin:
    """Name and conditions under which the configured model is loaded."""
    return Origin(**{name: getattr(settings, name) for name in Origin.__dataclass_fields__})


def pinned(config: RunConfig) -> RunConfig:
    """``config`` with the commit of the Hub model that was just loaded, so that it repeats the run."""
    commit = commit_of(origin_of(config.model)) if isinstance(config.model, ModelConfig) else None
    if commit is None:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": commit})})


def _left_of(modules: Modules, name: str, pooling: str) -> list[str]:
    """What training does not go on with of a sentence-transformers folder."""
    notes = []
    if modules.pooling != pooling:
        notes.append(f"{name} was trained with pooling {modules.pooling}, and goes on with {pooling}")
    left: list[str] = [spec.kind for spec in modules.specs if spec.kind != "normalize"]
    left += [f"the prompt {modules.default_prompt!r}"] if modules.default_prompt else []
    if left:
        notes.append(f"{name}: training goes on without {' and '.join(left)}")
    return notes


def _classes(settings: ModelConfig) -> list[str] | None:
    """The classes of the classifier in the configured model; None where there is none."""
    return classes_of(load_config(origin_of(settings)))


def _take_heads(model: TextModel, trained: TextModel, heads: Mapping[str, HeadSpec]) -> None:
    fitting = {
        name: spec
        for name, spec in heads.items()
        if trained.head_specs.get(name) == spec
        and (trained.width, trained.embedding_shape) == (model.width, model.embedding_shape)
    }
    model.add_heads(fitting)
    for name in fitting:
        model.heads[name].load_state_dict(trained.heads[name].state_dict())
