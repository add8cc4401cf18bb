"""RAR: the reconstructor and its loss token by token, what the total is made of, and the paper's counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import rar_reference as reference
from reference.driving import CASES, Watched, flat, gradients, losses_of, make
from torch import Tensor, nn
from transformers import AlbertConfig, AutoModelForSequenceClassification

from contraverse.functional import supervised_loss
from contraverse.methods import METHODS
from contraverse.methods._reconstruction import reconstruction_loss
from contraverse.models import TextModel
from contraverse.types import Method

Make = Callable[..., TextModel]


def rar(**settings: Any) -> Method:
    return METHODS["rar"](**settings)


def ready(tiny_model: Make, architecture: str = "bert", dropout: float = 0.0, **settings: Any) -> Any:
    method = rar(**settings)
    return method, tiny_model(architecture, dropout=dropout, heads=method.heads).train()


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# the reconstructor


@pytest.mark.parametrize("architecture", ["albert", "bert", "deberta-v2", "electra", "modernbert"])
def test_the_head_is_dense_gelu_layer_norm_and_the_tied_words(tiny_model: Make, batch: Any, architecture: str) -> None:
    """ALBERT and ELECTRA embed in 16 dimensions here and are 32 wide."""
    _, model = ready(tiny_model, architecture)
    head = model.heads["reconstruction"]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
        out = model(batch, want=("tokens", "reconstruction"))
    words = model.encoder.get_input_embeddings().weight
    weights = [array(v) for v in (head.dense.weight, head.dense.bias, head.norm.weight, head.norm.bias)]
    for i, t in ((0, 0), (1, 3), (3, 5)):
        expected = reference.reconstruct(
            array(out.tokens[i, t]), *weights, array(words), array(head.bias), eps=head.norm.eps
        )
        np.testing.assert_allclose(array(out.heads["reconstruction"][i, t]), expected, rtol=1e-3, atol=1e-4)


def test_the_decoder_stays_tied(tiny_model: Make, batch: Any, tmp_path: Path) -> None:
    """T21: it has no matrix of its own, its gradient reaches the words, and a saved model loads so."""
    _, model = ready(tiny_model)
    shapes = [tuple(p.shape) for p in model.heads["reconstruction"].parameters()]
    vocabulary, width = model.embedding_shape
    assert (vocabulary, width) not in shapes
    logits = model(batch, want=("reconstruction",)).heads["reconstruction"]
    (slope,) = torch.autograd.grad(logits.sum(), model.encoder.get_input_embeddings().weight)
    unused = sorted(set(range(vocabulary)) - set(batch["input_ids"].unique().tolist()))
    assert (slope[unused].norm(dim=1) > 0).all()
    again = TextModel.load(model.save(tmp_path / "model"))
    assert parameters(again) == parameters(model)
    batch = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        again.encoder.get_input_embeddings().weight += 1
        model.encoder.get_input_embeddings().weight += 1
        both = [m.eval()(batch, want=("reconstruction",)).heads["reconstruction"] for m in (model, again)]
    torch.testing.assert_close(*both)


def test_the_paper_counts_its_parameters() -> None:
    """Table 7, T21: ALBERT-base for two classes has 11,685,122 parameters, FreeLB no more, RAR 128,688 more."""
    config = AlbertConfig(
        vocab_size=30_000, embedding_size=128, hidden_size=768, num_hidden_layers=12, num_hidden_groups=1,
        num_attention_heads=12, intermediate_size=3072, inner_group_num=1, max_position_embeddings=512,
        type_vocab_size=2, num_labels=2,
    )  # fmt: skip
    with torch.device("meta"):
        encoder = AutoModelForSequenceClassification.from_config(config)
        model = TextModel(encoder, None, labels=("negative", "positive"))
        assert parameters(model) == 11_685_122
        model.add_heads(METHODS["freelb"]().heads)
        assert parameters(model) == 11_685_122
        model.add_heads(rar().heads)
    assert parameters(model) == 11_813_810
    assert reference.reconstructor_parameters(768, 128, 30_000) == 11_813_810 - 11_685_122 == 128_688


# the loss


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_the_cross_entropy_of_the_real_tokens(seed: int) -> None:
    """T21. The mean over a row's tokens, then over rows: where rows are of one length, the mean over all tokens."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, 7, generator=random)
    ids = torch.randint(7, (3, 5), generator=random)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    rows = [
        reference.reconstruction_loss(array(logits[i : i + 1]), [ids[i].tolist()], [mask[i].tolist()]) for i in range(3)
    ]
    got = reconstruction_loss(logits, ids, mask)
    assert got.item() == pytest.approx(sum(rows) / 3, rel=1e-5)
    everywhere = torch.ones_like(mask)
    assert reconstruction_loss(logits, ids, everywhere).item() == pytest.approx(
        reference.reconstruction_loss(array(logits), ids.tolist(), everywhere.tolist()), rel=1e-5
    )
    other_ids, other_logits = ids.clone(), logits.clone()
    other_ids[mask == 0] = 3
    other_logits[mask == 0] = 50.0
    assert torch.equal(reconstruction_loss(other_logits, other_ids, mask), got)


