"""File of a study: its typed sections. Imports without torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from contraverse.errors import UserError, suggestion
from contraverse.recipes.schema import Section

Grid = dict[str, list[Any]]


class Entry(Section):
    """A line of the table: a recipe, its settings, and settings of its own to select from.

    ``start``: label in the study's ``starts`` of the pre-training whose model this run starts from.
    """

    recipe: str
    settings: dict[str, Any] = {}
    space: Grid = {}
    start: str | None = None


class Start(Section):
    """A pre-training that several cells of a seed share: a recipe, and its settings beside the task's rows.

    ``start``: label of another that this one itself starts from, as DeACL from SimCLR.
    """

    recipe: str
    settings: dict[str, Any] = {}
    start: str | None = None


class Selection(Section):
    """Selection of settings, stated before anything is trained.

    ``criterion``: the metrics of validation rows whose mean is maximised, for all tasks or by task. ``space``: values
    of each setting, the same for all methods that have the setting. ``seeds``: each choice is the mean over them.
    """

    criterion: Annotated[list[str], Field(min_length=1)] | dict[str, Annotated[list[str], Field(min_length=1)]]
    space: Grid = {}
    seeds: list[int] = Field(min_length=1)

    def criterion_of(self, task: str) -> list[str]:
        """Metrics that decide on ``task``."""
        return self.criterion[task] if isinstance(self.criterion, dict) else self.criterion


class Stopping(Section):
    """Rule by which seeds are added, stated before: until each difference is decided, or ``most`` seeds are done.

    A difference is decided where its 95 % interval leaves 0 out, or lies within ``margin`` of it on both sides.
    ``metrics``: columns that the rule looks at, None for all of the table that are in percent.
    """

    margin: float = Field(default=1.0, gt=0)
    most: int = Field(default=10, ge=2)
    metrics: list[str] | None = None


class Claim(Section):
    """A question "does ``of`` help?" that the study answers: ``first`` less ``second``, on each of ``metrics``.

    ``tasks``: of the study's, None for all.
    """

    of: str
    first: str
    second: str
    metrics: list[str] = Field(min_length=1)
    tasks: list[str] | None = None


class StudyConfig(Section):
    """Everything that decides a study.

    ``question``: question that the study answers. ``text``: Markdown beside its table. ``scale``: ``paper`` with
    a paper's model, rows and settings, or ``small``; ``shows``: the paper's tables and figures that it is of;
    ``holds_for``: model and rows in a few words, beside an answer.
    ``tasks``: by name the settings of each task, ``task`` among them where the name is another. ``starts``:
    pre-trainings by label, ``start_settings``: of all of them. ``methods``: lines of the table by label. ``settings``:
    of every cell. ``seeds``: of training, in the test stage. ``baseline``: the label that the others are compared with,
    ``pairs``: further pairs, the second subtracted from the first; ``compare``: the only pairs, in the place of both.
    ``metrics``: columns of the table, None for all. ``stopping``: when seeds are no longer added. ``claims``: questions
    about a method that the table answers. ``printed``: figures of a paper by task, label and column, shown beside ours
    and marked. ``archived``: the lines were made before studies were a command, and are taken by their labels, whatever
    the configuration says.
    """

    name: str = Field(pattern=r"^[\w-]+$")
    question: str
    text: str = ""
    scale: Literal["paper", "small"] | None = None
    shows: str = ""
    holds_for: str = ""
    tasks: dict[str, dict[str, Any]] = Field(min_length=1)
    starts: dict[str, Start] = {}
    start_settings: dict[str, Any] = {}
    methods: dict[str, Entry] = Field(min_length=1)
    settings: dict[str, Any] = {}
    seeds: list[int] = Field(min_length=1)
    select: Selection | None = None
    baseline: str
    pairs: list[tuple[str, str]] = []
    compare: list[tuple[str, str]] | None = None
    metrics: list[str] | None = None
    stopping: Stopping | None = None
    claims: list[Claim] = []
    printed: dict[str, dict[str, dict[str, float]]] = {}
    archived: bool = False

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed twice")
        return seeds

    @model_validator(mode="after")
    def _check_labels(self) -> "StudyConfig":
        labels = [self.baseline, *(label for pair in self.pairs + (self.compare or []) for label in pair)]
        labels += [label for claim in self.claims for label in (claim.first, claim.second)]
        labels += [label for printed in self.printed.values() for label in printed]
        for label in labels:
            if label not in self.methods:
                raise UserError(f'no method of the study is labelled "{label}"', hint=suggestion(label, self.methods))
        started = [(label, entry.start) for label, entry in self.methods.items()]
        started += [(label, start.start) for label, start in self.starts.items()]
        for label, name in started:
            if name is not None and name not in self.starts:
                hint = suggestion(name, self.starts) if self.starts else "the study has no starts"
                raise UserError(f'no start of the study is labelled "{name}"', where=label, hint=hint)
        for task in [*self.printed, *(task for claim in self.claims for task in claim.tasks or ())]:
            if task not in self.tasks:
                raise UserError(f'the study has no task "{task}"', hint=suggestion(task, self.tasks))
        if self.select is not None and isinstance(self.select.criterion, dict):
            for task in self.tasks.keys() - self.select.criterion.keys():
                raise UserError(f'no criterion for the task "{task}"', where="select.criterion")
        return self

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Pairs of labels whose difference the table holds: each method with the baseline, then the further pairs."""
        if self.compare is not None:
            return self.compare
        pairs = [(label, self.baseline) for label in self.methods if label != self.baseline]
        return list(dict.fromkeys(pairs + self.pairs))


def shipped_studies() -> dict[str, Path]:
    """Files of the studies that come with the package, by name."""
    folder = Path(__file__).with_name("studies")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
