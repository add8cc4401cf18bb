"""ACL: adversarial contrastive learning (Jiang et al., 2020), its three options A2A, A2S and DS."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, Perturbation, perturbation_inputs, pgd
from contraverse.functional import Norm, nt_xent
from contraverse.methods.settings import (
    EPSILON,
    STEP_SIZE,
    Epsilon,
    HeadDim,
    HeadLayers,
    Steps,
    StepSize,
    Temperature,
    mlp_projection,
)
from contraverse.methods.views import both_views, second_view
from contraverse.models.modes import attacking, evaluating
from contraverse.types import Batch, BNBranch, ForwardCall, ForwardCalls, Inputs, Loss, Method

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the adversarial stream")]
Reduction = Annotated[Literal["sum", "mean"], Field(description="of the two streams' losses")]


class AdversarialToAdversarial(Method):
    """Both views are perturbed to be unlike each other, and still have to find each other.

        (d_i, d_j) = argmax l_NT(x_i + d_i, x_j + d_j),  ||d||_inf <= epsilon
        L          = l_NT(x_i + d_i, x_j + d_j)

    l_NT is SimCLR's NT-Xent on the projection z. The attack is PGD on both views together, from a uniform start: the
    last of ``steps`` iterates, each within [0, 1], in eval mode. Everything goes through the adversarial batch norm,
    both views in one pass.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2 * 2F for each of the attack's ``steps``,
    and 2F + 2B for training: 26F.

    Departure: the start is cut to [0, 1], which the authors' code does after the first step alone.

    Args:
        temperature: t of NT-Xent, > 0.
        epsilon: largest norm of a perturbation, > 0, in pixels of [0, 1] (of the word embeddings, for sentences).
        step_size: length of one ascent, > 0, in the same units.
        steps: gradients of the attack, >= 1.
        norm: ``"linf"`` or ``"l2"``, of a whole image (of a whole sentence).
        head_layers: linear layers of the projection head, >= 1.
        head_dim: width of what the head gives, >= 1; None: the encoder's.
    """

    name = "acl-a2a"
    summary = "NT-Xent between two adversarial views"
    paper = "ACL"
    equation = "section 2.2, A2A"
    requires = "inputs"
    bn_branch = "adversarial"
    image_views = 2

    @validate_call
    def __init__(
        self,
        *,
        temperature: Temperature = 0.5,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 5,
        norm: Norm = "linf",
        head_layers: HeadLayers = 3,
        head_dim: HeadDim = None,
    ) -> None:
        super().__init__()
        self.heads = mlp_projection(head_layers, head_dim)
        self.ball = NormBall(epsilon, step_size, norm)
        self.temperature, self.steps = temperature, steps

    @property
    def cost(self) -> str:  # type: ignore[override]
        """4F for each ascent, and 6F."""
        return f"{4 * self.steps + 6}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        views = both_views(batch)
        attack, inputs = self.attack(model, views)
        contrast = self.contrast(self.features(model, views, attack.delta, "adversarial"))
        yield Loss(contrast, {"contrast_adv": contrast.detach()} | attack.log(inputs))

    def attack(self, model: nn.Module, views: Batch) -> tuple[Perturbation, Inputs]:
        """Perturbations of both views that climb their NT-Xent together, and what they are added to; 2B rows."""
        inputs = perturbation_inputs(model, views)

        def unlike(delta: Tensor) -> Objective:
            z = self.features(model, views, delta, "adversarial")
            return Objective(self.contrast(z), z)

        with attacking(model):
            attack = pgd(unlike, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        return attack, inputs

    def features(self, model: nn.Module, views: Batch, delta: Tensor | None, bn_branch: BNBranch) -> Tensor:
        """z (2B, Z) in fp32 of ``views`` (2B rows), perturbed by ``delta`` (2B rows) or not, in one pass."""
        z = model(views, delta=delta, want=("z",), bn_branch=bn_branch).z
        assert isinstance(z, Tensor)
        return z.float()

    def contrast(self, z: Tensor) -> Tensor:
        """NT-Xent of the features (2B, Z) of both views."""
        first, second = z.chunk(2)
        return nt_xent(first, second, self.temperature)


class AdversarialToStandard(AdversarialToAdversarial):
    """One view is perturbed to be unlike the other, which stays as it is.

        d_i = argmax l_NT(x_i + d_i, x_j),  ||d_i||_inf <= epsilon
        L   = l_NT(x_i + d_i, x_j)

    The perturbed view goes through the adversarial batch norm, the other through the clean one: two passes, each with
    the statistics of its own rows, with a single batch norm too. l_NT and the attack are as of ``acl-a2a``.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2F for each of the attack's ``steps``, F for
    the clean view, which stays the same while the attack climbs, and 2F + 2B for training: 17F.

    Departure: a batch of a single row goes through in eval mode, for it has no statistics of its own. The authors
    have published no code for it.

    Args:
        temperature: t of NT-Xent, > 0.
        epsilon: largest norm of a perturbation, > 0, in pixels of [0, 1] (of the word embeddings, for sentences).
        step_size: length of one ascent, > 0, in the same units.
        steps: gradients of the attack, >= 1.
        norm: ``"linf"`` or ``"l2"``, of a whole image (of a whole sentence).
        head_layers: linear layers of the projection head, >= 1.
        head_dim: width of what the head gives, >= 1; None: the encoder's.
    """

    name = "acl-a2s"
    summary = "NT-Xent between an adversarial view and a clean one"
    equation = "section 2.2, A2S"

    @property
    def cost(self) -> str:  # type: ignore[override]
        """2F for each ascent, and 7F."""
        return f"{2 * self.steps + 7}F"

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        other, inputs = second_view(batch), perturbation_inputs(model, batch)

        def unlike(delta: Tensor) -> Objective:
            z = self._encode(model, batch, delta, "adversarial")
            return Objective(nt_xent(z, still, self.temperature), z)

        with attacking(model):
            # Not under no_grad: autocast would keep casts of the weights that have no gradient.
            still = self._encode(model, other, None, "clean").detach()
            attack = pgd(unlike, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        with passing(model, len(inputs.values)):
            both = model(
                ForwardCalls((ForwardCall(other, want=("z",)), ForwardCall(batch, attack.delta, ("z",), "adversarial")))
            )
        clean, adversarial = (out.z for out in both)
        contrast = nt_xent(adversarial, clean, self.temperature)
        yield Loss(contrast, {"contrast_adv": contrast.detach()} | attack.log(inputs))

    @staticmethod
    def _encode(model: nn.Module, batch: Batch, delta: Tensor | None, bn_branch: BNBranch) -> Tensor:
        z = model(batch, delta=delta, want=("z",), bn_branch=bn_branch).z
        assert isinstance(z, Tensor)
        return z.float()


def passing(model: nn.Module, rows: int) -> AbstractContextManager[Any]:
    """Around a pass of ``rows`` rows: in eval mode where there is one, which batch norm cannot take statistics of."""
    return evaluating(model) if rows == 1 else nullcontext()


class DualStream(AdversarialToAdversarial):
    """SimCLR on the clean views, and on the same views perturbed.

        (d_i, d_j) = argmax l_NT(x_i + d_i, x_j + d_j; theta, theta_bn^adv),  ||d||_inf <= epsilon
        L          = l_NT(x_i, x_j; theta, theta_bn) + alpha * l_NT(x_i + d_i, x_j + d_j; theta, theta_bn^adv)

    Each stream has its own set of a dual batch norm, and is back-propagated before the next one runs: one graph is
    held at a time. l_NT and the attack, which comes before both, are as of ``acl-a2a``.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2 * 2F for each of the attack's ``steps``,
    and 2F + 2B for each stream: 32F.

    Departure: the start of the attack is cut to [0, 1], which the authors' code does after the first step alone. It
    halves the loss: ``reduction="mean"``.

    Args:
        alpha: weight of the adversarial stream, >= 0.
        reduction: ``"sum"`` (Algorithm 1), or ``"mean"``: half of it.
        temperature: t of NT-Xent, > 0.
        epsilon: largest norm of a perturbation, > 0, in pixels of [0, 1] (of the word embeddings, for sentences).
        step_size: length of one ascent, > 0, in the same units.
        steps: gradients of the attack, >= 1.
        norm: ``"linf"`` or ``"l2"``, of a whole image (of a whole sentence).
        head_layers: linear layers of the projection head, >= 1.
        head_dim: width of what the head gives, >= 1; None: the encoder's.
    """

    name = "acl-ds"
    summary = "NT-Xent on clean views and on the same views perturbed, with batch norms of their own"
    equation = "Algorithm 1 of ACL"
    passes = 2

    @validate_call
    def __init__(
        self,
        *,
        alpha: Weight = 1.0,
        reduction: Reduction = "sum",
        temperature: Temperature = 0.5,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        steps: Steps = 5,
        norm: Norm = "linf",
        head_layers: HeadLayers = 3,
        head_dim: HeadDim = None,
    ) -> None:
        super().__init__(
            temperature=temperature,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            norm=norm,
            head_layers=head_layers,
            head_dim=head_dim,
        )
        self.alpha, self.share = alpha, 1.0 if reduction == "sum" else 0.5

    @property
    def cost(self) -> str:  # type: ignore[override]
        """4F for each ascent, and 6F for each stream."""
        return f"{4 * self.steps + 12}F"

    @property
    def weights(self) -> tuple[float, float]:
        """Of the clean and of the adversarial stream in the next step."""
        return 1.0, self.alpha

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        views, weights = both_views(batch), self.weights
        attack, inputs = self.attack(model, views)
        clean = self.contrast(self.features(model, views, None, "clean"))
        yield Loss(self.share * weights[0] * clean, {"contrast": clean.detach()})
        adversarial = self.contrast(self.features(model, views, attack.delta, "adversarial"))
        parts = {"contrast_adv": adversarial.detach()} | attack.log(inputs)
        yield Loss(self.share * weights[1] * adversarial, parts)
