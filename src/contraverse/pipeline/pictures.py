"""Images that a report shows under attack."""

from collections.abc import Mapping

import numpy as np
import torch

from contraverse.attacks import perturbation_inputs
from contraverse.data import ImageData
from contraverse.evaluation import AttackSettings
from contraverse.evaluation.attack_loop import attack_batch, ball_of, frozen, seeded
from contraverse.evaluation.predict import load_batch, logits_of
from contraverse.models import ImageModel, attacking
from contraverse.reporting import AttackedPicture, Picture, data_uri, stretched


def attacked_pictures(
    models: Mapping[str, ImageModel], data: ImageData, epsilon: float, settings: AttackSettings, count: int = 6
) -> list[Picture]:
    """The first image of each of ``count`` classes, and each model's prediction for it under attack.

    Each is shown with the perturbation of largest loss, within ``epsilon``; the attack maximizes the cross-entropy.
    The set of a dual model's batch norms is the ``bn_branch`` of ``settings``.
    """
    assert data.labels is not None
    assert data.label_names is not None
    labels = data.labels.tolist()
    rows = np.array([labels.index(label) for label in sorted(set(labels))[:count]])
    results = {name: _attacked(model, data, rows, epsilon, settings) for name, model in models.items()}
    pictures = []
    for i, row in enumerate(rows):
        image = data.pixels[row].numpy() / 255
        views = [
            AttackedPicture(
                name,
                data.label_names[int(clean[i])],
                data.label_names[int(attacked[i])],
                data_uri(image + delta[i]),
                data_uri(stretched(delta[i], epsilon)),
            )
            for name, (clean, attacked, delta) in results.items()
        ]
        pictures.append(Picture(data.label_names[labels[row]], data_uri(image), views))
    return pictures


def _attacked(
    model: ImageModel, data: ImageData, rows: np.ndarray, epsilon: float, settings: AttackSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes (R,) clean and under attack, and perturbations (R, 3, H, W)."""
    with attacking(model), frozen(model), seeded(settings.seed):
        batch = load_batch(model, data, rows)
        inputs = perturbation_inputs(model, batch)
        ball = ball_of(inputs, rows, epsilon, settings, attempt=0)
        delta = attack_batch(model, batch, inputs, ball, settings, "ce", settings.random_start).delta
        with torch.no_grad():
            logits = [logits_of(model, batch, moved, bn_branch=settings.bn_branch) for moved in (None, delta)]
    clean, attacked = (each.argmax(-1).cpu().numpy() for each in logits)
    return clean, attacked, delta.cpu().numpy()
