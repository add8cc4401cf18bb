"""A classifier or regressor under noise."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

import numpy as np
from torch.nn import Module

from contraverse.data import TextData
from contraverse.data.encoding import matched
from contraverse.errors import UserError, unknown
from contraverse.evaluation.bootstrap import (
    CLASS_METRICS,
    Bootstrap,
    Interval,
    confusions,
    correlations,
    interval,
)
from contraverse.evaluation.metrics import check_names, compute
from contraverse.evaluation.noise.detected import NoisyRate, noisy_rates
from contraverse.evaluation.noise.report import NoiseCell, NoiseExample, NoiseReport, NoiseSettings
from contraverse.evaluation.noise.texts import Answers, Key, NoisyRow, Texts, noisy_rows, word_pools
from contraverse.evaluation.predict import Progress, encode_data, labels_of, predict
from contraverse.models import AnyModel, TextModel
from contraverse.noise import mark_edits

RESAMPLES, RESAMPLES_OF_RANKS = 1000, 300
MOST_EXAMPLES = 12


class Scorer(Protocol):
    """A classifier of which only scores are known, as `contraverse.evasion.FunctionTarget`."""

    labels: list[str]

    def scores(self, rows: Sequence[Texts]) -> np.ndarray:
        """Give scores (N, C) of rows of texts, in order."""
        ...


def noise_robustness(
    model: AnyModel | Scorer,
    data: TextData,
    settings: NoiseSettings | None = None,
    *,
    metric: str = "accuracy",
    train: TextData | None = None,
    positive: str | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NoiseReport:
    """``metric`` of ``model`` on ``data`` clean and under each kind and strength of noise, in eval mode.

    A text is asked for once while its kind is measured, and so is a sequence of tokens: what the tokenizer undoes costs
    nothing. Inside of `contraverse.functional.sharing` each process answers its share of the batches.

    Args:
        model: a classifier or regressor of texts, or a function's scores.
        data: labelled rows, of one text or two.
        settings: of the noise; None for all kinds and strengths, drawn once.
        metric: a name in `METRICS`.
        train: training rows, of whose words ``append`` and ``prepend`` add those of other classes; None, or rows
            without classes: everyday words.
        positive: class whose recall matters; None where there is none. If the model holds a threshold for it
            (``model.detector``), recall and false positives at that threshold are measured, too.
        batch_size: rows a batch.
        progress: called with the rows done; they add up to `NoiseSettings.progress_total`.

    Raises:
        UserError: there are no rows or no labels, the model reads images, or ``metric`` or ``positive`` is none.
    """
    settings = settings or NoiseSettings()
    check_names([metric])
    function = None if isinstance(model, Module) else model
    if not (function or isinstance(model, TextModel)) or not isinstance(data, TextData):
        raise UserError("noise is for texts, and this model or these rows are images", hint="take --corruptions")
    data = cast(TextData, matched(data, model.labels))
    labels = labels_of(data)
    if not len(data):
        raise UserError("the data set has no rows to evaluate")
    names = data.label_names or ()
    if positive is not None and positive not in names:
        raise unknown("class", positive, names)

    def ask(texts: list[Texts]) -> np.ndarray:
        if function is not None:
            scores = function.scores(texts)
            _tell(progress, len(texts))
            return scores
        assert isinstance(model, TextModel)
        return predict(model, TextData(texts, None, None, data.columns), batch_size, progress=progress)

    def tokenize(texts: list[Texts]) -> list[Key]:
        if function is not None:  # its tokens are unknown: texts are the same where their characters are
            return [tuple(tuple(map(ord, text)) for text in row) for row in texts]
        assert isinstance(model, TextModel)
        encoded = encode_data(model, TextData(texts, None, None, data.columns))
        items = (encoded[i] for i in range(len(encoded)))
        return [tuple(tuple(item[name]) for name in ("input_ids", "token_type_ids") if name in item) for item in items]

    answers = Answers(tokenize, ask, data.texts)
    _tell(progress, len(data) - answers.asked)
    score = _Score(metric, labels, answers.clean.shape[1], names)
    saved = model.detector if isinstance(model, TextModel) else None
    detector = saved if positive is not None and saved and saved.positive == positive else None
    clean = score.outcomes(answers.clean)
    pools = word_pools(train, data)
    cells, outcomes, examples = list[CellCounts](), list[list[np.ndarray]](), list[NoiseExample]()
    detected = list[list[np.ndarray]]()  # by cell and draw, (N,) bool
    for kind in settings.kinds:
        for strength in settings.strengths:
            cell = CellCounts(kind, strength)
            outcomes.append([])
            detected.append([])
            for draw in range(settings.draws):
                asked = answers.asked
                rows = noisy_rows(data.texts, kind, strength, draw, settings, pools)
                texts = [row.texts for row in rows]
                logits = answers(texts)
                outcome = score.outcomes(logits)
                if detector is not None:
                    detected[-1].append(detector.detects(logits, names))
                cell.add(rows, data.texts, answers.same_tokens(texts, data.texts))
                outcomes[-1].append(outcome)
                if example := score.broken(clean, outcome, data.texts, rows, cell, examples):
                    examples.append(example)
                _tell(progress, len(data) - (answers.asked - asked))
            cells.append(cell)
        answers.forget()
    rates: Mapping[str, NoisyRate] = {}
    if detector is not None:
        rates = noisy_rates(
            labels == names.index(detector.positive),
            detector.detects(answers.clean, names),
            detected,
            [cell.untouched < len(data) for cell in cells],
            Bootstrap(len(data), RESAMPLES, settings.seed),
        )
    report = _report(score, clean, outcomes, cells, data, settings, positive, examples[:MOST_EXAMPLES])
    return replace(report, at_threshold=rates)


def _tell(progress: Progress | None, rows: int) -> None:
    if progress and rows > 0:
        progress(rows)


class CellCounts:
    """Counts of one kind and strength, over draws."""

    def __init__(self, kind: str, strength: int) -> None:
        self.kind, self.strength = kind, strength
        self.rows = self.changed = self.same = self.untouched = 0

    def add(self, rows: Sequence[NoisyRow], clean: Sequence[Texts], same: np.ndarray) -> None:
        """Count a draw; ``same`` (N,) bool says which rows have the tokens of the clean ones."""
        changed = np.array([row.texts != texts for row, texts in zip(rows, clean, strict=True)], dtype=bool)
        self.untouched = sum(row.eligible == 0 for row in rows)
        self.rows += len(rows)
        self.changed += int(changed.sum())
        self.same += int((changed & same).sum())

    def result(self, value: float, difference: Interval, recall: dict[str, float]) -> NoiseCell:
        same = self.same / self.changed if self.changed else None
        changed = self.changed / self.rows
        return NoiseCell(self.kind, self.strength, value, difference, self.untouched, changed, same, recall)


class _Score:
    """A metric on outcomes: predicted classes (N,), or of a regression scores (N,)."""

    def __init__(self, metric: str, labels: np.ndarray, outputs: int, names: Sequence[str]) -> None:
        self.metric, self.labels, self.outputs, self.names = metric, labels, outputs, names
        self.of_classes = metric in CLASS_METRICS
        self.resamples = RESAMPLES if self.of_classes else RESAMPLES_OF_RANKS

    def outcomes(self, logits: np.ndarray) -> np.ndarray:
        """Outcomes of logits (N, C), which are checked as the metric checks them."""
        compute([self.metric], logits, self.labels)
        return logits.argmax(1) if self.of_classes else logits[:, 0]

    def value(self, outcome: np.ndarray) -> float:
        return float(self.resampled(outcome, np.ones((1, len(outcome)), np.float32))[0])

    def resampled(self, outcome: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Metric (b,) of the resamples ``counts`` (b, N)."""
        if self.of_classes:
            return CLASS_METRICS[self.metric](confusions(self.labels, outcome, self.outputs, counts))
        return correlations(self.metric, outcome, self.labels, counts)

    def recall(self, outcomes: Sequence[np.ndarray]) -> dict[str, float]:
        """Percent of the rows of each class that are predicted as it, over draws."""
        if not self.of_classes:
            return {}
        right = np.mean([outcome == self.labels for outcome in outcomes], axis=0)
        return {
            name: 100 * float(right[self.labels == i].mean())
            for i, name in enumerate(self.names)
            if (self.labels == i).any()
        }

    def broken(
        self,
        clean: np.ndarray,
        outcome: np.ndarray,
        texts: Sequence[Texts],
        rows: Sequence[NoisyRow],
        cell: "CellCounts",
        known: Sequence[NoiseExample],
    ) -> NoiseExample | None:
        """First row that noise made wrong, for a kind without an example; no row is an example twice."""
        if not self.of_classes or cell.kind in {example.kind for example in known}:
            return None
        right = (clean == self.labels) & (outcome != self.labels)
        broken = [int(row) for row in np.flatnonzero(right)]
        shown = {example.row for example in known}
        row = next((row for row in broken if row not in shown), broken[0] if broken else None)
        if row is None:
            return None
        results = rows[row].results
        marked = tuple(
            mark_edits(text, results[i].edits) if i in results else text for i, text in enumerate(texts[row])
        )
        label, predicted = self._name(self.labels[row]), self._name(outcome[row])
        return NoiseExample(row, cell.kind, cell.strength, marked, label, predicted)

    def _name(self, label: int) -> str:
        return self.names[int(label)] if int(label) < len(self.names) else str(int(label))


