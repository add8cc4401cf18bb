"""A classifier under noise: figures against a slow computation, what is asked, what is warned of."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny import WORDS, sentences

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation import predict
from contraverse.evaluation.noise import NoiseReport, NoiseSettings, noise_robustness
from contraverse.models import TextModel
from contraverse.noise import KINDS, noise

FEW = NoiseSettings(("keyboard", "drop-space", "append"), (2, 5), draws=2, seed=4)
Classifier = Callable[..., TextModel]
Rows = Callable[..., TextData]


def seed_of(settings: NoiseSettings, draw: int, column: int = 0) -> tuple[int | str, ...]:
    return ("evaluation", settings.seed, draw, column)


def accuracy(model: TextModel, data: TextData, texts: list[tuple[str, ...]]) -> float:
    logits = predict(model, TextData(texts, None, None, data.columns))
    return 100 * float(np.mean(logits.argmax(1) == np.array(data.labels)))


def test_figures_are_those_of_texts_made_one_by_one(model: TextModel, labelled: Rows) -> None:
    data = labelled(60, seed=3)
    report = noise_robustness(model, data, FEW)
    assert report.clean == pytest.approx(accuracy(model, data, data.texts))
    values = []
    for cell in report.cells:
        kind, strength = cell.kind, cell.strength
        by_draw = []
        for draw in range(2):
            seed = seed_of(FEW, draw)
            texts = [(noise(text, kind, strength, seed, row),) for row, (text,) in enumerate(data.texts)]
            by_draw.append(accuracy(model, data, texts))
        values.append(np.mean(by_draw))
        assert cell.value == pytest.approx(values[-1])
        assert cell.difference.value == pytest.approx(cell.value - report.clean)
    assert [(cell.kind, cell.strength) for cell in report.cells] == FEW.cells
    assert report.mean.value == pytest.approx(np.mean(values))
    assert report.difference.value == pytest.approx(np.mean(values) - report.clean)
    assert report.metrics["accuracy@noise"] == report.mean.value
    assert report.metrics["accuracy@noise-keyboard"] == pytest.approx(np.mean(values[:2]))


def test_intervals_are_paired_and_hold_the_figure(model: TextModel, labelled: Rows) -> None:
    report = noise_robustness(model, labelled(60, seed=3), FEW)
    for figure in [cell.difference for cell in report.cells] + [report.difference, report.mean]:
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
    unpaired = 2 * 1.96 * 100 * math.sqrt(2 * 0.25 / 60)
    widths = [cell.difference.high - cell.difference.low for cell in report.cells]  # type: ignore[operator]
    assert max(widths) < unpaired


def test_recall_of_each_class(model: TextModel, labelled: Rows) -> None:
    data = labelled(60, seed=3)
    assert data.label_names is not None
    report = noise_robustness(model, data, FEW, positive=data.label_names[1])
    predicted, labels = predict(model, data).argmax(1), np.array(data.labels)
    for i, name in enumerate(data.label_names):
        if (labels == i).any():
            assert report.recall[name] == pytest.approx(100 * np.mean(predicted[labels == i] == i))
    shares = np.bincount(labels, minlength=len(data.label_names)) / len(labels)
    for cell in report.cells:
        weighted = sum(shares[data.label_names.index(name)] * value for name, value in cell.recall.items())
        assert weighted == pytest.approx(cell.value)
    assert report.to_dict()["positive"] == data.label_names[1]
    with pytest.raises(UserError, match='no class is called "blu"'):
        noise_robustness(model, data, FEW, positive="blu")


def test_noise_of_no_edit_breaks_nothing(model: TextModel) -> None:
    """Rows that are wrong to begin with count for nothing, and a kind that touches no row is left out of the mean."""
    texts = ["你好世界", "你好", "世界你好"] * 4
    data = TextData.from_rows(texts, [0, 1, 1] * 4, model.labels)
    report = noise_robustness(model, data, NoiseSettings(("leet", "homoglyph"), (1, 5)))
    assert {cell.value for cell in report.cells} == {report.clean} == {report.mean.value}
    assert all(cell.untouched == 12 and cell.changed == 0 and cell.same_tokens is None for cell in report.cells)
    assert not report.examples
    assert report.difference == (0, 0, 0)
    assert "no row has a place for leet, homoglyph, which are left out of the mean" in report.warnings


def test_some_untouched_rows_are_counted(model: TextModel) -> None:
    data = TextData.from_rows(["the good", "你好", "made very long"], [0, 1, 1], model.labels)
    report = noise_robustness(model, data, NoiseSettings(("upper", "full-width"), (5,)))
    assert report.cells[1].untouched == 1
    assert any("full-width 1" in line for line in report.warnings)


def test_a_kind_that_the_tokenizer_undoes_is_warned_of_and_costs_nothing(
    model: TextModel, labelled: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny tokenizer lowers all letters."""
    data = labelled(20)
    asked = count_rows(model, monkeypatch)
    report = noise_robustness(model, data, NoiseSettings(("upper", "random-case"), (1, 3, 5)))
    assert sum(asked) == len(set(data.texts))
    assert {cell.same_tokens for cell in report.cells} == {1.0}
    assert {cell.value for cell in report.cells} == {report.clean}
    assert [line.split(":")[0] for line in report.warnings] == ["upper", "random-case"]


