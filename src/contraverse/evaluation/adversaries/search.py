"""The search: attack, read the sentence out of the attacked pass, classify it as a text."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.data import EncodedText, TextData
from contraverse.errors import UserError
from contraverse.evaluation.adversaries.judging import Judge, Verdict
from contraverse.evaluation.adversaries.report import Adversary, AdversaryReport, Closeness
from contraverse.evaluation.adversaries.rewriting import Vocabulary, check_fast
from contraverse.evaluation.adversaries.substitutes import Substitutes
from contraverse.evaluation.attack_loop import frozen, seeded
from contraverse.evaluation.predict import Progress, encode_data, labels_of, logits_of, map_batches, predict
from contraverse.functional import Norm
from contraverse.models import TextModel, evaluating
from contraverse.types import Batch

HEAD = "reconstruction"


Mode = Literal["near", "whole"]


class Reading(NamedTuple):
    """Inputs of the head for one row.

    ``options``: for each position with another token to replace the one that stands there, those tokens, the most
    probable first. ``right``: whether the head reads the token that stands there, of each that it could replace.
    """

    row: int
    options: dict[int, list[int]]
    right: list[bool]


def find_adversaries(
    model: TextModel,
    data: TextData,
    *,
    epsilons: Sequence[float] = (0.1, 0.3, 1.0),
    norm: Norm = "l2",
    steps: int = 5,
    reading: Mode = "near",
    substitutions: int = 1,
    candidates: int = 20,
    closeness: Closeness | None = None,
    encoder: TextModel | None = None,
    other: TextModel | None = None,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> AdversaryReport:
    """Sentences that change a classifier's prediction, read by its reconstruction head out of attacked embeddings.

    For each row that is classified rightly, and each radius from the smallest:

    1. k-PGD (`pgd`) maximizes the row's cross-entropy in eval mode.
    2. The head reads the attacked pass. ``"near"``: a content word may become each of the ``candidates`` likeliest
       tokens of its place that `Substitutes` lets stand for it, one word at a time; where none suffices, the 2, 3, ..
       words that hurt most by themselves (the label's log-odds) change together. ``"whole"``, as the paper: the most
       probable token of every position, all at once; special tokens neither go nor come, and a word's start is replaced
       by a word's start.
    3. What differs is spliced into the text as it was written.
    4. The text is tokenised and classified like any other. This decides whether it fools the model, not whether the
       perturbation did.

    A row is done with once a sentence changes the prediction and is close. Of several, the most similar is taken.

    Args:
        model: a classifier with the reconstruction head of the method ``rar``.
        data: labelled rows of one text each.
        epsilons: radii above 0, as in `robust_accuracy`.
        norm: ``"l2"`` over a sequence or ``"linf"``.
        steps: of PGD, >= 1, each of 2.5 epsilon / steps.
        reading: ``"near"`` or ``"whole"``. The next two are for ``"near"``, whose rules of words are for English.
        substitutions: words that may change, >= 1.
        candidates: of the likeliest tokens of a place, >= 1.
        closeness: what counts as close; None is `Closeness()`.
        encoder: embeds sentences for similarities and the drop; None is ``minilm`` with mean pooling.
        other: another classifier of the same classes, to see whether it is fooled as well.
        batch_size: rows a batch; the head makes T x V logits of each.
        seed: of the random state meanwhile.
        progress: called with the rows settled; they add up to N * the number of epsilons.

    Raises:
        UserError: the model has no such head, the rows are pairs or have no classes, or one class alone where
            ``closeness`` limits the drop, the other model's classes differ, or a setting is impossible.
    """
    _check(model, data, epsilons, steps, substitutions, candidates, other)
    encoded = encode_data(model, data)
    assert isinstance(encoded, EncodedText)
    labels = labels_of(encoded)
    if encoder is None:
        encoder = TextModel.from_pretrained("minilm", pooling="mean").to(model.device)
    attacked = [int(row) for row in np.flatnonzero(predict(model, encoded, batch_size).argmax(1) == labels)]
    vocabulary = Vocabulary(model.tokenizer, model.embedding_shape[0])
    near = _substitutes(model, vocabulary) if reading == "near" else None
    reader = _Reader(model, encoded, vocabulary, near, candidates, norm, steps, batch_size)
    judge = Judge(model, data, encoder, closeness or Closeness(), batch_size)
    rewriter = _Rewriter(data, vocabulary, model.max_length, judge)
    best: dict[int, Adversary] = {}
    changed: set[int] = set()
    read: dict[float, float | None] = {}
    with evaluating(model), frozen(model), seeded(seed):
        read[0.0] = _share(reader(np.array(attacked, dtype=np.int64), 0.0))
        for epsilon in sorted(set(map(float, epsilons))):
            rows = np.array([row for row in attacked if row not in best or not best[row].close], dtype=np.int64)
            if progress:
                progress(len(data) - len(rows))
            readings = reader(rows, epsilon, progress)
            read[epsilon] = _share(readings)
            changed |= {read_row.row for read_row in readings if read_row.options}
            tried = rewriter.whole(readings) if near is None else rewriter.near(readings, substitutions)
            for row, verdict in tried:
                held = best.get(row)
                if not judge.fools(row, verdict):
                    continue
                if held is None or (verdict.close, verdict.similarity) > (held.close, held.similarity):
                    best[row] = judge.adversary(row, verdict, epsilon)
    adversaries = [best[row] for row in sorted(best)]
    if other is not None:
        adversaries = _ask(other, adversaries, batch_size)
    return AdversaryReport(len(data), len(attacked), len(attacked) - len(changed), read, adversaries)


def _check(
    model: TextModel,
    data: TextData,
    epsilons: Sequence[float],
    steps: int,
    substitutions: int,
    candidates: int,
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
    for name, count in {"steps": steps, "substitutions": substitutions, "candidates": candidates}.items():
        if count < 1:
            raise UserError(f"{name} is at least 1, not {count}")
    check_fast(model.tokenizer)


def _substitutes(model: TextModel, vocabulary: Vocabulary) -> Substitutes:
    table = model.encoder.get_input_embeddings().weight
    assert isinstance(table, Tensor)
    return Substitutes(vocabulary, table)


class _Reader:
    """Attacks rows, and reads the head's predictions on them."""

    def __init__(
        self,
        model: TextModel,
        data: EncodedText,
        vocabulary: Vocabulary,
        near: Substitutes | None,
        candidates: int,
        norm: Norm,
        steps: int,
        batch_size: int,
    ) -> None:
        self.model, self.data, self.batch_size = model, data, batch_size
        self.near, self.candidates = near, candidates
        self.norm, self.steps = norm, steps
        self.starts, self.usable = vocabulary.starts.to(model.device), vocabulary.usable.to(model.device)

    def __call__(self, rows: np.ndarray, epsilon: float, progress: Progress | None = None) -> list[Reading]:
        """Inputs of the head for these rows under an attack of radius ``epsilon``, which 0 leaves out."""

        def read(chosen: np.ndarray, batch: Batch) -> list[Reading]:
            delta = self._attack(batch, epsilon) if epsilon else None
            with torch.no_grad():
                logits = self.model(batch, delta=delta, want=(HEAD,)).heads[HEAD].float()
            ids, readings = batch["input_ids"], []
            right = logits.argmax(-1) == ids
            real = batch["attention_mask"].bool() & self.usable[ids]
            for i, row in enumerate(chosen):
                options = self._alike(logits[i], ids[i]) if self.near else self._likeliest(logits[i], ids[i], real[i])
                readings.append(Reading(int(row), options, right[i, real[i]].tolist()))
            return readings

        parts = map_batches(self.model, self.data, rows, self.batch_size, read, progress)
        return [reading for _, readings in parts for reading in readings]

    def _likeliest(self, logits: Tensor, ids: Tensor, real: Tensor) -> dict[int, list[int]]:
        """The most probable token of each position, where it is another."""
        logits = logits.masked_fill(~self.usable, -torch.inf)
        begin, follow = (logits.masked_fill(~kind, -torch.inf).argmax(-1) for kind in (self.starts, ~self.starts))
        best = torch.where(self.starts[ids], begin, follow)
        at = (real & (best != ids)).nonzero().squeeze(-1)
        return {position: [token] for position, token in zip(at.tolist(), best[at].tolist(), strict=True)}

    def _alike(self, logits: Tensor, ids: Tensor) -> dict[int, list[int]]:
        """The most probable other tokens of each position that may stand there."""
        assert self.near is not None
        logits = logits.scatter(-1, ids.unsqueeze(-1), -torch.inf)
        read = logits.topk(min(self.candidates, logits.shape[-1])).indices.tolist()
        tokens = ids.tolist()
        fit = {position: set(self.near.of(tokens[position]).tolist()) for position in self.near.places(tokens)}
        options = {position: [token for token in read[position] if token in words] for position, words in fit.items()}
        return {position: words for position, words in options.items() if words}

    def _attack(self, batch: Batch, epsilon: float) -> Tensor:
        def loss_of(delta: Tensor) -> Objective:
            logits = logits_of(self.model, batch, delta)
            return Objective(F.cross_entropy(logits, batch["labels"], reduction="none"), logits)

        ball = NormBall(epsilon, 2.5 * epsilon / self.steps, self.norm)
        return pgd(loss_of, ball, perturbation_inputs(self.model, batch), steps=self.steps).delta


class _Rewriter:
    """Rewrites sentences by the head's predictions, and has the results judged."""

    def __init__(self, data: TextData, vocabulary: Vocabulary, max_length: int, judge: Judge) -> None:
        self.data, self.vocabulary, self.max_length, self.judge = data, vocabulary, max_length, judge

    def whole(self, readings: Sequence[Reading]) -> list[tuple[int, Verdict]]:
        """Every row with all tokens replaced that the head reads differently."""
        return self._try([(r.row, {at: tokens[0] for at, tokens in r.options.items()}) for r in readings if r.options])

    def near(self, readings: Sequence[Reading], most: int) -> list[tuple[int, Verdict]]:
        """Every row with each single substitution, and with up to ``most`` together where no single one suffices."""
        singles = [(r.row, {at: token}) for r in readings for at, tokens in r.options.items() for token in tokens]
        tried = self._try(singles)
        done = {row for row, verdict in tried if verdict.close and self.judge.fools(row, verdict)}
        hurting: dict[int, dict[int, int]] = {}
        for (row, replaced), (_, verdict) in sorted(zip(singles, tried, strict=True), key=lambda item: item[1][1].odds):
            if row not in done and verdict.close:
                for at, token in replaced.items():
                    hurting.setdefault(row, {}).setdefault(at, token)
        together = [
            (row, dict(list(replaced.items())[:count]))
            for row, replaced in hurting.items()
            for count in range(2, min(most, len(replaced)) + 1)
        ]
        return tried + self._try(together)

    def _try(self, rewritings: Sequence[tuple[int, dict[int, int]]]) -> list[tuple[int, Verdict]]:
        texts = [
            (row, self.vocabulary.splice(self.data.texts[row][0], replaced, self.max_length))
            for row, replaced in rewritings
        ]
        return [(row, verdict) for (row, _), verdict in zip(texts, self.judge(texts), strict=True)]


def _share(readings: Sequence[Reading]) -> float | None:
    """Percent of all tokens read rightly; None where there are none."""
    right = [is_right for reading in readings for is_right in reading.right]
    return 100 * sum(right) / len(right) if right else None


def _ask(other: TextModel, adversaries: Sequence[Adversary], batch_size: int) -> list[Adversary]:
    """Add another model's predictions on both texts."""
    if not adversaries:
        return []
    names = other.labels
    assert names is not None
    before, after = (
        predict(other, TextData.from_rows(texts), batch_size).argmax(1)
        for texts in (
            [adversary.original for adversary in adversaries],
            [adversary.rewritten for adversary in adversaries],
        )
    )
    return [
        replace(adversary, prediction_other_original=names[b], prediction_other=names[a])
        for adversary, b, a in zip(adversaries, before, after, strict=True)
    ]