def _report(
    score: _Score,
    clean: np.ndarray,
    outcomes: Sequence[Sequence[np.ndarray]],
    cells: Sequence[CellCounts],
    data: TextData,
    settings: NoiseSettings,
    positive: str | None,
    examples: Sequence[NoiseExample],
) -> NoiseReport:
    rows = len(data)

    def statistic(counts: np.ndarray) -> np.ndarray:
        """Clean metric and that of each cell (b, 1 + cells), mean over draws."""
        columns = [[score.resampled(outcome, counts) for outcome in draws] for draws in ([clean], *outcomes)]
        return np.stack([np.mean(draws, axis=0) for draws in columns], axis=1)

    values = statistic(np.ones((1, rows), np.float32))[0]  # (1 + cells,)
    resampled = Bootstrap(rows, score.resamples, settings.seed).resample(statistic)  # (B, 1 + cells)
    results = [
        cell.result(
            float(values[i]),
            interval(float(values[i] - values[0]), resampled[:, i] - resampled[:, 0], rows),
            score.recall(outcomes[i - 1]),
        )
        for i, cell in enumerate(cells, 1)
    ]
    mean, difference = mean_over_cells(values, resampled, [cell.untouched < rows for cell in cells], rows)
    return NoiseReport(
        score.metric,
        float(values[0]),
        mean,
        difference,
        results,
        rows,
        settings,
        score.recall([clean]),
        positive,
        examples,
    )


def mean_over_cells(
    values: np.ndarray, resampled: np.ndarray, touched: Sequence[bool], rows: int
) -> tuple[Interval, Interval]:
    """Mean of the figures under noise and its difference to the clean one, with intervals.

    Args:
        values: (1 + cells,), the clean figure first.
        resampled: (B, 1 + cells), the same on resamples.
        touched: cells that are of the mean; where none is, the mean is the clean figure.
        rows: number of rows.
    """
    columns = [i for i, kept in enumerate(touched, 1) if kept] or [0]
    mean, means = float(values[columns].mean()), resampled[:, columns].mean(1)
    return (
        interval(mean, means, rows),
        interval(mean - float(values[0]), means - resampled[:, 0], rows),
    )
