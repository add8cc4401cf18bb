"""A sentence encoder under noise: Spearman's correlation on STS sets, with noise on one side of a pair or on both."""

from collections.abc import Mapping, Sequence

import numpy as np

from contraverse.errors import UserError
from contraverse.evaluation.bootstrap import Bootstrap, correlations, interval
from contraverse.evaluation.noise.report import NoiseReport, NoiseSettings
from contraverse.evaluation.noise.task import RESAMPLES_OF_RANKS, CellCounts, mean_over_cells
from contraverse.evaluation.noise.texts import Answers, Key, Texts, noisy_rows
from contraverse.evaluation.predict import Progress
from contraverse.evaluation.sts import pairs_with_scores
from contraverse.evaluation.sts_sets import StsSet
from contraverse.models import TextModel


def noise_sts(
    model: TextModel,
    sets: Mapping[str, StsSet],
    settings: NoiseSettings | None = None,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NoiseReport:
    """Spearman x 100 on ``sets``, and its average, clean and under noise on ``settings.side`` of each pair.

    A set's figure is over all its pairs, as `contraverse.evaluation.evaluate_sts` has it as "all". Intervals resample
    the pairs of each set.

    Args:
        model: a sentence encoder.
        sets: pairs with scores, by name.
        settings: of the noise; None for all kinds and strengths on both sides, drawn once.
        batch_size: sentences a batch.
        progress: called with the pairs done; they add up to `NoiseSettings.progress_total` of all pairs.

    Raises:
        UserError: there is no set, or one is malformed.
    """
    settings = settings or NoiseSettings()
    scored = [pairs_with_scores(pairs, name) for name, pairs in sets.items()]
    if not scored:
        raise UserError("no STS set to measure under noise")
    pairs: list[Texts] = [pair for sts_set in scored for pair in sts_set.pairs]
    gold = [np.asarray(sts_set.scores, dtype=np.float64) for sts_set in scored]
    ends = np.cumsum([len(scores) for scores in gold])

    def ask(sentences: list[Texts]) -> np.ndarray:
        vectors = np.asarray(model.encode([text for (text,) in sentences], batch_size), dtype=np.float64)  # (N, Z)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1.0)

    def tokenize(sentences: list[Texts]) -> list[Key]:
        ids = model.tokenizer([text for (text,) in sentences], return_attention_mask=False, verbose=False)["input_ids"]
        return [(tuple(tokens),) for tokens in ids]

    def similarities(rows: Sequence[Texts]) -> list[np.ndarray]:
        """Cosine of each pair, for each set."""
        left, right = (answers([(row[side],) for row in rows]) for side in (0, 1))  # (N, Z)
        return np.split((left * right).sum(1).round(12), ends[:-1])

    answers = Answers(tokenize, ask, list(dict.fromkeys((text,) for pair in pairs for text in pair)))
    clean = similarities(pairs)
    if progress:
        progress(len(pairs))
    cells, outcomes = list[CellCounts](), list[list[list[np.ndarray]]]()
    for kind in settings.kinds:
        for strength in settings.strengths:
            cell = CellCounts(kind, strength)
            outcomes.append([])
            for draw in range(settings.draws):
                rows = noisy_rows(pairs, kind, strength, draw, settings)
                texts = [row.texts for row in rows]
                outcomes[-1].append(similarities(texts))
                cell.add(rows, pairs, np.logical_and(*(answers.same_tokens(*_side(texts, pairs, i)) for i in (0, 1))))
                if progress:
                    progress(len(pairs))
            cells.append(cell)
        answers.forget()

    def of_sets(similarity: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> np.ndarray:
        """Average over the sets (b,)."""
        figures = [correlations("spearman", *part) for part in zip(similarity, gold, counts, strict=True)]
        return np.mean(figures, axis=0)

    def statistic(counts: Sequence[np.ndarray]) -> np.ndarray:
        columns = [[of_sets(similarity, counts) for similarity in draws] for draws in ([clean], *outcomes)]
        return np.stack([np.mean(draws, axis=0) for draws in columns], axis=1)  # (b, 1 + cells)

    whole = [np.ones((1, len(scores)), np.float32) for scores in gold]
    values = statistic(whole)[0]
    resamples = [
        np.concatenate(list(Bootstrap(len(scores), RESAMPLES_OF_RANKS, settings.seed + i).counts()))
        for i, scores in enumerate(gold)
    ]
    resampled = np.concatenate(
        [statistic([part[i : i + 20] for part in resamples]) for i in range(0, RESAMPLES_OF_RANKS, 20)]
    )
    count = len(pairs)
    results = [
        cell.result(
            float(values[i]), interval(float(values[i] - values[0]), resampled[:, i] - resampled[:, 0], count), {}
        )
        for i, cell in enumerate(cells, 1)
    ]
    mean, difference = mean_over_cells(values, resampled, [cell.untouched < count for cell in cells], count)
    return NoiseReport("spearman", float(values[0]), mean, difference, results, count, settings)


def _side(texts: Sequence[Texts], pairs: Sequence[Texts], side: int) -> tuple[list[Texts], list[Texts]]:
    return [(row[side],) for row in texts], [(row[side],) for row in pairs]
