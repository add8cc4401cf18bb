"""The search: attack, read the sentence out of the attacked pass, classify it as a text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.attacks import NormBall, perturbable, pgd
from contraverse.data import EncodedText, TextData
from contraverse.errors import UserError
from contraverse.evaluation.adversaries.report import Adversary, AdversaryReport, Closeness
from contraverse.evaluation.adversaries.rewriting import Vocabulary, check_fast, edits, words_of
from contraverse.evaluation.attack_loop import frozen, seeded
from contraverse.evaluation.predict import Progress, batches, encode_data, labels_of, logits_of, predict
from contraverse.functional import Norm
from contraverse.models import TextModel, evaluating
from contraverse.types import Batch

HEAD = "reconstruction"


class Reading(NamedTuple):
    """What the head reads in one row, at the T positions that may be replaced.

    ``positions`` (T,) of the row's tokens; ``tokens`` (T,): the most probable other token of each; ``gain`` (T,): its
    logit less that of the token that stands there, above 0 where the head reads another word; ``right`` (T,): whether
    the head reads the token that stands there.
    """

    row: int
    positions: np.ndarray
    tokens: np.ndarray
    gain: np.ndarray
    right: np.ndarray


def find_adversaries(
    model: TextModel,
    data: TextData,
    *,
    epsilons: Sequence[float] = (0.1, 0.3, 1.0),
    norm: Norm = "l2",
    steps: int = 5,
    substitutions: int = 0,
    min_word_similarity: float = -1.0,
    closeness: Closeness | None = None,
    encoder: TextModel | None = None,
    other: TextModel | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> AdversaryReport:
    """Sentences that change a classifier's prediction, read by its reconstruction head out of attacked embeddings.

    For each row that is classified rightly, and each radius from the smallest:

    1. k-PGD (`pgd`) climbs the row's cross-entropy in eval mode.
    2. At every position the head reads the most probable token. Special tokens neither go nor come, and a word's
       start is replaced by a word's start, so that the number of tokens stays.
    3. What differs is spliced into the text as it was written.
    4. The text is tokenised and classified like any other. This decides whether it fools the model, not whether the
       perturbation did.

    A row is done with once a sentence changes the prediction and is close.

    Args:
        model: a classifier with the reconstruction head of the method ``rar``.
        data: labelled rows of one text each.
        epsilons: radii above 0, as in `robust_accuracy`.
        norm: ``"l2"`` over a sequence or ``"linf"``.
        steps: of PGD, >= 1, each of 2.5 epsilon / steps.
        substitutions: also try the sentences with only the 1, 2, ... up to so many likeliest of the tokens read that
            differ, second-best ones too; the fewest that suffice are kept. 0 takes the reading whole, as the paper.
        min_word_similarity: least cosine, -1 to 1, of the model's own word embeddings of a token and of what replaces
            it; -1 lets any token replace any other, as the paper.
        closeness: what counts as close; None is `Closeness()`.
        encoder: embeds sentences for the similarity; None is ``minilm`` with mean pooling.
        other: another classifier of the same classes, to see whether it is fooled as well.
        batch_size: rows a batch; the head makes T x V logits of each.
        seed: of the random state meanwhile.
        progress: told the rows settled; they add up to N * the number of epsilons.

    Raises:
        UserError: the model has no such head, the rows are pairs or have no classes, the other model's classes
            differ, or a setting is impossible.
    """
    _check(model, data, epsilons, steps, substitutions, other)
    if not -1 <= min_word_similarity <= 1:
        raise UserError(f"min_word_similarity lies between -1 and 1, not {min_word_similarity}")
    encoded = encode_data(model, data)
    assert isinstance(encoded, EncodedText)
    labels = labels_of(encoded)
    if encoder is None:
        encoder = TextModel.from_pretrained("minilm", pooling="mean").to(model.device)
    attacked = [int(row) for row in np.flatnonzero(predict(model, encoded, batch_size).argmax(1) == labels)]
    vocabulary = Vocabulary(model.tokenizer, model.words[0])
    reader = _Reader(model, encoded, vocabulary, min_word_similarity, norm, steps, batch_size)
    judge = _Judge(model, data, encoder, closeness or Closeness(), batch_size)
    best: dict[int, Adversary] = {}
    changed: set[int] = set()
    read: dict[float, float | None] = {}
    with evaluating(model), frozen(model), seeded(seed):
        readings = list(reader(np.array(attacked, dtype=np.int64), 0.0))
        read[0.0] = _share(readings)
        for epsilon in sorted(set(map(float, epsilons))):
            rows = np.array([row for row in attacked if row not in best or not best[row].close], dtype=np.int64)
            if progress:
                progress(len(data) - len(rows))
            readings = list(reader(rows, epsilon, progress))
            read[epsilon] = _share(readings)
            changed |= {reading.row for reading in readings if (reading.gain > 0).any()}
            candidates = [
                (reading.row, text)
                for reading in readings
                for text in _rewrite(reading, data, vocabulary, model.max_length, substitutions)
            ]
            for adversary in judge(candidates, epsilon):
                held = best.get(adversary.row)
                if held is None or (adversary.close, adversary.similarity) > (held.close, held.similarity):
                    best[adversary.row] = adversary
    found = [best[row] for row in sorted(best)]
    if other is not None:
        found = _ask(other, found, batch_size)
    return AdversaryReport(len(data), len(attacked), len(attacked) - len(changed), read, found)


def _check(
    model: TextModel,
    data: TextData,
    epsilons: Sequence[float],
    steps: int,
    substitutions: int,
    other: TextModel | None,
) -> None:
    spec = model.head_specs.get(HEAD)
    if spec is None or spec.kind != "mlm":
        raise UserError(
            "the model has no reconstruction head to read sentences with",
            hint="train it with the recipe rar: contraverse train rar ...",
        )
    if model.labels is None or len(model.labels) < 2:
        raise UserError("adversaries are made for classifiers", hint="train one with the recipe rar")
    if len(data.columns) != 1:
        raise UserError(f"a row has {len(data.columns)} texts", hint="adversaries are made of rows of one text each")
    if other is not None and other.labels != model.labels:
        theirs = "none" if other.labels is None else ", ".join(other.labels)
        raise UserError(f"the other model's classes are {theirs}, and not {', '.join(model.labels)}")
    if not epsilons or not all(0 < epsilon < math.inf for epsilon in epsilons):
        raise UserError("the radii (epsilons) are one or more finite numbers above 0")
    if steps < 1 or substitutions < 0:
        raise UserError(f"steps are at least 1 and substitutions at least 0, not {steps} and {substitutions}")
    check_fast(model.tokenizer)


class _Reader:
    """Attacks rows, and reads what the head makes of them."""

    def __init__(
        self,
        model: TextModel,
        data: EncodedText,
        vocabulary: Vocabulary,
        min_word_similarity: float,
        norm: Norm,
        steps: int,
        batch_size: int,
    ) -> None:
        self.model, self.data, self.batch_size = model, data, batch_size
        self.norm, self.steps = norm, steps
        self.starts, self.usable = vocabulary.starts.to(model.device), vocabulary.usable.to(model.device)
        table = model.encoder.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        self.words = F.normalize(table.detach().float(), dim=1)
        self.least = min_word_similarity

    def __call__(self, rows: np.ndarray, epsilon: float, progress: Progress | None = None) -> Iterator[Reading]:
        """What the head reads in these rows under an attack of radius ``epsilon``, which 0 leaves out."""
        for chosen, batch in batches(self.model, self.data, rows, self.batch_size):
            delta = self._attack(batch, epsilon) if epsilon else None
            with torch.no_grad():
                logits = self.model(batch, delta=delta, want=(HEAD,)).heads[HEAD].float()
            ids = batch["input_ids"]
            right = logits.argmax(-1) == ids
            own = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
            best, value = self._best_other(logits, ids)
            free = batch["attention_mask"].bool() & self.usable[ids] & value.isfinite()
            for i, row in enumerate(chosen):
                at = free[i].nonzero().squeeze(-1)
                columns = (at, best[i, at], (value - own)[i, at], right[i, at])
                yield Reading(int(row), *(column.cpu().numpy() for column in columns))
            if progress:
                progress(len(chosen))

    def _best_other(self, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable token (B, T) that may stand for each of ``ids``, and its logit; -inf where none may."""
        logits = logits.scatter(-1, ids.unsqueeze(-1), -torch.inf)
        if self.least > -1:
            logits.masked_fill_(self.words[ids] @ self.words.T < self.least, -torch.inf)
        begin, follow = (
            logits.masked_fill(~(self.usable & kind), -torch.inf).max(-1) for kind in (self.starts, ~self.starts)
        )
        starts = self.starts[ids]
        return torch.where(starts, begin.indices, follow.indices), torch.where(starts, begin.values, follow.values)

    def _attack(self, batch: Batch, epsilon: float) -> Tensor:
        def loss_of(delta: Tensor) -> Tensor:
            return F.cross_entropy(logits_of(self.model, batch, delta), batch["labels"], reduction="none")

        ball = NormBall(epsilon, 2.5 * epsilon / self.steps, self.norm)
        return pgd(loss_of, ball, perturbable(self.model, batch), steps=self.steps).delta


