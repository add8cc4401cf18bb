"""A sentence encoder under noise: STS figures against a slow computation, sides, intervals."""

from typing import Any

import numpy as np
import pytest
from reference.tiny import sentences

from contraverse.errors import UserError
from contraverse.evaluation import StsSet, evaluate_sts
from contraverse.evaluation.noise import NoiseSettings, noise_sts
from contraverse.models import TextModel
from contraverse.noise import noise


def sets() -> dict[str, StsSet]:
    random = np.random.default_rng(0)
    left, right = sentences(30), sentences(30, seed=1)
    pairs = list(zip(left, right, strict=True))
    scores = random.uniform(0, 5, 30).tolist()
    return {"sts12": StsSet(pairs[:18], scores[:18]), "pairs": StsSet(pairs[18:], [*scores[18:29], float("nan")])}


@pytest.mark.parametrize("side", ["both", "first", "second"])
def test_figures_are_those_of_pairs_made_one_by_one(encoder: TextModel, side: Any) -> None:
    settings = NoiseSettings(("drop-space", "keyboard"), (1, 5), draws=2, side=side)
    done = list[int]()
    report = noise_sts(encoder, sets(), settings, progress=done.append)
    assert report.clean == pytest.approx(
        np.mean([evaluate_sts(encoder.encode, sets()).sets[name].all for name in sets()])
    )
    kept = sets() | {"pairs": StsSet(sets()["pairs"].pairs[:11], sets()["pairs"].scores[:11])}
    for cell in report.cells:
        figures = []
        for draw in range(2):
            row, noisy = 0, dict[str, StsSet]()
            for name, one in kept.items():
                pairs = []
                for pair in one.pairs:
                    changed = [
                        noise(text, cell.kind, cell.strength, ("evaluation", 0, draw, i), row)
                        if side == "both" or i == (side == "second")
                        else text
                        for i, text in enumerate(pair)
                    ]
                    pairs.append((changed[0], changed[1]))
                    row += 1
                noisy[name] = StsSet(pairs, one.scores)
            figures.append(np.mean([scores.all for scores in evaluate_sts(encoder.encode, noisy).sets.values()]))
        assert cell.value == pytest.approx(np.mean(figures), abs=1e-6)
    assert report.rows == 29
    assert sum(done) == settings.progress_total(29)
    assert report.difference.low is not None
    assert report.difference.low <= report.difference.value <= (report.difference.high or 0)
    assert report.metrics["spearman@noise"] == report.mean.value


def test_what_the_tokenizer_undoes_is_warned_of(encoder: TextModel) -> None:
    report = noise_sts(encoder, sets(), NoiseSettings(("upper",), (5,)))
    assert report.cells[0].value == pytest.approx(report.clean)
    assert report.cells[0].same_tokens == 1
    assert report.warnings[0].startswith("upper:")


def test_no_set_is_refused(encoder: TextModel) -> None:
    with pytest.raises(UserError, match="no STS set"):
        noise_sts(encoder, {})
