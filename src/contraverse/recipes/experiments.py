"""A paper's experiment: its settings on its tasks with its model, and those settings that are not the paper's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

NOT_RUN = "paper scale: not run"


class Ours(NamedTuple):
    """A setting (by dotted name, or ``data`` for all rows) that is not the paper's, and why it is as it is."""

    setting: str
    why: str


@dataclass(frozen=True)
class Experiment:
    """What a paper ran: ``contraverse train RECIPE --task TASK --paper``.

    ``source``: paper, tables and section. ``model``: the encoder, on the Hugging Face Hub. ``settings``: by dotted
    name, over those of the recipe. ``own``: the settings of the method that go with the data set; they hold without
    ``--paper`` as well. ``ours``: what the paper leaves open or has otherwise. ``run``: at which scale the project
    ran it.
    """

    source: str
    tasks: tuple[str, ...]
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    ours: tuple[Ours, ...] = ()
    run: str = NOT_RUN

    @property
    def all_settings(self) -> dict[str, Any]:
        """Model, settings and the method's own, by dotted name."""
        return {"model.name": self.model, **self.own, **self.settings}


def choose(experiments: Sequence[Experiment], task: str, model: str | None = None) -> Experiment | None:
    """The experiment on ``task``: that with ``model`` or, if there is none, with one of its family; else the first."""
    there = [experiment for experiment in experiments if task in experiment.tasks]
    if model is not None:
        exact = [experiment for experiment in there if _last(experiment.model) == _last(model)]
        same = [experiment for experiment in there if _family(experiment.model) == _family(model)]
        there = exact or same or there
    return there[0] if there else None


def _last(model: str) -> str:
    return Path(model).name.lower()


def _family(model: str) -> str:
    """``roberta`` of ``FacebookAI/roberta-base``, or of a folder whose configuration says so."""
    try:
        written = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        return str(written["model_type"]).lower()
    except (OSError, ValueError, KeyError, TypeError):
        return _last(model).split("-")[0]
