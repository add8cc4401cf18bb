"""ACL, adversarial to adversarial (Jiang et al., 2020): the base of the other two options, A2S and DS."""

from collections.abc import Iterator

from torch import Tensor, nn

from contraverse.attacks import NormBall, Objective, Perturbation, perturbation_inputs, pgd
from contraverse.functional import Norm, nt_xent
from contraverse.methods._settings import (
    EPSILON,
    STEP_SIZE,
    Epsilon,
    HeadDim,
    HeadLayers,
    Steps,
    StepSize,
    Temperature,
    mlp_projection,
    settings,
)
from contraverse.methods._views import both_views
from contraverse.models.modes import attacking
from contraverse.types import Batch, BNBranch, Inputs, Loss, Method


@settings
class AdversarialToAdversarial(Method):
    """NT-Xent between two views, both perturbed to be unlike each other.

        (d_i, d_j) = argmax l_NT(x_i + d_i, x_j + d_j),  ||d||_inf <= epsilon
        L          = l_NT(x_i + d_i, x_j + d_j)

    l_NT is SimCLR's NT-Xent on the projection z. The attack is PGD on both views together, from a uniform start: the
    last of ``steps`` iterates, each within [0, 1], in eval mode. Everything goes through the adversarial batch-norm
    branch, both views in one pass.

    Batch: images with a second view as ``positive``, or sentences. Cost: 2 * 2F for each of the attack's ``steps``,
    and 2F + 2B for training: 26F.

    Departure: the start is clipped to [0, 1]; the authors' code clips only after the first step.
    """

    name = "acl-a2a"
    summary = "NT-Xent between two adversarial views"
    paper = "ACL"
    equation = "section 2.2, A2A"
    requires = "inputs"
    in_batch_negatives = True
    bn_branch = "adversarial"
    image_views = 2
    stochastic = True
    test_settings = {"acl-a2a-l2": {"norm": "l2", "epsilon": 0.5, "step_size": 0.2, "steps": 3}}

    temperature: Temperature = 0.5
    """Temperature t of NT-Xent; the value of the authors' code."""
    epsilon: Epsilon = EPSILON
    """Largest norm of a view's perturbation, in pixels of [0, 1] (for sentences, in units of the word embeddings)."""
    step_size: StepSize = STEP_SIZE
    """Length of one attack step, in the same units."""
    steps: Steps = 5
    """Number of attack steps; the paper's value."""
    norm: Norm = "linf"
    """Norm of the perturbation, over a whole image or sentence."""
    head_layers: HeadLayers = 3
    """Linear layers of the projection head; ACL's value, SimCLR has 2."""
    head_dim: HeadDim = None
    """Width of z; null: the encoder's, as in ACL. SimCLR has 128."""

    def setup(self) -> None:
        self.heads = mlp_projection(self.head_layers, self.head_dim)
        self.ball = NormBall(self.epsilon, self.step_size, self.norm)
        self.cost = f"{4 * self.steps + 6}F"
        self.graphs, self.gathered = 2, 2 * (self.steps + 1)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        views = both_views(batch)
        attack, inputs = self.attack(model, views)
        contrast = self.contrast(self.features(model, views, attack.delta, "adversarial"))
        yield Loss(contrast, {"contrast_adv": contrast.detach()} | attack.log(inputs))

    def attack(self, model: nn.Module, views: Batch) -> tuple[Perturbation, Inputs]:
        """Perturb both views to increase their NT-Xent; perturbation and inputs have 2B rows."""
        inputs = perturbation_inputs(model, views)

        def dissimilarity(delta: Tensor) -> Objective:
            z = self.features(model, views, delta, "adversarial")
            return Objective(self.contrast(z), z)

        with attacking(model):
            attack = pgd(dissimilarity, self.ball, inputs, steps=self.steps, random_start=True, keep="last")
        return attack, inputs

    def features(self, model: nn.Module, views: Batch, delta: Tensor | None, bn_branch: BNBranch) -> Tensor:
        """Projections z (2B, Z) in fp32 of ``views`` (2B rows), with ``delta`` (2B rows) added or not, in one pass."""
        z: Tensor = model(views, delta=delta, want=("z",), bn_branch=bn_branch).z
        return z.float()

    def contrast(self, z: Tensor) -> Tensor:
        """NT-Xent of the projections (2B, Z) of both views."""
        first, second = z.chunk(2)  # (B, Z) each
        return nt_xent(first, second, self.temperature)
