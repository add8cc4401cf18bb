"""Results of a classifier by class and by row, with the rows themselves, as a report shows them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.nn.functional import interpolate

from contraverse.data import ImageData, ImageTask, Task, TextData
from contraverse.evaluation import RobustReport
from contraverse.evaluation.breakdown import MOST_ROWS, breakdown
from contraverse.reporting import data_uri

LONGEST, LARGEST = 400, 96
"""Characters of a text, and pixels of an image's longer side, that are kept."""


def breakdown_of(
    rows: TextData | ImageData,
    task: Task | ImageTask,
    names: Sequence[str],
    logits: np.ndarray,
    labels: np.ndarray,
    report: RobustReport | None = None,
) -> dict[str, Any]:
    """`contraverse.evaluation.breakdown.Breakdown` for JSON, each row with its ``texts`` or its ``image``.

    Args:
        rows: N rows; ``row`` in the result is the number among them.
        task: of the rows.
        names: of the C classes.
        logits: (N, C) without an attack.
        labels: (N,) classes.
        report: of an attack on these rows.
    """
    result = breakdown(logits, labels, names, report, count=MOST_ROWS).to_dict()
    for row in [*result["mistakes"], *result["fragile"]]:
        row |= _image(rows, row["row"]) if task.kind == "images" else _texts(rows, row["row"])
    return result


def _texts(rows: Any, row: int) -> dict[str, Any]:
    return {"texts": [text[:LONGEST] for text in rows.texts[row]]}


def _image(rows: Any, row: int) -> dict[str, Any]:
    image = rows.pixels[row] / 255  # (C, H, W)
    if (side := max(image.shape[1:])) > LARGEST:
        image = interpolate(image[None], scale_factor=LARGEST / side, mode="area")[0]
    return {"image": data_uri(image.numpy())}
