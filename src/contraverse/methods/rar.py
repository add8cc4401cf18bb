"""RAR: reconstruction from adversarial representations (Qiu, Zhang and Zhou, 2021)."""

from collections.abc import Iterator

from torch import Tensor, nn

from contraverse.functional import gather
from contraverse.methods._reconstruction import Reconstruction
from contraverse.methods._settings import Epochs, Weight, settings
from contraverse.methods.freelb import Climb, FreeLB
from contraverse.types import Batch, HeadSpec, Loss, Outputs, TrainingInfo


@settings
class RAR(FreeLB):
    """FreeLB plus reconstruction: an MLM head predicts every input token from its perturbed hidden state.

        L   = 1/K sum_t ( L_C(X + delta_t, y) + w_r * L_R(X + delta_t, x) )        eq. (7)
        L_R = - 1/T sum_j log p(x_j | R_j^{adv,tok})

    R^{adv,tok} are the last hidden states of a pass; p is a masked-language head whose decoder is the word embeddings.

    Batch: ``labels``. Cost: K passes of 3F and K - 1 input gradients of L_C, 11F with the defaults, where F is a pass
    of the encoder with that head. The head is V x D products a token: a twentieth of ALBERT-base, but as much as the
    whole of a six-layer MiniLM. L_C's gradient does not pass through it.

    Departures: the paper lists "a Layer Normalization, GeLU Activation Function and two Feed Forward Layers"; its count
    of parameters (Table 7) is that of dense, GELU, layer norm and tied decoder, the order of ALBERT's own head.
    ``climb="total"`` follows L_C + w_r * L_R, whose gradient the pass leaves behind (9F): most of it is L_R's, so that
    training sees inputs whose words are hard to reconstruct rather than inputs that are hard to classify.
    The head starts as the checkpoint's own masked-language head where there is one; the paper does not say.
    """

    name = "rar"
    summary = "FreeLB plus reconstruction of every token from its perturbed state"
    paper = "CARL/RAR"
    equation = "(7)"
    modality = "text"
    heads = {"reconstruction": HeadSpec(kind="mlm")}
    test_settings = {"rar-total": {"climb": "total"}, "rar-start": {"gamma": 0.3, "epsilon": 0.25}}

    weight: Weight = 0.1
    """Weight w_r of the reconstruction loss; the paper's value."""
    skip_special: bool = False
    """Leave special tokens ([CLS], [SEP], ...) out of L_R; the paper does not say."""
    head_warmup: Epochs = 0.0
    """Epochs in which L_R trains its head alone, on hidden states that are held constant."""
    climb: Climb = "ce"
    """Loss whose gradient the perturbation follows: `ce` is L_C alone, as in eq. (7), `total` the loss of a pass."""

    def setup(self) -> None:
        super().setup()
        self.climbs_total = self.climb == "total"
        self.cost = f"{3 * self.rounds + (self.rounds - 1) * (not self.climbs_total)}F"
        self.reconstruction = Reconstruction(self.skip_special, self.head_warmup)

    def prepare(self, training_info: TrainingInfo) -> None:
        """Store the special tokens and the length of an epoch."""
        super().prepare(training_info)
        self.reconstruction.prepare(training_info)

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        yield from super().losses(model, batch)
        self.reconstruction.count(len(gather(batch["index"])) if self.head_warmup else 0)

    def run(self, model: nn.Module, batch: Batch, delta: Tensor) -> Outputs:
        return self.reconstruction.run(model, batch, delta, ("logits",))

    def extra_losses(self, out: Outputs, batch: Batch, k: int) -> dict[str, tuple[float, Tensor]]:
        loss = self.reconstruction.loss(out, batch)
        return {**super().extra_losses(out, batch, k), "reconstruction": (self.weight, loss)}
