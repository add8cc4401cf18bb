"""Settings of a run that are not those of the paper's experiment, and settings that no paper gives."""

from typing import Any, NamedTuple

from contraverse.recipes.recipe import Experiment, Ours, choose, find_recipe
from contraverse.recipes.resolve import configure
from contraverse.recipes.schema import RunConfig, dotted

_USERS = frozenset(
    {
        *("recipe", "task", "paper", "method.name"),
        *("data.text", "data.image", "data.label", "data.seed", "data.on_bad_row", "data.delimiter", "data.encoding"),
        "data.cache",
        "data.in_memory",
        *("evaluation.sts", "evaluation.batch_size", "evaluation.diagnostics"),
        *("train.seed", "train.data_seed", "train.bf16", "train.fp16", "train.tf32", "train.use_cpu"),
        *("train.logging_steps", "train.save_total_limit", "train.report_to", "train.disable_tqdm"),
    }
)
"""A paper's experiment with another of these is that experiment all the same."""


class Difference(NamedTuple):
    """A setting by dotted name, what the run has and what the paper has; None where one of them does not set it."""

    setting: str
    value: Any
    paper: Any


def experiment_of(config: RunConfig) -> Experiment | None:
    """The paper's experiment on the task of ``config``; None where no paper has one."""
    return choose(find_recipe(config.recipe).experiments, config.task, config.model.name)


def differences(config: RunConfig) -> list[Difference]:
    """The settings in which ``config`` is not the paper's experiment on its task; none where there is no experiment.

    Rows of the user's own, the seed, precision and logging are no differences.
    """
    experiment = experiment_of(config)
    if experiment is None:
        return []
    settings = {"model.name": experiment.model}
    papers = dict(dotted(configure(config.recipe, task=config.task, paper=True, settings=settings).model_dump()))
    runs = dict(dotted(config.model_dump()))
    changed = [
        Difference(name, runs.get(name), papers.get(name))
        for name in dict.fromkeys([*papers, *runs])
        if name not in _USERS and runs.get(name) != papers.get(name)
    ]
    if config.data.source is None:
        return changed
    return [difference for difference in changed if difference.setting.split(".")[:2] != ["data", "source"]]


def ours(config: RunConfig) -> list[tuple[Ours, Any]]:
    """Settings that the paper's experiment leaves open or has otherwise, with the run's value (None for ``data``)."""
    experiment = experiment_of(config)
    values = dict(dotted(config.model_dump()))
    return [(open_, values.get(open_.setting)) for open_ in (experiment.ours if experiment else ())]
