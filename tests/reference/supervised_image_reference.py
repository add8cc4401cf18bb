"""TRADES and ACL's eq. (3) written out from the papers, one row and one class at a time, in float64.

Logits are (N, C). Natural logarithms. Losses are scalars that can be differentiated.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def probabilities(logits: Tensor, temperature: float = 1.0) -> list[Tensor]:
    """Of each class of one row (C,): ``exp(l_c / T) / sum_k exp(l_k / T)``."""
    powers = [(value / temperature).exp() for value in logits.double()]
    below = sum(powers, torch.zeros((), dtype=torch.float64))
    return [power / below for power in powers]


def cross_entropy_row(logits: Tensor, label: int) -> Tensor:
    """``-log p_y`` of one row (C,)."""
    return -probabilities(logits)[label].log()


def kl_row(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """``KL(p || q) = sum_c p_c log(p_c / q_c)`` of one row (C,)."""
    total = torch.zeros((), dtype=torch.float64)
    for p, q in zip(probabilities(p_logits), probabilities(q_logits), strict=True):
        total = total + p * (p / q).log()
    return total


def distillation_row(logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """``-sum_c p_c log q_c`` of one row (C,): p of the teacher's ``soft`` logits, q of ``logits``, both at T.

    The cross-entropy and not the divergence: they differ by the teacher's entropy, a constant.
    """
    total = torch.zeros((), dtype=torch.float64)
    for p, q in zip(probabilities(soft, temperature), probabilities(logits, temperature), strict=True):
        total = total - p * q.log()
    return total


def mean(values: list[Tensor]) -> Tensor:
    return sum(values, torch.zeros((), dtype=torch.float64)) / len(values)


def adversarial_training(logits_adv: Tensor, labels: Tensor) -> Tensor:
    """Madry et al.: cross-entropy of the adversarial inputs alone, mean over rows."""
    return mean([cross_entropy_row(row, int(y)) for row, y in zip(logits_adv, labels, strict=True)])


def trades(logits_clean: Tensor, logits_adv: Tensor, labels: Tensor, beta: float) -> Tensor:
    """TRADES: ``mean CE(f(x), y) + beta * mean KL(p(x) || p(x_adv))``; gradients go through both sides of the KL.

    ``beta`` is the paper's 1 / lambda: 6 in ACL's fine-tuning.
    """
    consistency = mean([kl_row(p, q) for p, q in zip(logits_clean, logits_adv, strict=True)])
    return mean([cross_entropy_row(row, int(y)) for row, y in zip(logits_clean, labels, strict=True)]) + (
        beta * consistency
    )


def trades_attacked(logits_clean: Tensor, logits_adv: Tensor) -> Tensor:
    """What TRADES' perturbation climbs, one value per row: ``KL(p(x) || p(x + delta))``, p(x) held constant."""
    return torch.stack([kl_row(p.detach(), q) for p, q in zip(logits_clean, logits_adv, strict=True)])


def semi_supervised(
    logits_clean: Tensor,
    logits_adv: Tensor,
    labels: Tensor,
    soft: Tensor,
    *,
    alpha: float = 0.5,
    temperature: float = 1.0,
    beta: float = 6.0,
) -> Tensor:
    """ACL eq. (3), over a batch of ``N_l + N_u`` rows of which those with a label >= 0 are the labelled ones.

        1 / (N_l + N_u) * ( sum_l [alpha CE(x^_l, y_l) + (1 - alpha) T^2 D(x^_l, p_l)]
                            + sum_u T^2 D(x^_u, p_u) + beta sum_{l, u} KL(p(x) || p(x^)) )

    Args:
        logits_clean, logits_adv: of the student, on x and on x^.
        labels: (N,), -1 where there is none.
        soft: (N, C), the teacher's logits (the model of step ii).
        alpha: weight of the true label beside the teacher's say, in (0, 1).
        temperature: T, of the distillation.
        beta: the paper's 1 / lambda.
    """
    total = torch.zeros((), dtype=torch.float64)
    for clean, adv, label, teacher in zip(logits_clean, logits_adv, labels.tolist(), soft, strict=True):
        distilled = temperature**2 * distillation_row(adv, teacher, temperature)
        if label >= 0:
            total = total + alpha * cross_entropy_row(adv, label) + (1 - alpha) * distilled
        else:
            total = total + distilled
        total = total + beta * kl_row(clean, adv)
    return total / len(labels)


def online_targets(logits_clean: Tensor, logits_adv: Tensor, labels: Tensor, beta: float = 6.0) -> Tensor:
    """UAT with online targets: ``mean over labelled rows CE(f(x), y) + beta * mean over all KL(p(x) || p(x^))``.

    p(x) in KL is a constant, as Alayrac et al. have it; a row without a label has one below 0.
    """
    known = [cross_entropy_row(row, int(y)) for row, y in zip(logits_clean, labels, strict=True) if y >= 0]
    smooth = mean([kl_row(p.detach(), q) for p, q in zip(logits_clean, logits_adv, strict=True)])
    return (mean(known) if known else 0 * smooth) + beta * smooth


def semi_supervised_targets(labels: Tensor, soft: Tensor) -> Tensor:
    """What the attack of eq. (3) is on, as UAT's: the label where there is one, else the teacher's likeliest class."""
    rows = zip(labels.tolist(), soft, strict=True)
    return torch.tensor([label if label >= 0 else int(row.argmax()) for label, row in rows])


def climb(
    loss: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, *, epsilon: float, step_size: float, steps: int
) -> Tensor:
    """PGD in an Linf ball, last iterate, one pixel at a time: exactly ``steps`` gradients; x + delta within [0, 1].

    ``loss(delta)`` is what is climbed, a scalar or one value per row. ``start`` is cut like every iterate; TRADES
    starts from .001 N(0, 1).
    """

    def cut(values: Tensor) -> Tensor:
        kept = [
            min(max(min(max(v, -epsilon), epsilon), -p), 1 - p)
            for v, p in zip(values.flatten().tolist(), x.flatten().tolist(), strict=True)
        ]
        return torch.tensor(kept, dtype=x.dtype).reshape(x.shape)

    delta = cut(start)
    for _ in range(steps):
        delta.requires_grad_()
        (grad,) = torch.autograd.grad(loss(delta).sum(), delta)
        delta = cut(delta.detach() + step_size * grad.sign())
    return delta
