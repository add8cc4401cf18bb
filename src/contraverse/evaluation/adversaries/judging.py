"""Judges of a rewritten text: it fools the classifier, and it still says the same."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation.adversaries.context import InContext
from contraverse.evaluation.adversaries.report import Adversary, Closeness
from contraverse.evaluation.adversaries.rewriting import edits, words_of
from contraverse.evaluation.predict import labels_of, predict
from contraverse.models import TextModel


class Bystander:
    """A second opinion on the label: logistic regression (C = 10) on a fixed encoder's unit-norm sentence embeddings.

    No attack has seen it, and its encoder was not fine-tuned. It is fitted on all rows of the data and their labels.

    Raises:
        UserError: the rows have one class alone.
    """

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray) -> None:
        self.classes = np.unique(labels)
        if len(self.classes) < 2:
            raise UserError("the rows are all of one class, and max_drop needs two", hint="set max_drop to inf")
        self.regression = LogisticRegression(C=10, max_iter=2000).fit(_unit(embeddings), labels)

    def odds(self, embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Log-odds (N,) of each row's label."""
        return _log_odds(self.regression.predict_log_proba(_unit(embeddings)), np.searchsorted(self.classes, labels))


class Comparison(NamedTuple):
    """Distance of a text from its original; see `Closeness`. ``word_similarity`` is None where it was not measured."""

    similarity: float
    drop: float
    word_similarity: float | None
    edits: int
    share: float
    close: bool


class Comparer:
    """Compares rewritten texts with their originals, by an encoder and a second opinion; each text of a row once.

    Args:
        data: originals, one text to a row.
        labels: (N,) class ids.
        encoder: embeds both.
        closeness: what counts as close.
        batch_size: texts at a time.

    Raises:
        UserError: the rows have one class alone, and ``closeness`` limits the drop.
    """

    def __init__(
        self, data: TextData, labels: np.ndarray, encoder: TextModel, closeness: Closeness, batch_size: int
    ) -> None:
        self.data, self.labels, self.encoder, self.closeness = data, labels, encoder, closeness
        self.before = encoder.encode([texts[0] for texts in data.texts])
        self.bystander = None if closeness.max_drop == float("inf") else Bystander(self.before, self.labels)
        self.context = InContext(encoder, batch_size)
        self._known: dict[tuple[int, str], Comparison] = {}

    def __call__(self, candidates: Sequence[tuple[int, str]]) -> list[Comparison]:
        """Compare each ``(row, text)``, in order."""
        asked = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self._known]
        if asked:
            rows, texts = np.array([row for row, _ in asked]), [text for _, text in asked]
            after = self.encoder.encode(texts)
            similarity = (_unit(self.before[rows]) * _unit(after)).sum(1)
            drop = np.zeros(len(asked))
            if self.bystander is not None:
                drop = np.subtract(*(self.bystander.odds(x, self.labels[rows]) for x in (self.before[rows], after)))
            results = []
            for i, (row, text) in enumerate(asked):
                original = self.data.texts[row][0]
                changed = edits(original, text)
                share = changed / max(1, len(words_of(original)))
                far = (round(float(similarity[i]), 4), round(float(drop[i]), 4))
                close = self.closeness.holds(changed, share, *far)
                results.append(Comparison(*far, None, changed, share, close))
            self._known.update(zip(asked, self._compare_words(asked, results), strict=True))
        return [self._known[candidate] for candidate in candidates]

    def _compare_words(self, asked: Sequence[tuple[int, str]], results: Sequence[Comparison]) -> list[Comparison]:
        """The same, where all else is close by their words too, which takes another pass of the encoder."""
        least = self.closeness.min_word_similarity
        near = [i for i, result in enumerate(results) if result.close and least > -1]
        originals = [self.data.texts[asked[i][0]][0] for i in near]
        alike = self.context.least(originals, [asked[i][1] for i in near])
        compared = list(results)
        for i, cosine in zip(near, alike, strict=True):
            compared[i] = compared[i]._replace(word_similarity=cosine, close=cosine >= least)
        return compared


class Verdict(NamedTuple):
    """One text: the model's class, its log-odds of the row's label, and what became of the sentence."""

    text: str
    prediction: int
    odds: float
    similarity: float
    drop: float
    word_similarity: float | None
    edits: int
    share: float
    close: bool


class Judge:
    """Classifies rewritten texts and measures how far they are from their originals; each text of a row once."""

    def __init__(
        self, model: TextModel, data: TextData, encoder: TextModel, closeness: Closeness, batch_size: int
    ) -> None:
        self.model, self.data, self.batch_size = model, data, batch_size
        self.labels = labels_of(data)
        self.comparer = Comparer(data, self.labels, encoder, closeness, batch_size)
        self._known: dict[tuple[int, str], Verdict] = {}

    def __call__(self, candidates: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Result for each ``(row, text)``, in order."""
        asked = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self._known]
        if asked:
            rows, texts = np.array([row for row, _ in asked]), [text for _, text in asked]
            logits = predict(self.model, TextData.from_rows(texts), self.batch_size)
            odds = _log_odds(logits, self.labels[rows])
            for i, (candidate, comparison) in enumerate(zip(asked, self.comparer(asked), strict=True)):
                verdict = Verdict(candidate[1], int(logits[i].argmax()), float(odds[i]), *comparison)
                self._known[candidate] = verdict
        return [self._known[candidate] for candidate in candidates]

    def fools(self, row: int, verdict: Verdict) -> bool:
        """True where the text changes the prediction of its row, which is the row's label."""
        return verdict.prediction != self.labels[row]

    def adversary(self, row: int, verdict: Verdict, epsilon: float) -> Adversary:
        """A text that fools the model, as it is reported."""
        names = self.model.labels
        assert names is not None
        label, drop = names[int(self.labels[row])], verdict.drop if self.comparer.bystander is not None else None
        return Adversary(
            row,
            self.data.texts[row][0],
            verdict.text,
            label,
            label,
            names[verdict.prediction],
            verdict.similarity,
            verdict.edits,
            verdict.share,
            epsilon,
            verdict.close,
            drop,
            verdict.word_similarity,
        )


def _log_odds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-odds of one class (N,) against all others, from logits or log-probabilities (N, C)."""
    own = scores[np.arange(len(labels)), labels]
    rest = scores.astype(np.float64).copy()
    rest[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(own - np.logaddexp.reduce(rest, axis=1))


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