def test_words_behind_the_longest_text_are_warned_of(tiny_model: Classifier) -> None:
    model = tiny_model(dropout=0.0, max_length=8)
    texts = [" ".join(WORDS[i : i + 12]) for i in range(20)]
    report = noise_robustness(
        model, TextData.from_rows(texts, [0, 1] * 10, model.labels), NoiseSettings(("append",), (5,))
    )
    assert report.cells[0].changed == 1
    assert report.cells[0].same_tokens == 1
    assert report.warnings


def test_repeated_texts_are_asked_once(model: TextModel, labelled: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(10)
    twice = data.select([*range(10), *range(10)])
    asked = count_rows(model, monkeypatch)
    settings = NoiseSettings(("keyboard",), (1, 5))
    noise_robustness(model, twice, settings)
    texts = [
        noise(text, "keyboard", strength, seed_of(settings, 0), row)
        for strength in (1, 5)
        for row, (text,) in enumerate(twice.texts)
    ]
    assert sum(asked) <= len({text for (text,) in twice.texts} | set(texts))
    assert sum(asked) < 60


def count_rows(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each forward pass from now on."""
    counts, forward = list[int](), model.forward

    def counted(batch: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(batch["input_ids"]))
        return forward(batch, *args, **options)

    monkeypatch.setattr(model, "forward", counted)
    return counts


def test_progress_adds_up(model: TextModel, labelled: Rows) -> None:
    done = list[int]()
    noise_robustness(model, labelled(20), FEW, progress=done.append)
    assert sum(done) == FEW.progress_total(20)
    assert min(done) > 0


def test_examples_show_what_changed(model: TextModel, labelled: Rows) -> None:
    report = noise_robustness(model, labelled(60, seed=3), NoiseSettings(strengths=(5,)))
    assert report.examples
    assert len({example.kind for example in report.examples}) == len(report.examples) <= 12
    for example in report.examples:
        (text,) = example.texts
        assert "⟦" in text
        assert text.isprintable()
        assert example.label != example.predicted


def test_the_result_depends_on_neither_batches_nor_the_global_state(model: TextModel, labelled: Rows) -> None:
    data = labelled(30)
    torch.manual_seed(0)
    first = noise_robustness(model, data, FEW, batch_size=7).to_dict()
    torch.manual_seed(1)
    assert noise_robustness(model, data, FEW, batch_size=64).to_dict() == first


@pytest.mark.parametrize("side", ["both", "first", "second"])
def test_of_pairs_the_side_that_is_named_changes(tiny_model: Classifier, side: Any) -> None:
    model = tiny_model(dropout=0.0)
    pairs = list(zip(sentences(20), sentences(20, seed=1), strict=True))
    data = TextData.from_rows(pairs, [0, 1] * 10, model.labels)
    settings = NoiseSettings(("add-space",), (5,), side=side)
    report = noise_robustness(model, data, settings)
    noisy = [
        tuple(
            noise(text, "add-space", 5, seed_of(settings, 0, i), row)
            if side == "both" or i == (side == "second")
            else text
            for i, text in enumerate(pair)
        )
        for row, pair in enumerate(pairs)
    ]
    assert report.cells[0].value == pytest.approx(accuracy(model, data, noisy))
    for example in report.examples:
        marked = ["⟦" in text for text in example.texts]
        assert marked[0] or side == "second"
        assert not (marked[1] and side == "first")
        assert not (marked[0] and side == "second")


def test_words_of_other_classes_are_added(tiny_model: Classifier) -> None:
    model = tiny_model(dropout=0.0)
    assert model.labels is not None
    data = TextData.from_rows(["the good", "very long"], [0, 1], model.labels)
    train = TextData.from_rows(["apple apple", "Pear", "plum it"], [0, 1, 2], model.labels)
    from contraverse.evaluation.noise.texts import word_pools

    pools = word_pools(train, data)
    assert [set(pool) for pool in pools or ()] == [{"pear", "plum"}, {"apple", "plum"}]
    assert word_pools(None, data) is None
    report = noise_robustness(model, data, NoiseSettings(("append",), (5,)), train=train)
    assert report.rows == 2


def test_a_regression_has_its_correlation(tiny_model: Classifier) -> None:
    model = tiny_model(dropout=0.0, labels=["score"])
    texts = sentences(40)
    data = TextData.from_rows(texts, [float(len(text)) + 0.5 for text in texts])
    report = noise_robustness(model, data, FEW, metric="spearman")
    assert isinstance(report, NoiseReport)
    assert report.recall == {}
    assert -100 <= report.mean.value <= 100
    with pytest.raises(UserError, match="regression"):
        noise_robustness(model, data, FEW, metric="accuracy")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kinds": ("keyborrd",)}, "keyboard"),
        ({"strengths": (6,)}, "1 to 5, not 6"),
        ({"strengths": ()}, "one strength"),
        ({"draws": 0}, "one draw"),
        ({"side": "left"}, "not 'left'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        NoiseSettings(**settings)


def test_no_rows_and_no_labels_are_refused(model: TextModel, labelled: Rows) -> None:
    with pytest.raises(UserError, match="no labels"):
        noise_robustness(model, TextData.from_rows(["the good"]), FEW)
    with pytest.raises(UserError, match="no rows"):
        noise_robustness(model, labelled(4).select([]), FEW)


def test_emoji_and_long_texts_have_figures(model: TextModel) -> None:
    texts = ["👩\u200d👧🇪🇺", "the good way " * 1700, "!", "e\u0301te\u0301"]
    data = TextData.from_rows(texts, [0, 1, 1, 0], model.labels)
    report = noise_robustness(model, data, NoiseSettings(strengths=(1,)))
    assert len(report.cells) == len(KINDS)
    assert all(0 <= cell.value <= 100 for cell in report.cells)
