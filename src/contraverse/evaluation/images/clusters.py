"""Pseudo-labels without any label: clusters of an encoder's features (DynACL++, `LPAFT.py` of its authors)."""

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images.probing import features
from contraverse.functional import on_first
from contraverse.models.image import ImageModel
from contraverse.types import BNBranch


def find_clusters(
    model: ImageModel,
    data: ImageData,
    clusters: int,
    *,
    seed: int = 0,
    bn_branch: BNBranch = "clean",
    batch_size: int = 250,
) -> Tensor:
    """The cluster of each image, (N,) in 0 .. clusters - 1, by k-means on its features h in eval mode.

    The best of ten starts; labels of ``data`` are not used.

    Args:
        model: left as it was.
        data: images as they are, without views.
        clusters: >= 2 and at most as many as there are images.
        seed: of the starts. The same seed gives the same clusters.
        bn_branch: which set of a dual model's batch norms; the authors take the clean one.
        batch_size: images a batch.

    Raises:
        UserError: more clusters than images, or fewer than two.
    """
    if not 2 <= clusters <= len(data):
        raise UserError(f"{clusters} clusters of {len(data):,} images are not possible", where=data.source)
    embedded = features(model, data, bn_branch, batch_size).numpy()
    labels = on_first(lambda: KMeans(clusters, n_init=10, random_state=seed).fit_predict(embedded))
    return torch.from_numpy(labels).long()


def matched_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Percent of rows that lie in the cluster of their class, with the best one-to-one matching of the two.

    Args:
        clusters: (N,), of each row.
        labels: (N,), the true class of each.
    """
    sides = int(clusters.max()) + 1, int(labels.max()) + 1
    counts = torch.bincount(clusters * sides[1] + labels, minlength=sides[0] * sides[1]).view(sides).numpy()
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return 100 * float(counts[rows, columns].sum()) / len(labels)