def _share(readings: Sequence[Reading]) -> float | None:
    """Percent of all tokens read rightly; None where there are none."""
    right = [bool(one) for reading in readings for one in reading.right]
    return 100 * sum(right) / len(right) if right else None


def _rewrite(
    reading: Reading, data: TextData, vocabulary: Vocabulary, max_length: int, substitutions: int
) -> list[str]:
    """The sentences to try, those of fewer substitutions first."""
    order = np.argsort(-reading.gain, kind="stable")
    whole = int((reading.gain > 0).sum())
    counts = sorted({whole, *range(1, substitutions + 1)} - {0})
    (text,) = data.texts[reading.row]
    texts = [
        vocabulary.splice(text, {int(reading.positions[i]): int(reading.tokens[i]) for i in order[:count]}, max_length)
        for count in counts
        if count <= len(order)
    ]
    return list(dict.fromkeys(texts))


class _Judge:
    """Classifies texts, and measures those that change the prediction of their row."""

    def __init__(
        self, model: TextModel, data: TextData, encoder: TextModel, closeness: Closeness, batch_size: int
    ) -> None:
        self.model, self.data, self.encoder = model, data, encoder
        self.closeness, self.batch_size = closeness, batch_size

    def __call__(self, candidates: Sequence[tuple[int, str]], epsilon: float) -> Iterator[Adversary]:
        """Those of ``(row, text)`` that fool the model, in order."""
        if not candidates:
            return
        classes = predict(self.model, TextData.from_rows([text for _, text in candidates]), self.batch_size).argmax(1)
        names, labels = self.model.labels, self.data.labels
        assert names is not None
        assert labels is not None
        fooling = [
            (row, text, int(one)) for (row, text), one in zip(candidates, classes, strict=True) if one != labels[row]
        ]
        if not fooling:
            return
        rows = sorted({row for row, _, _ in fooling})
        before = dict(zip(rows, self.encoder.encode([self.data.texts[row][0] for row in rows]), strict=True))
        after = self.encoder.encode([text for _, text, _ in fooling])
        for (row, text, one), embedding in zip(fooling, after, strict=True):
            original, label = self.data.texts[row][0], names[int(labels[row])]
            changed = edits(original, text)
            share = changed / max(1, len(words_of(original)))
            similarity = _cosine(before[row], embedding)
            close = self.closeness.holds(changed, share, similarity)
            yield Adversary(row, original, text, label, label, names[one], similarity, changed, share, epsilon, close)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return round(float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)), 4)


def _ask(other: TextModel, found: Sequence[Adversary], batch_size: int) -> list[Adversary]:
    """The same, with what another model makes of both texts."""
    if not found:
        return []
    names = other.labels
    assert names is not None
    before, after = (
        predict(other, TextData.from_rows(texts), batch_size).argmax(1)
        for texts in ([one.original for one in found], [one.rewritten for one in found])
    )
    return [
        replace(one, prediction_other_original=names[b], prediction_other=names[a])
        for one, b, a in zip(found, before, after, strict=True)
    ]
