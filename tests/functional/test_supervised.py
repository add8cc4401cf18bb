"""The loss of labelled batches against SCAL eq. (5) and the squared error."""

import pytest
import torch
from reference import equations

from contraverse.functional import supervised_loss


def test_integer_labels_give_equation_5() -> None:
    logits, labels = 3 * torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    assert supervised_loss(logits, labels).item() == pytest.approx(
        equations.cross_entropy(logits.numpy(), labels.tolist()), rel=1e-5
    )
    rows = supervised_loss(logits, labels, reduction="none")
    assert rows.shape == (6,)
    assert rows.mean().item() == pytest.approx(supervised_loss(logits, labels).item(), rel=1e-6)


def test_floating_labels_give_the_squared_error() -> None:
    logits, scores = torch.randn(5, 1), torch.tensor([0.0, 1.5, 5.0, 2.2, 3.1])
    expected = sum((a - b) ** 2 for a, b in zip(logits[:, 0].tolist(), scores.tolist(), strict=True)) / 5
    assert supervised_loss(logits, scores).item() == pytest.approx(expected, rel=1e-5)
    assert supervised_loss(logits, scores, reduction="none").shape == (5,)


def test_one_row_of_regression() -> None:
    assert supervised_loss(torch.tensor([[2.0]]), torch.tensor([5.0]), reduction="none").tolist() == [9.0]


def test_half_precision_logits_are_scored_in_fp32() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert supervised_loss(logits.half(), labels).dtype == torch.float32
    assert supervised_loss(logits[:, :1].half(), torch.ones(4)).dtype == torch.float32
