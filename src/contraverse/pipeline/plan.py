"""What a run would be stopped by, found without training, without writing, and without asking the Hub."""

from dataclasses import dataclass, field

from contraverse.data import ImageData
from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import ImageModel
from contraverse.models.backbones import build_backbone
from contraverse.pipeline.hub import on_hub, sts_of
from contraverse.pipeline.rows import AnySplits, load_and_prepare
from contraverse.pipeline.start import check_size, find_start, load_teacher, start
from contraverse.recipes import ImageRunConfig, Stage


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it is made.

    ``splits``: its rows as the method gets them; None where they are on the Hub. ``notes``: what its user should know
    beside the rows' own notes. ``unread``: what lies on the Hub and was not looked at.
    """

    splits: AnySplits | None
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def plan(stage: Stage) -> Plan:
    """Read the rows of ``stage``, build the model that it starts from and look for its teacher.

    What an earlier stage is to leave is not there yet, and not looked for.

    Raises:
        UserError: what the run itself would raise before it trains.
    """
    config = stage.config
    method = METHODS[config.method.name](**config.method.settings)
    hub = on_hub(stage)
    splits = None if hub.rows else load_and_prepare(config, method, test=True)
    found = Plan(splits, unread=[*hub.rows, *hub.sts])
    if not hub.sts and (sts := sts_of(config)) is not None:
        found.notes.extend(sts.notes)
    if splits is not None and stage.teacher is None and isinstance(config, ImageRunConfig):
        train = splits.need("train")
        assert isinstance(train, ImageData)
        if config.data.pseudo_labels is not None and method.requires == "labels":
            load_teacher(config, train)
    if hub.model is not None:
        if isinstance(config, ImageRunConfig):
            _check_architecture(config, splits)
        found.unread.append(hub.model)
    elif stage.init_from is None and splits is not None:
        found.notes.extend(start(config, splits, method)[1])
    elif stage.init_from is None:
        find_start(config)
    return found


def _check_architecture(config: ImageRunConfig, splits: AnySplits | None) -> None:
    """Build a backbone of timm's without its weights: to see that it can be dual, and takes the images' size.

    Where timm cannot be loaded, and nothing was set that only it can judge, the run itself will say so.

    Raises:
        UserError: it cannot be made so, or takes no such images.
    """
    try:
        encoder, width, _ = build_backbone(config.model.name, pretrained=False, timm=config.model.timm)
    except UserError:
        if config.model.dual or config.model.timm:
            raise
        return
    model = ImageModel(encoder, width, backbone=config.model.name, dual=config.model.dual)
    train = None if splits is None else splits.need("train")
    if isinstance(train, ImageData):
        model.image_size = tuple(train.pixels.shape[-2:])
        check_size(model, config.model.name)
