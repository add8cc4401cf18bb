"""A method of your own is one class: here TRADES (Zhang et al., 2019) on word embeddings, with one-step attacks."""

from collections.abc import Iterator

from torch import nn
from torch.nn.functional import cross_entropy

from contraverse import Loss, Method, NormBall, TextData, TextModel, Trainer, evaluate, perturbation_inputs
from contraverse.attacks import Objective, attack_step
from contraverse.functional import kl
from contraverse.types import Batch


class OneStepTRADES(Method):
    """Right on the clean input, and the same answer nearby.

        delta = epsilon * g / ||g||_2,  g = grad of CE(x, y) at the word embeddings
        L     = CE(x, y) + beta * KL( p(x) || p(x + delta) )

    Batch: ``labels``. Cost: 2F + b + 2B = 7F; the attack uses the clean pass's graph. Departure: the paper
    climbs the KL by PGD; here one step climbs the cross-entropy.

    Args:
        epsilon: L2 norm of a sequence's perturbation, > 0.
        beta: weight of the second term, >= 0.
    """

    name = "one-step-trades"
    summary = "cross-entropy, and the same prediction on a one-step adversarial input"
    paper = "TRADES"
    equation = "the multi-class objective, with one step"
    requires = "labels"
    cost = "7F"

    def __init__(self, *, epsilon: float = 0.3, beta: float = 1.0) -> None:
        super().__init__()
        self.ball = NormBall(epsilon, step_size=epsilon)
        self.beta = beta

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        delta = self.ball.init(inputs)
        clean = model(batch, delta=delta).logits.float()
        ce = cross_entropy(clean, batch["labels"])
        attack = attack_step(delta, self.ball, inputs, loss=Objective(ce, clean), keep_graph=True)
        shift = kl(clean, model(batch, delta=attack.delta).logits).mean()
        yield Loss(
            ce + self.beta * shift, {"ce": ce.detach(), "kl": shift.detach(), "zero_grad_rows": attack.zero_grad_rows}
        )


if __name__ == "__main__":
    texts = ["Where is my parcel?", "It has not come yet.", "I want my money back.", "Please refund me."] * 10
    labels = ["delivery", "delivery", "refund", "refund"] * 10
    train, test = TextData.from_rows(texts, labels).split(0.25, seed=0)
    model = TextModel.from_pretrained("minilm", labels=train.label_names)
    Trainer(model, OneStepTRADES(epsilon=0.3), train, output_dir="runs/new", learning_rate=1e-4).train()
    print(evaluate(model, test, epsilons=[0.1, 0.3]))
