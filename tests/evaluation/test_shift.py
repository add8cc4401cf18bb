"""Representation shift against what is known of a linear model, and against one row at a time."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.bag_of_words import BagOfWords, mostly_right

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evaluation import AttackSettings, representation_shift, shift_attempts
from contraverse.models import TextModel

MakeModel = Callable[..., TextModel]
MakeData = Callable[..., TextData]


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_a_linear_model_of_two_classes_equals_the_closed_form(
    bag: Callable[[int], BagOfWords], labelled: MakeData, attack: Any
) -> None:
    """The worst L2 perturbation moves every token by epsilon / sqrt(T) along w_other - w_y, and so h. Rows that are
    wrong clean are moved too."""
    model = bag(2)
    data = mostly_right(model, labelled(20))
    sentences, weight, _ = model.arrays(data)
    report = representation_shift(model, data, [0.4, 1.2], attack=attack, batch_size=6)
    assert report.climbed == "class"
    for epsilon, found in report.at.items():
        for i, (sentence, label) in enumerate(zip(sentences, data.labels or (), strict=True)):
            way = weight[1 - int(label)] - weight[int(label)]
            h = sentence.mean(0)
            moved = h + epsilon / np.sqrt(len(sentence)) * way / np.linalg.norm(way)
            cosine = h @ moved / np.linalg.norm(h) / np.linalg.norm(moved)
            assert found.cosine[i] == pytest.approx(cosine, abs=1e-4)
            assert found.euclidean[i] == pytest.approx(np.linalg.norm(moved - h), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_distances_have_a_unit_the_distance_between_the_means_of_two_classes(
    bag: Callable[[int], BagOfWords], labelled: MakeData, classes: int
) -> None:
    model = bag(classes)
    data = mostly_right(model, labelled(20))
    sentences, _, _ = model.arrays(data)
    h, labels = np.stack([sentence.mean(0) for sentence in sentences]), np.asarray(data.labels)
    means = [h[labels == label].mean(0) for label in sorted(set(labels.tolist()))]
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]]
    report = representation_shift(model, data, [0.4], batch_size=6)
    assert report.between == pytest.approx(np.mean(pairs), rel=1e-4)
    (at,) = report.to_dict()["at"]
    assert at["relative"] == pytest.approx(at["euclidean"] / np.mean(pairs), rel=1e-4)
    single = data.select([i for i, label in enumerate(labels) if label == labels[0]])
    assert representation_shift(model, single, [0.4]).between is None


@pytest.mark.parametrize("labels", [None, "unlabelled"])
def test_without_classes_or_labels_the_distance_is_climbed(
    tiny_model: MakeModel, labelled: MakeData, labels: str | None
) -> None:
    """Farther than the attack on the classification loss and than chance, and further at a larger radius."""
    data = labelled(16)
    bare = TextData.from_rows(data.texts)
    model = tiny_model() if labels else tiny_model(labels=None)
    report = representation_shift(model, bare, [0.1, 0.4], steps=10, batch_size=5)
    assert report.climbed == "distance"
    means = [found.euclidean.mean() for found in report.at.values()]
    assert 0 < means[0] < means[1]
    other = tiny_model()
    aimed = representation_shift(other, data, [0.4], steps=10).at[0.4].euclidean
    assert means[1] > aimed.mean()


def test_an_encoder_equals_pgd_one_row_at_a_time(tiny_model: MakeModel, labelled: MakeData) -> None:
    model, data = tiny_model(dropout=0.0), labelled(6)
    found = representation_shift(model, data, [0.5], steps=3).at[0.5]
    for i, ((text,), label) in enumerate(zip(data.texts, data.labels or (), strict=True)):
        item = model.tokenizer([text], return_tensors="pt")
        delta = torch.zeros(1, item["input_ids"].shape[1], 32, requires_grad=True)
        tried = []
        for step in range(4):
            logits = model(item, delta=delta).logits
            loss = F.cross_entropy(logits, torch.tensor([label]))
            tried.append((float(loss.detach()), delta.detach()))
            if step < 3:
                (gradient,) = torch.autograd.grad(loss, delta)
                moved = delta.detach() + 2.5 * 0.5 / 3 * gradient / gradient.norm()
                delta = (moved * min(1.0, 0.5 / float(moved.norm()))).requires_grad_()
        worst = max(tried, key=lambda pair: pair[0])[1]
        with torch.no_grad():
            h, h_adv = (model(item, delta=d, want=("h",)).h for d in (None, worst))
        assert found.euclidean[i] == pytest.approx(float((h - h_adv).norm()), rel=1e-3)
        assert found.cosine[i] == pytest.approx(float(F.cosine_similarity(h, h_adv)), rel=1e-3)


def test_restarts_find_the_larger_margin_and_do_not_depend_on_the_batch(
    tiny_model: MakeModel, labelled: MakeData
) -> None:
    model, data = tiny_model(labels=None), TextData.from_rows(labelled(9).texts)
    few, many, again = (
        representation_shift(model, data, [1.0], steps=2, restarts=restarts, batch_size=size).at[1.0].euclidean
        for restarts, size in ((1, 9), (4, 9), (4, 2))
    )
    assert (many >= few - 1e-4).all()
    assert (many > few + 1e-3).any()
    np.testing.assert_allclose(many, again, rtol=1e-3)


@pytest.mark.parametrize(("attack", "attempts"), [("pgd", 2), ("apgd", 4)])
def test_progress_adds_up(tiny_model: MakeModel, labelled: MakeData, attack: Any, attempts: int) -> None:
    seen: list[int] = []
    representation_shift(tiny_model(), labelled(7), [0.1, 0.2, 0.2], attack=attack, steps=1, restarts=2, batch_size=3,
                         progress=seen.append)  # fmt: skip
    assert sum(seen) == 7 * 2 * attempts
    assert shift_attempts(AttackSettings(attack=attack, restarts=2), 3, labelled=True) == attempts
    assert shift_attempts(AttackSettings(attack=attack, restarts=2), 3, labelled=False) == 2


def test_the_model_and_the_random_state_are_left_as_they_were(tiny_model: MakeModel, labelled: MakeData) -> None:
    model, before = tiny_model().train(), torch.get_rng_state()
    report = representation_shift(model, labelled(4), [0.1], restarts=2)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    found = json.loads(json.dumps(report.to_dict()))
    assert found["at"][0]["cosine"] == pytest.approx(report.at[0.1].cosine.mean())
    assert (found["climbed"], found["attack"]["name"]) == ("class", "pgd")


def test_a_relative_radius_is_a_share_of_the_row(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(2)
    data = mostly_right(model, labelled(8))
    lengths = np.array([np.linalg.norm(sentence) / np.sqrt(len(sentence)) for sentence in model.arrays(data)[0]])
    found = representation_shift(model, data, [0.2], relative=True).at[0.2]
    np.testing.assert_allclose(found.euclidean, 0.2 * lengths, rtol=1e-4)


def test_impossible_settings_are_refused(tiny_model: MakeModel, labelled: MakeData) -> None:
    with pytest.raises(UserError, match="epsilon"):
        representation_shift(tiny_model(), labelled(3), [0.0])
    scores = TextData.from_rows(labelled(3).texts, labels=[0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="regression"):
        representation_shift(tiny_model(labels=("score",)), scores, [0.1])
