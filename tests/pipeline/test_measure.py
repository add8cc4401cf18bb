"""By which batch norms a dual model of a run is measured."""

from typing import Any

import pytest
import torch
from reference.driving import CASES, gradients, make
from reference.images import image_batch, tiny

from contraverse.methods import METHODS
from contraverse.pipeline import bn_branch_of
from contraverse.recipes import configure

OF_IMAGES = [
    case
    for case, (name, settings) in CASES.items()
    if METHODS[name].modality != "text"
    and all(head.kind not in ("mlm", "pooler") for head in METHODS[name](**settings).heads.values())
]


@pytest.mark.parametrize("case", OF_IMAGES)
def test_a_method_s_route_is_adversarial_where_it_trains_that_set(case: str) -> None:
    batch: dict[str, Any] = image_batch(rows=8, size=16)
    pair = {"pixel_values": image_batch(rows=8, size=16, seed=1)["pixel_values"]}
    method = make(case, hidden_size=64, labels=batch["labels"])
    model = tiny(dual=True, heads=method.heads).train()
    found = gradients(method, model, {**batch, "positive": pair, "negative": pair})
    sets = {
        part
        for name, grad in found.items()
        for part in ("clean", "adversarial")
        if f".{part}." in name and bool(torch.any(grad != 0))
    }
    if method.trainable == "classifier":  # the frozen batch norms have no gradient; the method names their bn_branch
        assert method.bn_branch == ("adversarial" if hasattr(method, "ball") else "clean")
        return
    assert sets
    assert method.bn_branch == ("adversarial" if "adversarial" in sets else "clean")


def test_the_route_of_a_run_is_its_method_s_and_of_no_run_adversarial() -> None:
    assert bn_branch_of(None) == "adversarial"
    for method, bn_branch in (
        ("ce", "clean"),
        ("pgd-at", "adversarial"),
        ("trades", "adversarial"),
        ("probe", "clean"),
    ):
        assert bn_branch_of(configure(method, task="images", source="x")) == bn_branch
    probed = configure("probe", task="images", source="x", settings={"method.attack": "pgd"})
    assert bn_branch_of(probed) == "adversarial"
