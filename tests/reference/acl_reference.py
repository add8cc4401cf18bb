"""ACL, DynACL and DeACL written out from the papers, one pair of views at a time, in float64.

An ``encode`` is ``encode(pixels, bn_branch) -> features``: pixels (M, C, H, W) in [0, 1], features (M, Z),
``bn_branch`` ``"clean"`` or ``"adversarial"``. Views come as two tensors, row i of both from the same image.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Encode = Callable[[Tensor, str], Tensor]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of two vectors."""
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent of SimCLR: every view against its partner and the 2N - 2 others, mean over the 2N views."""
    n = len(first)
    views = [*first.double(), *second.double()]
    total = torch.zeros((), dtype=torch.float64)
    for i, anchor in enumerate(views):
        partner = i + n if i < n else i - n
        below = torch.zeros((), dtype=torch.float64)
        for k, other in enumerate(views):
            if k != i:
                below = below + (cosine(anchor, other) / temperature).exp()
        above = (cosine(anchor, views[partner]) / temperature).exp()
        total = total - (above / below).log()
    return total / len(views)


def contrast(encode: Encode, first: Tensor, second: Tensor, temperature: float, bn_branch: str) -> Tensor:
    """l_NT of two views that are encoded together: batch norm sees them as one batch of 2N."""
    features = encode(torch.cat([first, second]), bn_branch)
    return nt_xent(features[: len(first)], features[len(first) :], temperature)


def s2s(encode: Encode, first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR."""
    return contrast(encode, first, second, temperature, "clean")


def a2a(encode: Encode, first: Tensor, second: Tensor, deltas: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    """Both views perturbed, through the adversarial batch norm."""
    return contrast(encode, first + deltas[0], second + deltas[1], temperature, "adversarial")


def a2s(encode: Encode, first: Tensor, second: Tensor, delta: Tensor, temperature: float) -> Tensor:
    """The first view perturbed, through the adversarial batch norm, against the second through the clean one."""
    return nt_xent(encode(first + delta, "adversarial"), encode(second, "clean"), temperature)


def dual_stream(
    encode: Encode,
    first: Tensor,
    second: Tensor,
    deltas: tuple[Tensor, Tensor],
    temperature: float,
    alpha: float = 1.0,
) -> Tensor:
    """Algorithm 1 of ACL as it is printed: l_NT(clean) + alpha l_NT(adversarial). The authors' code has half of it."""
    clean = s2s(encode, first, second, temperature)
    return clean + alpha * a2a(encode, first, second, deltas, temperature)


def climb(
    loss: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, *, epsilon: float, step_size: float, steps: int
) -> Tensor:
    """PGD in an Linf ball, last iterate: exactly ``steps`` gradients; x + delta stays within [0, 1] after each step.

    ``loss(delta)`` is what is climbed, a scalar or one value per row; two views are attacked together by giving both
    in one ``x``. A ``start`` outside [0, 1] is cut like every iterate.
    """
    delta = (x + start.clamp(-epsilon, epsilon)).clamp(0, 1) - x
    for _ in range(steps):
        delta = delta.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(delta).sum(), delta)
        moved = (delta.detach() + step_size * grad.sign()).clamp(-epsilon, epsilon)
        delta = (x + moved).clamp(0, 1) - x
    return delta.detach()


def dynacl_strength(epoch: int, epochs: int, every: int = 50) -> float:
    """mu(t) = 1 - floor(t / K) K / T of DynACL for t = ``epoch``, counted from 0: how strong the views are."""
    return 1 - (epoch // every) * every / epochs


def dynacl_weight(epoch: int, epochs: int, every: int = 50, rate: float = 2 / 3) -> float:
    """omega(t) = nu (1 - mu(t)) for t = ``epoch``, counted from 0.

    The authors' code counts epochs from 1 for this one and from 0 for mu: its last epoch of each K is one round ahead.
    """
    return rate * (1 - dynacl_strength(epoch, epochs, every))


def dynacl(clean: Tensor, adversarial: Tensor, omega: float) -> Tensor:
    """((1 - omega) l_NT(clean) + (1 + omega) l_NT(adversarial)) / 2: the code's halves, the paper has the sum."""
    return ((1 - omega) * clean + (1 + omega) * adversarial) / 2


def ema(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    """What a momentum encoder's weight is after a step."""
    return momentum * old + (1 - momentum) * new


def deacl_attacked(student_adv: Tensor, teacher: Tensor) -> Tensor:
    """What DeACL's perturbation climbs, one value per row: -cos(s(x + delta), t(x))."""
    return torch.stack([-cosine(a, b) for a, b in zip(student_adv, teacher, strict=True)])


def deacl(student: Tensor, student_adv: Tensor, teacher: Tensor, weight: float = 2.0) -> Tensor:
    """DeACL: -cos(s(x), t(x)) - weight cos(s(x_adv), s(x)), mean over rows; features (N, H)."""
    total = torch.zeros((), dtype=torch.float64)
    for s, s_adv, t in zip(student.double(), student_adv.double(), teacher.double(), strict=True):
        total = total - cosine(s, t) - weight * cosine(s_adv, s)
    return total / len(student)
