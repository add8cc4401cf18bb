"""Linear separability: how well a linear classifier reads classes off frozen features (ACL, Table 5)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from contraverse.data.images import ImageData
from contraverse.errors import UserError
from contraverse.evaluation.images.pixels import as_floats, labels_of, map_ranges
from contraverse.evaluation.predict import Progress
from contraverse.functional import on_first
from contraverse.models import evaluating
from contraverse.models.finite import checked
from contraverse.models.image import ImageModel
from contraverse.types import BNBranch


@dataclass(frozen=True)
class ProbeReport:
    """Accuracy of the linear classifier, in percent.

    Attributes:
        accuracy: on the test images.
        train_accuracy: on the images that it was fitted on.
        classifier: features (B, H) -> logits (B, classes). Loaded into ``model.copy_for_task(labels,
            bn_branch=bn_branch).classifier`` it can be attacked: the RA of Table 5's standard training.
        bn_branch: the set of batch norms that the features are of.
    """

    accuracy: float
    train_accuracy: float
    classifier: nn.Linear = field(repr=False)
    bn_branch: BNBranch

    @property
    def metrics(self) -> dict[str, float]:
        """``probe``, in percent."""
        return {"probe": self.accuracy}

    def to_dict(self) -> dict[str, Any]:
        """For JSON; without the classifier."""
        return {"accuracy": self.accuracy, "train_accuracy": self.train_accuracy, "bn_branch": self.bn_branch}


def linear_separability(
    model: ImageModel,
    train: ImageData,
    test: ImageData,
    *,
    penalty: float = 1.0,
    bn_branch: BNBranch = "clean",
    batch_size: int = 250,
    progress: Progress | None = None,
) -> ProbeReport:
    """Fit a logistic regression on frozen features of images as they are, and test it.

    The features are standardised by the training part's means and deviations; the regression is fitted to its optimum
    (L-BFGS), so that nothing is drawn at random. ACL's code trains the same classifier by 100 epochs of SGD instead.

    Args:
        model: an `ImageModel`; left as it was. Its own classifier is not used.
        train, test: labelled images of the same classes.
        penalty: C of scikit-learn's regression, the inverse of its L2 penalty, > 0.
        bn_branch: which set of a dual model's batch norms. ACL's code probes the clean one; Table 5 has both.
        batch_size: images a batch.
        progress: called with the number of images that were embedded; they add up to all of both parts.

    Raises:
        UserError: no labels, fewer than two classes to fit, other classes in ``test``, or an impossible setting.
    """
    if not penalty > 0:
        raise UserError(f"penalty must be positive, not {penalty}")
    y, y_test = labels_of(train).numpy(), labels_of(test).numpy()
    if len(np.unique(y)) < 2:
        raise UserError("a classifier needs images of two classes or more", where=train.source)
    if train.label_names != test.label_names:
        raise UserError(f"is labelled {test.label_names}, and {train.source} {train.label_names}", where=test.source)
    x = features(model, train, bn_branch, batch_size, progress).double().numpy()
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation < 1e-12] = 1.0
    fitted = on_first(lambda: LogisticRegression(C=penalty, max_iter=5000).fit((x - mean) / deviation, y))
    classifier = _as_linear(fitted, mean, deviation, len(train.label_names or ()))
    accuracies = []
    for embedded, labels in (
        (torch.from_numpy(x), y),
        (features(model, test, bn_branch, batch_size, progress), y_test),
    ):
        with torch.no_grad():
            accuracies.append(100 * float((classifier(embedded.float()).argmax(1).numpy() == labels).mean()))
    return ProbeReport(accuracies[1], accuracies[0], classifier, bn_branch)


def features(
    model: ImageModel, data: ImageData, bn_branch: BNBranch, batch_size: int = 250, progress: Progress | None = None
) -> Tensor:
    """h of every image in eval mode, (N, H) fp32 on the CPU."""

    def h_of(rows: range) -> np.ndarray:
        batch = {"pixel_values": as_floats(data.pixels[rows], model.device)}
        return np.asarray(model(batch, want=("h",), bn_branch=bn_branch).h.float().cpu())

    with evaluating(model), torch.no_grad():
        parts = map_ranges(len(data.pixels), batch_size, h_of, progress)
    return torch.from_numpy(checked(np.concatenate(parts)))


def _as_linear(fitted: Any, mean: np.ndarray, deviation: np.ndarray, classes: int) -> nn.Linear:
    """The regression and the standardisation before it as one layer; a class that was not fitted is never chosen."""
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # of two classes scikit-learn keeps the second's logit over the first's
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    layer = nn.Linear(weight.shape[1], classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(torch.finfo(layer.bias.dtype).min)
        layer.weight[fitted.classes_] = torch.from_numpy(weight / deviation).float()
        layer.bias[fitted.classes_] = torch.from_numpy(bias - (weight / deviation) @ mean).float()
    return layer.requires_grad_(False)
