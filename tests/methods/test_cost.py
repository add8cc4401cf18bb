"""The cost that a method states, in forward-units, counted exactly."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference.driving import TEXT_CASES, gradients, make
from reference.tiny import random_batch
from torch.utils.flop_counter import FlopCounterMode

from contraverse.models import TextModel

STATED = {"ce": 3, "cl": 6, "at": 7, "scal": 7, "simcse": 6, "uscal": 10, "freelb": 9, "rar": 11, "carl": 10, "mlm": 3}
STATED |= {"alum": 8, "infobert": 12, "consert": 6, "isbert": 3}
STATED |= {"simclr": 6, "acl-a2a": 26, "acl-a2s": 17, "acl-ds": 32, "dynacl": 28, "deacl": 17}
STATED |= {"pgd-at": 23, "trades": 27, "probe": 1, "probe-pgd": 21, "uat": 27, "uat-offline": 12, "uat-online": 27}


@pytest.fixture
def encoder(tiny_model: Callable[..., TextModel]) -> Callable[..., TextModel]:
    """Deep and wide enough that heads and attention's own products weigh little.

    Without dropout: the kernel of attention that draws it is counted, and the one that does not is not, so that a
    method that turns dropout off would seem cheaper.
    """
    return lambda heads: tiny_model(
        heads=heads, dropout=0.0, hidden_size=64, num_hidden_layers=4, intermediate_size=256
    ).train()  # fmt: skip


def full_rows() -> dict[str, Any]:
    """Eight rows of 16 tokens, their positives and negatives as long."""
    batch = random_batch(8, 16)
    batch["input_ids"][batch["input_ids"] == 0] = 7
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    other = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {**batch, "positive": other, "negative": other}


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("case", TEXT_CASES)
def test_the_stated_cost_is_the_counted_one(case: str, encoder: Callable[..., TextModel]) -> None:
    method, batch = make(case, longest=100, hidden_size=64), full_rows()
    # InfoBERT's critic has 300 units for an encoder of any size: beside one this small it would be no small part.
    model = encoder({n: replace(s, dim=8) if s.kind == "critic" else s for n, s in method.heads.items()})
    # A head over the vocabulary, or as wide as here IS-BERT's, is no small part of a pass: F is then the encoder with
    # it. mlm runs it on a share.
    large = [name for name, spec in method.heads.items() if spec.kind in ("mlm", "ngrams") and method.name != "mlm"]
    forward = flops(lambda: model(batch, want=("tokens", *large)))
    assert forward > 0
    cost = flops(lambda: gradients(method, model, batch)) / forward
    stated = float(method.cost.removesuffix("F"))
    assert cost == pytest.approx(stated, rel=0.03)
    assert stated == STATED.get(case, stated)
