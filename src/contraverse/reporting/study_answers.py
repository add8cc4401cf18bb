"""Answers of studies in words: does a method help, by how much, and how many seeds would tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from contraverse.evaluation.keys import MetricKey
from contraverse.evaluation.metrics import TABLE
from contraverse.evaluation.paired import PairedDifference
from contraverse.recipes.study_file import Claim, StudyConfig
from contraverse.reporting.names import MISSING, heading
from contraverse.reporting.study import Comparison, StudyTable, grid, interval

Verdict = Literal["helps", "costs", "makes no difference", "cannot be told yet"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
MARGIN = 1.0
"""Points within which two methods count as alike, where a study has no rule of its own."""


@dataclass(frozen=True)
class Next:
    """Seed that the stopping rule asks for: ``first`` less ``second`` on ``metric`` is not decided without it."""

    task: str
    first: str
    second: str
    metric: str
    seed: int


def verdict(paired: PairedDifference, metric: str, margin: float = MARGIN) -> Verdict:
    """Reading of a difference: whether its interval leaves 0 out, and on which side, or lies within ``margin`` of 0."""
    if paired.decided:
        row = TABLE.get(MetricKey.read(metric).metric)
        greater_is_better = row is None or row.greater_is_better
        return "helps" if (paired.low > 0) == greater_is_better else "costs"
    return "makes no difference" if paired.within(margin) else "cannot be told yet"


def what_it_takes(paired: PairedDifference, margin: float = MARGIN) -> str:
    """Size of a study that would find a difference of ``margin`` four times in five."""
    if paired.components is None:
        return "more than one seed"
    seeds = paired.seeds_to_detect(margin)
    if seeds is None:
        return f"more rows than {paired.rows:,}: no number of seeds finds {_points(margin)}"
    return f"about {seeds} seeds find {_points(margin)}"


@dataclass(frozen=True)
class Evidence:
    """A comparison that answers a claim; None where no pair of cells is finished."""

    study: StudyConfig
    claim: Claim
    comparison: Comparison | None = None
    task: str = ""

    @property
    def margin(self) -> float:
        """Points within which two methods count as alike."""
        return self.study.stopping.margin if self.study.stopping else MARGIN

    @property
    def verdict(self) -> Verdict:
        """See `verdict`."""
        c = self.comparison
        return "cannot be told yet" if c is None else verdict(c.paired, c.metric, self.margin)

    def row(self) -> list[str]:
        """Cells of the table of answers."""
        head = [self.claim.of, f"{self.claim.first} - {self.claim.second}"]
        where = [self.study.holds_for, f"[{self.study.name}](#{self.study.name})"]
        if self.comparison is None:
            return [
                *head,
                MISSING,
                MISSING,
                MISSING,
                MISSING,
                "cannot be told yet: no pair of cells is finished",
                *where,
            ]
        paired, metric = self.comparison.paired, self.comparison.metric
        takes = f": {what_it_takes(paired, self.margin)}" if self.verdict == "cannot be told yet" else ""
        figures = [self.task, heading(metric), interval(paired, metric), str(paired.seeds)]
        return [*head, *figures, self.verdict + takes, *where]


def evidence(studies: Sequence[tuple[StudyConfig, Sequence[StudyTable]]]) -> list[Evidence]:
    """Comparisons that answer the claims of ``studies``, by method; those without any come last.

    Args:
        studies: with their tables.
    """
    collected = []
    for study, tables in studies:
        for claim in study.claims:
            own = [
                Evidence(study, claim, c, table.task)
                for table in tables
                if claim.tasks is None or table.task in claim.tasks
                for metric in claim.metrics
                for c in table.comparisons
                if (c.first, c.second, c.metric) == (claim.first, claim.second, metric)
            ]
            collected += own or [Evidence(study, claim)]
    answered = [e for e in collected if e.comparison is not None]
    names = list(dict.fromkeys(e.claim.of for e in [*answered, *collected]))
    return sorted(collected, key=lambda e: names.index(e.claim.of))


def answers(studies: Sequence[tuple[StudyConfig, Sequence[StudyTable]]]) -> str:
    """Answers as Markdown: a sentence for each method that a claim is about, then the table of their evidence."""
    known = evidence(studies)
    if not known:
        return ""
    lines = [_sentence(name, list(own)) for name, own in groupby(known, key=lambda e: e.claim.of)]
    header = ["method", "difference", "task", "metric", "in points", "seeds", "answer", "holds for", "study"]
    return "\n".join([*lines, "", grid(header, [e.row() for e in known])]) + "\n"


def _sentence(name: str, own: Sequence[Evidence]) -> str:
    """Answer about a method: an item of a list, with one below for each study and baseline."""
    parts = []
    for _, compared in groupby(
        (e for e in own if e.comparison is not None), key=lambda e: (e.study.name, e.claim.second)
    ):
        parts.append(_against(list(compared)))
    question = f"- **Does {name} help?**"
    if not parts:
        return f"{question} It cannot be told yet: no pair of cells is finished."
    return f"{question} {parts[0]}" if len(parts) == 1 else "\n".join([question, *(f"    - {part}" for part in parts)])


def _against(compared: Sequence[Evidence]) -> str:
    """Answer of one study against one baseline, each reading with its differences and intervals."""
    by_verdict: dict[str, list[str]] = {}
    for e in sorted(compared, key=lambda e: VERDICTS.index(e.verdict)):
        assert e.comparison is not None
        figure = f"{heading(e.comparison.metric)} on {e.task} {interval(e.comparison.paired, e.comparison.metric)}"
        by_verdict.setdefault(e.verdict, []).append(figure)
    readings = [f"It {reading}: {'; '.join(figures)}." for reading, figures in by_verdict.items()]
    study, second = compared[0].study, compared[0].claim.second
    return f"Against {second}, with {study.holds_for} ([{study.name}](#{study.name})). {' '.join(readings)}"


def next_seeds(study: StudyConfig, tables: Sequence[StudyTable]) -> list[Next]:
    """Seeds that the study's stopping rule asks for, a difference each; none without a rule.

    A seed of the file that is not finished is next before any other.
    """
    rule = study.stopping
    if rule is None:
        return []
    asked = []
    for table in tables:
        for c in table.comparisons:
            looked_at = rule.metrics if rule.metrics is not None else [m for m in table.metrics if _in_percent(m)]
            open_still = not c.paired.decided and not c.paired.within(rule.margin)
            if c.metric in looked_at and open_still and c.paired.seeds < rule.most:
                done = min(_done(table, c.first), _done(table, c.second))
                seed = study.seeds[done] if done < len(study.seeds) else max(study.seeds) + 1 + done - len(study.seeds)
                asked.append(Next(table.task, c.first, c.second, c.metric, seed))
    return asked


def next_lines(asked: Sequence[Next]) -> list[str]:
    """`next_seeds` in words, a line for each seed of a task and pair."""
    lines = []
    for (task, first, second, seed), group in groupby(asked, key=lambda n: (n.task, n.first, n.second, n.seed)):
        lines.append(f"{task}: seed {seed} of {first} and {second} ({', '.join(heading(n.metric) for n in group)})")
    return lines


def _done(table: StudyTable, label: str) -> int:
    return max((mean.seeds for (method, _), mean in table.means.items() if method == label), default=0)


def _in_percent(metric: str) -> bool:
    return MetricKey.read(metric).metric in TABLE


def _points(margin: float) -> str:
    return "a point" if margin == 1 else f"{margin:g} points"
