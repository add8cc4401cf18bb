"""ConSERT: contrast between two made-up views of a sentence (Yan et al., 2021)."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated, Literal

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import nt_xent
from contraverse.methods.settings import Epsilon, Temperature, one_step_ball
from contraverse.models.modes import evaluating
from contraverse.models.pooling import mean_pool
from contraverse.types import Batch, Loss, Method, TrainingInfo

View = Annotated[
    Literal["shuffle", "token-cutoff", "feature-cutoff", "dropout", "adversarial", "none"],
    Field(description="how a view of a sentence is made"),
]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, description="share that is cut off")]


class ConSERT(Method):
    """Two views of each sentence find each other among all views of the batch.

        L = -1/2B sum_i log exp(sim(r_i, r_j)/t) / sum_{k != i} exp(sim(r_i, r_k)/t)    eq. (1)

    r are the means of the last hidden states over real tokens, j the other view of the same sentence, k all 2B views.
    A view is one of

    - ``shuffle``: the order of the tokens, special ones left in their places, is random;
    - ``token-cutoff``: the embeddings of some tokens are 0, special ones never;
    - ``feature-cutoff``: some dimensions of all its embeddings are 0;
    - ``dropout``: single entries of its embeddings are 0, the others grow by 1 / (1 - rate);
    - ``adversarial``: one step up the loss, epsilon * g / ||g||_2, from the sentence as it is;
    - ``none``: the sentence as it is.

    Embeddings are what the first layer reads, after position, type and layer norm, as in the authors' code.

    Batch: sentences. Cost: 2F + 2B = 6F, and 2F (a pass and its input gradient) more for each adversarial view. There
    is no head. r is what is trained, whatever ``model.pooling`` tests: the authors test the mean of the last two
    layers (``"last-two"``).

    Departures: the authors shuffle position ids. Their adversarial view climbs a classifier's loss, needs labels and
    is added after layer norm, with one norm a token; here it climbs the contrast, and is added to the word embeddings
    as everywhere in this library. They weight the loss by .15, which matters to clipping alone.

    Args:
        first: a view.
        second: the other.
        token_rate: share of a sentence's tokens that is cut off, in [0, 1).
        feature_rate: share of the dimensions, in [0, 1).
        dropout_rate: share of the entries, in [0, 1).
        epsilon: L2 norm of an adversarial perturbation over a sequence, > 0.
        temperature: > 0.
        encoder_dropout: whether the encoder's own dropout is on; the authors turn it off.
    """

    name = "consert"
    summary = "NT-Xent between two views: shuffled, cut off, dropped out or adversarial"
    paper = "ConSERT"
    equation = "(1) of ConSERT"
    modality = "text"
    requires = "inputs"

    special_ids: Tensor | None

    @validate_call
    def __init__(
        self,
        *,
        first: View = "feature-cutoff",
        second: View = "shuffle",
        token_rate: Rate = 0.15,
        feature_rate: Rate = 0.2,
        dropout_rate: Rate = 0.2,
        epsilon: Epsilon = 0.3,
        temperature: Temperature = 0.1,
        encoder_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.views = (first, second)
        self.token_rate, self.feature_rate, self.dropout_rate = token_rate, feature_rate, dropout_rate
        self.temperature, self.encoder_dropout = temperature, encoder_dropout
        if "adversarial" in self.views:
            self.ball = one_step_ball("fgm", epsilon, "sequence")
        self.width = 0
        self.register_buffer("special_ids", None, persistent=False)

    @property
    def cost(self) -> str:  # type: ignore[override]
        """6F, and 2F for each adversarial view."""
        return f"{6 + 2 * self.views.count('adversarial')}F"

    def prepare(self, training_info: TrainingInfo) -> None:
        """Learn which tokens hold no text, and how wide the encoder is."""
        self.special_ids, self.width = (
            torch.tensor(training_info.special_ids, dtype=torch.long),
            training_info.hidden_size,
        )

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        inputs = perturbation_inputs(model, batch)
        views = [self.make(view, batch, self.width) for view in self.views]
        deltas = [self.ball.init(inputs) if view == "adversarial" else None for view in self.views]
        r = [self.embed(model, view, delta) for view, delta in zip(views, deltas, strict=True)]
        contrast, climbed, logs = nt_xent(r[0], r[1], self.temperature), list(r), []
        for i, delta in enumerate(deltas):
            if delta is not None:
                attack = attack_step(delta, self.ball, inputs, loss=Objective(contrast, climbed[i]), keep_graph=True)
                logs.append(attack.log(inputs))
                r[i] = self.embed(model, views[i], attack.delta)
        loss = nt_xent(r[0], r[1], self.temperature) if logs else contrast
        parts = {"contrast": loss.detach()}
        if logs:
            parts["zero_grad_rows"] = torch.stack([log["zero_grad_rows"] for log in logs]).sum()
            parts["rel_perturbation_norm"] = torch.stack([log["rel_perturbation_norm"] for log in logs]).mean()
        yield Loss(loss, parts)

    def embed(self, model: nn.Module, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """r (B, H)."""
        with nullcontext() if self.encoder_dropout else evaluating(model):
            tokens = model(batch, delta=delta, want=("tokens",)).tokens
        return mean_pool(tokens.float(), batch["attention_mask"])

    def make(self, view: str, batch: Batch, width: int) -> Batch:
        """``batch`` with the tokens of one view, or with what it keeps of their embeddings (B, T, width).

        Raises:
            ValueError: called before `prepare`.
        """
        if self.special_ids is None:
            raise ValueError("call prepare(facts) before the first step (Trainer does)")
        ids = batch["input_ids"]
        if view == "shuffle":
            order = self._shuffled(ids, batch["attention_mask"])
            moved = {key: batch[key].gather(1, order) for key in ("input_ids", "token_type_ids") if key in batch}
            return {**batch, **moved}
        if view == "token-cutoff":
            text = self._text(ids, batch["attention_mask"])
            place = torch.rand(ids.shape, device=ids.device).masked_fill(~text, torch.inf).argsort(1).argsort(1)
            cut = place < (text.sum(1, keepdim=True) * self.token_rate).round()
            return {**batch, "keep": (~cut).unsqueeze(-1).float()}
        if view == "feature-cutoff":
            place = torch.rand((len(ids), width), device=ids.device).argsort(1).argsort(1)
            return {**batch, "keep": (place >= round(width * self.feature_rate)).unsqueeze(1).float()}
        if view == "dropout":
            kept = torch.rand((*ids.shape, width), device=ids.device) >= self.dropout_rate
            return {**batch, "keep": kept.float() / (1 - self.dropout_rate)}
        return batch

    def _text(self, ids: Tensor, mask: Tensor) -> Tensor:
        assert self.special_ids is not None
        return mask.bool() & ~torch.isin(ids, self.special_ids)

    def _shuffled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Which token of a row goes where, (B, T): a random order of those that hold text, all others in place."""
        text = self._text(ids, mask)
        homes = (~text).long().argsort(dim=1, stable=True)
        drawn = torch.rand(ids.shape, device=ids.device).masked_fill(~text, torch.inf).argsort(dim=1, stable=True)
        return torch.empty_like(homes).scatter(1, homes, drawn)
