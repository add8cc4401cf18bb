"""Dry runs: everything that would stop a run is tried without training, writing or asking the Hub."""

from dataclasses import dataclass, field

from contraverse.pipeline.steps import AnySplits, on_hub, steps_of
from contraverse.pipeline.validation import plan_validation
from contraverse.recipes import Stage


@dataclass(frozen=True)
class DryRun:
    """Result of a dry run.

    ``splits``: the rows as the method gets them; None where they are on the Hub. ``notes``: for the user, beside the
    rows' own notes. ``unread``: names on the Hub that were not read.
    """

    splits: AnySplits | None
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def dry_run(stage: Stage) -> DryRun:
    """Read the rows of ``stage``, build the model that it starts from and load its teacher.

    The model or teacher that an earlier stage is to leave is not there yet, and left out.

    Raises:
        UserError: what the run itself would raise before it trains.
    """
    steps, hub = steps_of(stage.config), on_hub(stage)
    splits = None if hub.rows else steps.load_and_prepare(test=True)
    result = DryRun(splits, unread=[*hub.rows, *hub.sts])
    if not hub.sts and steps.sts is not None:
        result.notes.extend(steps.sts.notes)
    if splits is not None:
        result.notes.extend(plan_validation(steps, splits).notes)
        if stage.teacher is None:
            steps.check_teacher(splits)
    if hub.model is not None:
        steps.check_architecture(splits)
        result.unread.append(hub.model)
    elif stage.init_from is None and splits is not None:
        result.notes.extend(steps.init_model(splits)[1])
    elif stage.init_from is None:
        steps.check_model()
    return result
