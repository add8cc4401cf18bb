"""Clusters of features: what k-means minimises, whose features they are, and the match with classes."""

from itertools import permutations

import numpy as np
import pytest
import torch
from reference.images import CLASSES, buffers, tiny
from sklearn.cluster import KMeans

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images import find_clusters, matched_accuracy
from contraverse.models import ImageModel
from contraverse.types import BNBranch

ROUTES: tuple[BNBranch, ...] = ("clean", "adversarial")


def embedded(model: ImageModel, data: ImageData, bn_branch: BNBranch) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.plain(bn_branch)(data.pixels.float() / 255))


def images(rows: int) -> ImageData:
    random = np.random.default_rng(0)
    return ImageData.from_arrays(random.integers(0, 256, (rows, 8, 8, 3)).astype(np.uint8), None, CLASSES)


def test_no_split_of_the_features_is_closer() -> None:
    random, light = np.random.default_rng(0), np.array([0, 1, 0, 0, 1, 1, 0, 1, 0, 0])
    pixels = random.normal(60 + 120 * light[:, None, None, None], 25, (10, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    model, data = tiny(None), ImageData.from_arrays(pixels, None, CLASSES)
    found = find_clusters(model, data, 2, batch_size=4)
    features = embedded(model, data, "clean")

    def spread(split: np.ndarray) -> float:
        return float(sum(((features[split == k] - features[split == k].mean(0)) ** 2).sum() for k in (0, 1)))

    splits = (np.array([int(bit) for bit in f"{number:010b}"]) for number in range(1, 2**10 - 1))
    assert spread(found.numpy()) == pytest.approx(min(map(spread, splits)), rel=1e-5)
    assert len({tuple(split) for split in (found.tolist(), light.tolist(), (1 - light).tolist())}) == 2


def test_the_features_are_those_of_the_route_in_eval_mode() -> None:
    model, data = tiny(None, dual=True), images(30)
    before = buffers(model)
    found = {bn_branch: find_clusters(model, data, 3, bn_branch=bn_branch, batch_size=8) for bn_branch in ROUTES}
    assert all(torch.equal(value, before[name]) for name, value in buffers(model).items())
    for bn_branch in ROUTES:
        fitted = KMeans(3, n_init=10, random_state=0).fit(embedded(model, data, bn_branch))
        assert found[bn_branch].tolist() == fitted.labels_.tolist()
    assert not torch.equal(found["clean"], found["adversarial"])
    assert torch.equal(find_clusters(model, data, 3), found["clean"])


def test_the_seed_decides() -> None:
    model, data = tiny(None), images(30)
    assert torch.equal(find_clusters(model, data, 5, seed=1), find_clusters(model, data, 5, seed=1))


@pytest.mark.parametrize("clusters", [1, 11])
def test_impossible_counts(clusters: int) -> None:
    with pytest.raises(UserError, match=f"{clusters} clusters of 10 images"):
        find_clusters(tiny(None), images(10), clusters)


@pytest.mark.parametrize("sides", [(4, 4), (5, 3), (3, 5)])
def test_the_best_matching_of_clusters_and_classes(sides: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    clusters, labels = random.integers(0, sides[0], 60), random.integers(0, sides[1], 60)
    clusters[0], labels[0] = sides[0] - 1, sides[1] - 1
    most = max(
        sum(int(classes[k] == labels[i]) for i, k in enumerate(clusters) if k < len(classes))
        for classes in permutations([*range(sides[1]), *[-1] * max(0, sides[0] - sides[1])], sides[0])
    )
    assert matched_accuracy(torch.from_numpy(clusters), torch.from_numpy(labels)) == pytest.approx(100 * most / 60)
