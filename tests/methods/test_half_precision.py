"""T17: an attack's gradient under float16 autocast is that of float32, row by row, however small the loss is."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.draws import Still
from reference.driving import CASES, make, ready
from reference.images import image_batch, tiny
from reference.tiny import random_batch
from torch import Tensor

from contraverse.attacks import NormBall
from contraverse.methods import METHODS, infobert
from contraverse.models import ImageModel, TextModel

Make = Callable[..., TextModel]

ROWS, FITTED = 8, 2e-4
FLAT = {"temperature": 1e4}
"""A contrastive loss whose gradient is as small as a fitted one's; a tiny random model does not tell rows so well."""
FAR = {"epsilon": 0.5, "step_size": 0.5, "sigma": 0.1}
"""A start from which the prediction differs by more than float16 rounds it."""
OTHER_SETTINGS: dict[str, dict[str, Any]] = {
    "uscal": FLAT,
    "consert": FLAT | {"first": "adversarial", "second": "shuffle"},
    "smart": FAR | {"mu": 0.0},
    "alum": FAR,
    "vat": {"xi": 0.5},
    "infobert": {"beta": 0.0},
    "carl": {"negatives": 2},
    "trades": {"norm": "l2", "epsilon": 1.0, "sigma": 0.3},
    "probe": {"attack": "pgd"},
    "acl-a2a": FLAT,
    "acl-a2s": FLAT,
    "acl-ds": FLAT,
    "dynacl": FLAT,
    "selfie": {"clean": 0.0},
}
"""Of methods whose defaults would show rounding, or have no attack."""
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "at-fgsm": ("at", {"attack": "fgsm", "epsilon": 0.01}),
    # FreeLB climbs the gradient that training leaves behind, which a gradient scaler scales: tested below.
    **{
        name: (name, OTHER_SETTINGS.get(name, {}))
        for name, method in METHODS.items()
        if hasattr(method(**OTHER_SETTINGS.get(name, {})), "ball") and name != "freelb"
    },
}
"""Each method that takes an attack's gradient beside training's own."""


@pytest.fixture(autouse=True)
def _cases() -> Iterator[None]:
    before = dict(CASES)
    CASES.update({f"half-{name}": case for name, case in SETTINGS.items()})
    yield
    CASES.clear()
    CASES.update(before)


def test_every_method_that_attacks_is_here() -> None:
    attacking = {CASES[case][0] for case in CASES if hasattr(make(case), "ball")}
    assert attacking - {"freelb"} == {name for name, _ in SETTINGS.values()}
    assert set(OTHER_SETTINGS) <= attacking


def fitted(model: TextModel | ImageModel, batch: dict[str, Any]) -> None:
    """Give the classifier a bias by which cross-entropy is `FITTED` on a batch of one class."""
    bias = (model.encoder if isinstance(model, TextModel) else model).classifier.bias
    batch["labels"] = torch.zeros_like(batch["labels"])
    with torch.no_grad():
        low, high, start = -50.0, 50.0, bias[0].item()
        for _ in range(40):
            bias[0] = start + (low + high) / 2
            too_high = F.cross_entropy(model(batch).logits, batch["labels"]) > FITTED
            low, high = ((low + high) / 2, high) if too_high else (low, (low + high) / 2)


@contextmanager
def climbed() -> Iterator[list[Tensor]]:
    """Gradients that balls climb inside, in order; those that are all zero, along which a ball only projects, not."""
    seen: list[Tensor] = []
    step = NormBall.step

    def watched(self: NormBall, delta: Tensor, grad: Tensor, inputs: Any) -> Tensor:
        if not isinstance(grad, Tensor) or grad.any():
            seen.append(torch.where(inputs.mask, grad, 0.0).detach().float())
        return step(self, delta, grad, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NormBall, "step", watched)
        yield seen


def ready_for(case: str, tiny_model: Make) -> tuple[TextModel | ImageModel, dict[str, Any]]:
    """A fitted model and its batch."""
    method = make(case)
    model: TextModel | ImageModel
    if method.modality == "images":
        model, batch = tiny(heads=method.heads), image_batch(ROWS, 16)
    else:
        # A contrastive loss needs rows that differ by more than float16 rounds them.
        spread = 0.2 if "temperature" in CASES[case][1] else 0.02
        model = tiny_model(dropout=0.0, heads=method.heads, initializer_range=spread).train()
        batch = random_batch(ROWS, 12)
    fitted(model, batch)
    ready(method, model)
    return model, batch


def first_gradient(
    case: str, model: TextModel | ImageModel, batch: dict[str, Any], half: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Climbed first, from the same start in both precisions; and what the step logs, driven as a scaler does."""
    method, scale = make(case), 2.0**16 if half else 1.0
    model = copy.deepcopy(model)  # training passes move the statistics of a head's batch norm
    ready(method, model)
    still = Still() if method.stochastic else nullcontext()
    parts: dict[str, Tensor] = {}
    with climbed() as seen, still, torch.autocast("cpu", dtype=torch.float16, enabled=half):
        for loss in method.losses(model, batch):
            (loss.total * scale).backward()
            parts = loss.parts
    assert seen
    return seen[0], parts


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_fitted_row_is_attacked_as_in_single_precision(name: str, tiny_model: Make) -> None:
    model, batch = ready_for(f"half-{name}", tiny_model)
    exact, _ = first_gradient(f"half-{name}", model, batch, half=False)
    rough, parts = first_gradient(f"half-{name}", model, batch, half=True)
    cosines = F.cosine_similarity(exact.flatten(1), rough.flatten(1))
    # Selfie's attention over patches rounds its forward pass more than others do.
    assert cosines.min() > (0.98 if name == "selfie" else 0.99)
    assert int(parts["zero_grad_rows"]) == 0
    sizes = (rough.flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).log()
    assert sizes.abs().max() < 0.2, "a factor of half precision was not divided out again"


def test_infobert_ranks_the_tokens_of_a_fitted_row(tiny_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anchored features are chosen by the norm of a token's gradient."""
    model, batch = ready_for("half-infobert", tiny_model)
    anchored, seen = infobert.anchored, []

    def watched(*arguments: Any) -> Any:
        seen.append(anchored(*arguments))
        return seen[-1]

    monkeypatch.setattr(infobert, "anchored", watched)
    for half in (False, True):
        first_gradient("half-infobert", model, batch, half)
    (exact, valid), (rough, _) = seen[0], seen[len(seen) // 2]
    assert (exact == rough)[valid].float().mean() > 0.9


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_freelb_climbs_the_gradient_that_a_scaler_scales(tiny_model: Make, scale: float) -> None:
    """Without one training itself loses its gradient, and the log says so: all rows are counted as dead."""
    model, batch = ready_for("freelb", tiny_model)
    seen: dict[bool, Tensor] = {}
    for half in (False, True):
        with climbed() as gradients, torch.autocast("cpu", dtype=torch.float16, enabled=half):
            for loss in make("freelb").losses(model, batch):
                (loss.total * scale).backward()
                parts = loss.parts
        seen[half] = gradients[0]
    cosines = F.cosine_similarity(seen[False].flatten(1), seen[True].flatten(1))
    assert bool(cosines.min() > 0.99) == (scale > 1)
    assert int(parts["zero_grad_rows"]) == (0 if scale > 1 else ROWS)
