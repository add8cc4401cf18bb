"""ConSERT: contrast between two augmented views of a sentence (Yan et al., 2021)."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from contraverse.attacks import Objective, attack_step, perturbation_inputs
from contraverse.functional import nt_xent
from contraverse.methods._settings import Epsilon, Temperature, one_step_ball, settings
from contraverse.methods._views import NoisyViews, contrast_of_rows, second_view
from contraverse.models.encoding import mean_pool
from contraverse.models.modes import evaluating
from contraverse.types import Batch, Loss, TrainingInfo

View = Literal["shuffle", "token-cutoff", "feature-cutoff", "dropout", "adversarial", "none"]
Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


@settings
class ConSERT(NoisyViews):
    """NT-Xent between two augmented views of each sentence, with all other views of the batch as negatives.

        L = -1/2B sum_i log exp(sim(r_i, r_j)/t) / sum_{k != i} exp(sim(r_i, r_k)/t)    eq. (1)

    r are the means of the last hidden states over real tokens, j the other view of the same sentence, k all 2B views.
    A view is one of

    - ``shuffle``: the order of the tokens is random; special tokens keep their places;
    - ``token-cutoff``: the embeddings of some tokens are 0, special tokens never;
    - ``feature-cutoff``: some dimensions of all its embeddings are 0;
    - ``dropout``: single entries of its embeddings are 0, the others grow by 1 / (1 - rate);
    - ``adversarial``: one step up the loss, epsilon * g / ||g||_2, from the plain sentence;
    - ``none``: the plain sentence.

    With noise (``data.noise``) the second view is of the noisy text.

    Embeddings are the first layer's input, after position, type and layer norm, as in the authors' code.

    Batch: sentences. Cost: 2F + 2B = 6F, and 2F (a pass and its input gradient) more for each adversarial view. There
    is no head. r is trained whatever ``model.pooling`` tests: the authors test the mean of the last two layers
    (``"last-two"``).

    Departures: the authors shuffle position ids. Their adversarial view increases a classifier's loss, needs labels and
    is added after layer norm, with one norm a token; here it increases the contrastive loss, and is added to the word
    embeddings as everywhere in this library. They weight the loss by .15, which matters to clipping alone.
    """

    name = "consert"
    summary = "NT-Xent between two augmented views of a sentence"
    paper = "ConSERT"
    equation = "(1) of ConSERT"
    modality = "text"
    requires = "inputs"
    in_batch_negatives = True
    text_views = 2
    stochastic = True
    test_settings = {
        "consert-cut": {"first": "token-cutoff", "second": "dropout", "token_rate": 0.4},
        "consert-adversarial": {"first": "adversarial", "second": "shuffle"},
    }

    first: View = "feature-cutoff"
    """Augmentation of one view; with `shuffle`, the authors' best pair."""
    second: View = "shuffle"
    """Augmentation of the other view."""
    token_rate: Rate = 0.15
    """Share of a sentence's tokens that `token-cutoff` removes."""
    feature_rate: Rate = 0.2
    """Share of the dimensions that `feature-cutoff` removes; the authors' value."""
    dropout_rate: Rate = 0.2
    """Share of the entries that `dropout` removes."""
    epsilon: Epsilon = 0.3
    """L2 norm of an adversarial perturbation over a sequence."""
    temperature: Temperature = 0.1
    """Temperature t of NT-Xent; the authors' value."""
    encoder_dropout: bool = False
    """Keep the encoder's own dropout on; the authors turn it off."""

    def setup(self) -> None:
        super().setup()
        self.views = (self.first, self.second)
        if "adversarial" in self.views:
            self.ball = one_step_ball("fgm", self.epsilon, "sequence")
        forward_units = 6 + 2 * self.views.count("adversarial")
        self.cost = f"{forward_units}F"
        # The anchor by which the view is chosen has no augmentation, and a pass of its own.
        self.cost_with_noise = f"{forward_units + self.choice_cost + (self.choice_cost > 0)}F"
        self.graphs, self.gathered = 2, 4 if "adversarial" in self.views else 2
        self.hidden_size = 0
        self.special_ids: Tensor | None
        self.register_buffer("special_ids", None, persistent=False)

    def prepare(self, training_info: TrainingInfo) -> None:
        """Store the ids of special tokens and the width of the encoder."""
        super().prepare(training_info)
        self.special_ids = torch.tensor(training_info.special_ids, dtype=torch.long)
        self.hidden_size = training_info.hidden_size

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        texts = (batch, self._second_text(model, batch))
        inputs = [perturbation_inputs(model, text) for text in texts]
        views = [self.augment(view, text, self.hidden_size) for view, text in zip(self.views, texts, strict=True)]
        deltas = [self.ball.init(inputs[i]) if view == "adversarial" else None for i, view in enumerate(self.views)]
        r = [self.embed(model, view, delta) for view, delta in zip(views, deltas, strict=True)]  # (B, H) each
        contrast, unperturbed, logs = nt_xent(r[0], r[1], self.temperature), list(r), []
        for i, delta in enumerate(deltas):
            if delta is not None:
                objective = Objective(contrast, unperturbed[i])
                attack = attack_step(delta, self.ball, inputs[i], loss=objective, keep_graph=True)
                logs.append(attack.log(inputs[i]))
                r[i] = self.embed(model, views[i], attack.delta)
        loss = nt_xent(r[0], r[1], self.temperature) if logs else contrast
        parts = {"contrast": loss.detach()}
        if logs:
            parts["zero_grad_rows"] = torch.stack([log["zero_grad_rows"] for log in logs]).sum()
            parts["rel_perturbation_norm"] = torch.stack([log["rel_perturbation_norm"] for log in logs]).mean()
        yield Loss(loss, parts)

    @torch.no_grad()
    def _second_text(self, model: nn.Module, batch: Batch) -> Batch:
        """Text of the second view, chosen before either is augmented."""
        if "draws" not in batch:
            return second_view(batch)
        anchors = self.embed(model, batch)  # (B, H)
        return self.noisy_view(batch, lambda draw: contrast_of_rows(anchors, self.embed(model, draw), self.temperature))

    def embed(self, model: nn.Module, batch: Batch, delta: Tensor | None = None) -> Tensor:
        """Sentence embedding r (B, H)."""
        with nullcontext() if self.encoder_dropout else evaluating(model):
            tokens = model(batch, delta=delta, want=("tokens",)).tokens  # (B, T, H)
        return mean_pool(tokens.float(), batch["attention_mask"])  # (B, T, H) -> (B, H)

    def augment(self, view: str, batch: Batch, width: int) -> Batch:
        """Batch of one view: its tokens in another order, or with ``keep``, which multiplies its embeddings.

        ``keep`` is (B, T, 1) for tokens, (B, 1, width) for features, (B, T, width) for entries.

        Raises:
            ValueError: called before `prepare`.
        """
        if self.special_ids is None:
            raise ValueError("call prepare(training_info) before the first step (Trainer does)")
        ids = batch["input_ids"]
        if view == "shuffle":
            order = self._shuffled(ids, batch["attention_mask"])
            moved = {key: batch[key].gather(1, order) for key in ("input_ids", "token_type_ids") if key in batch}
            return {**batch, **moved}
        if view == "token-cutoff":
            text = self._is_text(ids, batch["attention_mask"])  # (B, T)
            # argsort of argsort is each token's place in a random order; special tokens come last.
            place = torch.rand(ids.shape, device=ids.device).masked_fill(~text, torch.inf).argsort(1).argsort(1)
            cut = place < (text.sum(1, keepdim=True) * self.token_rate).round()  # (B, T) < (B, 1)
            return {**batch, "keep": (~cut).unsqueeze(-1).float()}  # (B, T, 1)
        if view == "feature-cutoff":
            place = torch.rand((len(ids), width), device=ids.device).argsort(1).argsort(1)  # (B, width)
            return {**batch, "keep": (place >= round(width * self.feature_rate)).unsqueeze(1).float()}  # (B, 1, width)
        if view == "dropout":
            kept = torch.rand((*ids.shape, width), device=ids.device) >= self.dropout_rate  # (B, T, width)
            return {**batch, "keep": kept.float() / (1 - self.dropout_rate)}
        return batch

    def _is_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Mask (B, T) of the tokens that are neither special nor padding."""
        assert self.special_ids is not None
        return mask.bool() & ~torch.isin(ids, self.special_ids)

    def _shuffled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Source position of each token (B, T): text tokens in random order, all others in place."""
        text = self._is_text(ids, mask)
        homes = (~text).long().argsort(dim=1, stable=True)  # (B, T), text positions first, both groups in order
        drawn = torch.rand(ids.shape, device=ids.device).masked_fill(~text, torch.inf).argsort(dim=1, stable=True)
        return torch.empty_like(homes).scatter(1, homes, drawn)
