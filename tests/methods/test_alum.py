"""ALUM: what its gradient goes through; the attack is SMART's, and tested there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import smart_reference as reference
from reference.driving import Watched, flat, gradients, losses_of
from torch import Tensor

from contraverse.methods import ALUM
from contraverse.models import TextModel

Make = Callable[..., TextModel]
FAR = {"epsilon": 0.05, "step_size": 0.1, "sigma": 0.01}


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_the_total_is_that_of_the_paper(tiny_model: Make, batch: Any) -> None:
    model = tiny_model(dropout=0.0).train()
    watched = Watched(model)
    (loss,) = losses_of(ALUM(**FAR, weight=10.0), watched, batch)
    clean, moved = (array(watched.watch.passes()[i].out.logits) for i in (0, -1))
    ce = F.cross_entropy(torch.from_numpy(clean), batch["labels"]).item()
    assert loss.total.item() == pytest.approx(reference.alum_total(ce, clean, moved, 10.0), rel=1e-4)
    assert loss.parts["virtual"].item() == pytest.approx(
        reference.mean_of(reference.symmetric_kl, moved, clean), rel=1e-3
    )


def test_each_prediction_is_drawn_to_the_other_as_it_stands(tiny_model: Make, batch: Any) -> None:
    """The first of each KL's two distributions is constant: torch's own cross-entropy with soft targets, both ways."""
    model = tiny_model(dropout=0.0).train()
    method = ALUM(**FAR, weight=3.0)
    watched = Watched(model)
    losses_of(method, watched, batch)
    delta = watched.watch.passes()[-1].delta
    got = gradients(method, model, batch)
    model.zero_grad()
    p, q = model(batch).logits, model(batch, delta=delta).logits
    soft = F.cross_entropy(q, p.detach().softmax(-1)) + F.cross_entropy(p, q.detach().softmax(-1))
    (F.cross_entropy(p, batch["labels"]) + 3 * soft).backward()
    want = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-3, atol=1e-5)


def test_the_defaults_are_the_papers_but_for_the_size() -> None:
    method = ALUM()
    assert (method.weight, method.sigma, method.steps, method.cost) == (1.0, 0.005, 1, "8F")
    assert (method.ball.epsilon, method.ball.step_size, method.ball.norm) == (0.02, 0.02, "linf")
    assert not method.needs_reference_model