def test_a_loss_of_large_scores_does_not_overflow() -> None:
    logits = torch.full((1, 2, 4), -3e4, dtype=torch.float16)
    logits[0, :, 1] = 3e4
    loss = reconstruction_loss(logits, torch.tensor([[1, 1]]), torch.ones(1, 2))
    assert (loss.dtype, loss.item()) == (torch.float32, 0.0)


@pytest.mark.parametrize("count", ["passes", "ascents"])
def test_every_pass_classifies_and_reconstructs(tiny_model: Make, batch: Any, count: str) -> None:
    """Eq. (7): L_C + w_r L_R of each perturbation, over the number of passes; the words are those of the input."""
    settings = {"steps": 2, "step_size": 0.3, "epsilon": 0.5, "gamma": 0.2, "count": count}
    method, model = ready(tiny_model, weight=0.3, **settings)
    watched = Watched(model)
    losses = losses_of(method, watched, batch)
    calls = watched.watch.passes()
    assert len(losses) == len(calls) == (2 if count == "passes" else 3)
    for loss, call in zip(losses, calls, strict=True):
        rows = [
            reference.reconstruction_loss(array(call.out.heads["reconstruction"][i : i + 1]),
                                          [batch["input_ids"][i].tolist()], [batch["attention_mask"][i].tolist()])
            for i in range(4)
        ]  # fmt: skip
        ce = F.cross_entropy(call.out.logits, batch["labels"]).item()
        assert loss.total.item() * method.passes == pytest.approx(ce + 0.3 * sum(rows) / 4, rel=1e-4)


def test_what_is_reconstructed_is_the_perturbed_pass(tiny_model: Make, batch: Any) -> None:
    """The classifier and the reconstructor read the same pass, so that RAR costs no forward more than FreeLB."""
    method, model = ready(tiny_model, steps=3, step_size=0.3)
    watched = Watched(model)
    losses_of(method, watched, batch)
    calls = watched.watch.passes()
    assert len(calls) == 3
    for call in calls:
        assert call.delta is not None
        assert set(call.want) >= {"logits", "reconstruction"}
        again = model(batch, delta=call.delta, want=("logits", "reconstruction"))
        torch.testing.assert_close(again.heads["reconstruction"], call.out.heads["reconstruction"])


def test_without_weight_it_is_freelb(tiny_model: Make, batch: Any) -> None:
    settings = {"steps": 3, "step_size": 0.3, "epsilon": 0.4}
    method, model = ready(tiny_model, weight=0.0, **settings)
    mine = gradients(method, model, batch)
    mine = {name: g for name, g in mine.items() if not name.startswith("heads.")}
    torch.testing.assert_close(flat(mine), flat(gradients(METHODS["freelb"](**settings), model, batch)))


def test_the_gradient_is_that_of_the_losses_with_the_perturbations_held_constant(tiny_model: Make, batch: Any) -> None:
    method, model = ready(tiny_model, weight=0.5, steps=3, step_size=0.3)
    watched = Watched(model)
    losses_of(method, watched, batch)
    got = gradients(method, model, batch)
    model.zero_grad()
    ids = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    lengths = batch["attention_mask"].sum(1)
    for call in watched.watch.passes():
        out = model(batch, delta=call.delta, want=("logits", "reconstruction"))
        each = F.cross_entropy(out.heads["reconstruction"].transpose(1, 2), ids, reduction="none")
        loss = supervised_loss(out.logits, batch["labels"]) + 0.5 * (each.sum(1) / lengths).mean()
        (loss / 3).backward()
    want = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-3, atol=1e-5)


def test_the_reconstructor_learns_to_tell_the_words(tiny_model: Make, batch: Any) -> None:
    """Through the step that a trainer takes: the words of a perturbed input are told better after a few of them."""
    method, model = ready(tiny_model, weight=1.0, steps=2, step_size=0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    right = []
    for _ in range(40):
        gradients(method, model, batch)
        optimizer.step()
        with torch.no_grad():
            found = model(batch, want=("reconstruction",)).heads["reconstruction"].argmax(-1)
        right.append((found == batch["input_ids"])[batch["attention_mask"] == 1].float().mean().item())
    assert right[0] < 0.3
    assert right[-1] > 0.9


def test_the_defaults_are_the_papers() -> None:
    assert rar().weight == 0.1
    with pytest.raises(ValueError, match="weight"):
        rar(weight=-0.1)


@pytest.mark.parametrize("name", ["rar", "carl"])
def test_climbing_the_classification_loss_alone_is_freelbs_way(tiny_model: Make, batch: Any, name: str) -> None:
    """Eqs. (6) and (7) as printed: with the further terms as large as they like, delta is FreeLB's."""
    settings = {"rar": {"weight": 5.0}, "carl": {"weight": 5.0, "negatives": 2}}[name]

    def deltas(method: Method) -> list[Tensor]:
        model = Watched(tiny_model(dropout=0.0, heads=method.heads).train())
        losses_of(method, model, batch)
        return [call.delta for call in model.watch.passes()]

    expected = deltas(METHODS["freelb"]())
    CASES["mine"] = (name, settings | {"climb": "ce"})
    CASES["total"] = (name, settings | {"climb": "total"})
    try:
        torch.testing.assert_close(deltas(make("mine")), expected)
        assert not torch.allclose(deltas(make("total"))[1], expected[1])
    finally:
        del CASES["mine"], CASES["total"]
