"""What a run would be stopped by, found without training, without writing, and without asking the Hub."""

from dataclasses import dataclass, field

from contraverse.data import ImageData, ImageTask, Task, any_task
from contraverse.data.images.sources import is_local as images_are_local
from contraverse.data.mixture import find_parts
from contraverse.data.reading import is_local as rows_are_local
from contraverse.methods import METHODS
from contraverse.models.backbones import TIMM, is_backbone
from contraverse.pipeline.rows import AnySplits, rows_for
from contraverse.pipeline.start import find_start, load_teacher, start
from contraverse.recipes import ImageRunConfig, RunConfig, Stage


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
    unread = _on_hub(config)
    splits = None if unread else rows_for(config, method, test=True)
    found = Plan(splits, unread=unread)
    if splits is not None and stage.teacher is None and isinstance(config, ImageRunConfig):
        train = splits.need("train")
        assert isinstance(train, ImageData)
        if config.data.pseudo_labels is not None and method.needs == "labels":
            load_teacher(config, train)
    if stage.init_from is None and _model_on_hub(config):
        unread.append(config.model.name)
    elif stage.init_from is None and splits is not None:
        found.notes.extend(start(config, splits, method)[1])
    elif stage.init_from is None:
        find_start(config)
    return found


def _model_on_hub(config: RunConfig) -> bool:
    name = config.model.name
    if isinstance(config, ImageRunConfig):
        return name.startswith(TIMM)
    return name != "minilm" and not is_backbone(name) and not rows_are_local(name)


def _on_hub(config: RunConfig) -> list[str]:
    """The data sets of the Hub that the run reads."""
    source, task = config.data.source, any_task(config.task)
    if isinstance(config, ImageRunConfig):
        if isinstance(source, str):
            return [] if images_are_local(source) else [source]
        return _own(task) if source is None else []
    parts = find_parts(source)
    if parts is None:
        if isinstance(source, str):
            return [] if rows_are_local(source) else [source]
        return _own(task) if source is None else []
    found = []
    for part in (part for listed in parts.values() for part in listed):
        if part.source is None:
            found += _own(any_task(part.task) if part.task else task)
        elif not rows_are_local(str(part.source)):
            found.append(str(part.source))
    return list(dict.fromkeys(found))


def _own(task: Task | ImageTask) -> list[str]:
    """The task's own data set; none where loading says so, or where it comes with a package."""
    return ["/".join(filter(None, task.hub))] if task.hub else []
