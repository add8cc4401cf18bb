"""Adversarial NLI by the protocol of InfoBERT and of SCAL's Tables 7 and 8: accuracy on rounds A1 to A3.

Two aggregates of the three rounds are in use, and tables do not say which they print. ``pooled`` is the share of right
answers among all 3,200 examples (InfoBERT), ``mean`` the unweighted mean of the three accuracies (several of SCAL's
rows). Where A3, the largest round, is the hardest, the mean is the larger figure: SCAL's 58.6 on the dev sets (RoBERTa,
Table 8) is 58.1 pooled, below the 58.3 of InfoBERT that it is compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from contraverse.data import TextData, TextSplits, get_task, load_splits
from contraverse.errors import UserError
from contraverse.evaluation.predict import labels_of, predict
from contraverse.evaluation.sts_sets import HUB
from contraverse.models import TextModel

ANLI_ROUNDS = {"a1": 1000, "a2": 1000, "a3": 1200}
"""The rounds, and how many examples the dev set and the test set of each have."""

Split = Literal["validation", "test"]
_FOLDERS = ("anli_a{}", "a{}", "R{}", "r{}")


@dataclass(frozen=True)
class NliScores:
    """Right answers and rows of each round, on one split. What is right need not be whole: see `of_accuracies`."""

    correct: Mapping[str, float]
    rows: Mapping[str, int]

    @classmethod
    def of_accuracies(cls, accuracies: Mapping[str, float], rows: Mapping[str, int] = ANLI_ROUNDS) -> "NliScores":
        """From printed accuracies in percent, to compare a table's aggregate with both of these."""
        correct = {name: value * rows[name] / 100 for name, value in accuracies.items()}
        return cls(correct, {name: rows[name] for name in accuracies})

    @property
    def accuracy(self) -> dict[str, float]:
        """Percent right of each round."""
        return {name: 100 * right / self.rows[name] for name, right in self.correct.items()}

    @property
    def pooled(self) -> float:
        """Percent right of all rows together."""
        return 100 * sum(self.correct.values()) / sum(self.rows.values())

    @property
    def mean(self) -> float:
        """Unweighted mean of the rounds' percentages."""
        return float(np.mean(list(self.accuracy.values())))


@dataclass(frozen=True)
class NliReport:
    """Scores by split, "validation" (ANLI's dev) and "test"."""

    splits: dict[str, NliScores]

    @property
    def metrics(self) -> dict[str, float]:
        """Flat: ``anli_test_a1``, ``anli_test_a2``, ``anli_test_a3``, ``anli_test_pooled`` and ``anli_test_mean``."""
        metrics: dict[str, float] = {}
        for split, scores in self.splits.items():
            values = {**scores.accuracy, "pooled": scores.pooled, "mean": scores.mean}
            metrics |= {f"anli_{split}_{name}": value for name, value in values.items()}
        return metrics

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            split: {
                "accuracy": scores.accuracy,
                "rows": dict(scores.rows),
                "pooled": scores.pooled,
                "mean": scores.mean,
            }
            for split, scores in self.splits.items()
        }


def evaluate_nli(
    model: TextModel,
    source: str | Path | Mapping[str, TextSplits],
    *,
    splits: Sequence[Split] = ("validation", "test"),
    batch_size: int = 64,
) -> NliReport:
    """Accuracy of ``model`` on each round of ANLI, and the two aggregates. Nothing is trained.

    Classes are matched by name, regardless of case and order.

    Args:
        model: a classifier whose classes are entailment, neutral and contradiction.
        source: for each round ("a1", "a2", "a3") its rows, as `load_splits` gives them; or a folder, which holds a
            folder ``anli_a1``, ``a1`` or ``R1`` of each round, with files called validation or dev, and test; or
            ``hub``, for those on the Hugging Face Hub.
        splits: which to measure on.
        batch_size: rows a batch.

    Raises:
        UserError: the model has other classes, a round or a split is missing, or a file cannot be read.
    """
    if isinstance(source, str | Path):
        source = load_anli(source)
    if not splits or not set(splits) <= set(get_args(Split)):
        raise UserError(f"splits are validation and test, not {', '.join(splits) or 'none'}")
    order = _order(model)
    scores: dict[str, NliScores] = {}
    for split in splits:
        rounds = {name: source[name].need(split) for name in _all_rounds(source)}
        right = {name: _right(model, data, order, batch_size) for name, data in rounds.items()}
        scores[split] = NliScores(right, {name: len(data) for name, data in rounds.items()})
    return NliReport(scores)


def load_anli(folder: str | Path) -> dict[str, TextSplits]:
    """The dev and test sets of each round in ``folder``: "a1", "a2" and "a3"; ``hub``: those of the Hugging Face Hub.

    Raises:
        UserError: the folder of a round is missing, or a file in it cannot be used.
    """
    if str(folder) == HUB and not Path(HUB).exists():
        return {name: load_splits(f"anli_{name}", None, validation_fraction=0) for name in ANLI_ROUNDS}
    folder = Path(folder).expanduser()
    rounds = {}
    for name in ANLI_ROUNDS:
        number = name[1:]
        inside = [folder / form.format(number) for form in _FOLDERS]
        there = next((path for path in inside if path.is_dir()), None)
        if there is not None:
            rounds[name] = load_splits(f"anli_{name}", there, validation_fraction=0)
    _all_rounds(rounds, str(folder))
    return rounds


def _all_rounds(rounds: Mapping[str, TextSplits], where: str = "ANLI") -> list[str]:
    missing = [name for name in ANLI_ROUNDS if name not in rounds]
    if missing:
        folders = ", ".join(form.format(missing[0][1:]) for form in _FOLDERS[:3])
        hint = f"A round is a folder with files validation (or dev) and test, called {folders}."
        raise UserError(f"no round {', '.join(missing)}", where=where, hint=hint)
    return list(ANLI_ROUNDS)


def _order(model: TextModel) -> list[str]:
    """The model's classes, in the order of its logits."""
    names = [label.casefold() for label in model.labels or ()]
    wanted = get_task("anli").labels or ()
    if set(names) != set(wanted) or len(names) != len(wanted):
        has = f"has {', '.join(model.labels or ())}" if names else "has none"
        raise UserError(
            f"ANLI asks for {', '.join(wanted)}, and the model {has}",
            hint="Classes are matched by name: set id2label in the model's config.json to what its logits mean.",
        )
    return names


def _right(model: TextModel, data: TextData, order: list[str], batch_size: int) -> int:
    names = np.array([name.casefold() for name in data.label_names or ()])
    predicted = np.array(order)[predict(model, data, batch_size).argmax(1)]
    return int((predicted == names[labels_of(data)]).sum())
