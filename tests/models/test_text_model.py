"""`TextModel` against plain transformers, for every architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.tiny import ARCHITECTURES, LABELS, VOCABULARY
from torch import Tensor

from contraverse.attacks import perturbation_inputs
from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.models.encoding import reinit_layers
from contraverse.types import HeadSpec

Make = Callable[..., TextModel]
FIELDS = ("inputs", "tokens", "h", "z", "logits")
Z = {"z": HeadSpec()}
every = pytest.mark.parametrize("architecture", list(ARCHITECTURES))


def plain(model: TextModel, batch: Any, **arguments: Any) -> Tensor:
    """The logits of Hugging Face's own forward."""
    arguments = arguments or {"input_ids": batch["input_ids"]}
    logits: Tensor = model.encoder(attention_mask=batch["attention_mask"], **arguments).logits
    return logits


def noise(model: TextModel, batch: Any, size: float = 0.5) -> Tensor:
    values, mask, *_ = perturbation_inputs(model, batch)
    return torch.randn_like(values) * mask * size


# the perturbation


@every
@torch.no_grad()
def test_a_zero_perturbation_is_the_plain_forward(tiny_model: Make, batch: Any, architecture: str) -> None:
    """T1."""
    model = tiny_model(architecture)
    expected = plain(model, batch)
    torch.testing.assert_close(model(batch).logits, expected, rtol=0, atol=1e-6)
    zero = torch.zeros_like(perturbation_inputs(model, batch).values)
    torch.testing.assert_close(model(batch, delta=zero).logits, expected, rtol=0, atol=1e-6)


@every
@torch.no_grad()
def test_a_perturbation_is_added_to_the_word_embeddings(tiny_model: Make, batch: Any, architecture: str) -> None:
    """T1: once, before position, type and layer norm: what Hugging Face calls inputs_embeds."""
    model = tiny_model(architecture)
    delta = noise(model, batch)
    embeddings = model.encoder.get_input_embeddings().weight[batch["input_ids"]]
    expected = plain(model, batch, inputs_embeds=embeddings + delta)
    torch.testing.assert_close(model(batch, delta=delta).logits, expected, rtol=0, atol=1e-6)
    assert (expected - plain(model, batch)).abs().max() > 1e-3


@every
def test_the_encoder_gets_the_current_perturbation_and_no_other(
    tiny_model: Make, batch: Any, architecture: str
) -> None:
    """T5."""
    model = tiny_model(architecture)
    given: list[Tensor] = []
    model.encoder.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: given.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    embeddings = perturbation_inputs(model, batch).values
    for delta in (noise(model, batch), noise(model, batch), torch.zeros_like(embeddings)):
        model(batch, delta=delta)
        torch.testing.assert_close(given[-1] - embeddings, delta, rtol=0, atol=1e-6)
    assert torch.equal(perturbation_inputs(model, batch).values, embeddings)


@every
def test_the_perturbation_has_the_width_of_the_embedding(tiny_model: Make, batch: Any, architecture: str) -> None:
    """T20: ALBERT and ELECTRA embed in fewer dimensions than they are wide."""
    model = tiny_model(architecture)
    width = 16 if architecture in ("albert", "electra") else 32
    assert perturbation_inputs(model, batch).values.shape == (4, 9, width)
    assert model.width == 32
    assert model(batch, want=("h",)).h.shape == (4, 32)


@every
def test_training_mode_draws_the_same_dropout_with_a_zero_perturbation(
    tiny_model: Make, batch: Any, architecture: str
) -> None:
    model = tiny_model(architecture).train()
    logits = []
    for delta in (None, torch.zeros_like(perturbation_inputs(model, batch).values)):
        torch.manual_seed(5)
        logits.append(model(batch, delta=delta).logits)
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(model(batch).logits, logits[0], atol=1e-4)


def test_gradients_reach_the_perturbation_and_the_embedding(tiny_model: Make, batch: Any) -> None:
    model = tiny_model()
    delta = noise(model, batch).requires_grad_()
    F.cross_entropy(model(batch, delta=delta).logits, batch["labels"]).backward()
    assert delta.grad is not None
    assert (delta.grad.flatten(1).norm(dim=1) > 0).all()
    assert model.encoder.get_input_embeddings().weight.grad.norm() > 0


def test_token_types_are_passed_on(tiny_model: Make, batch: Any) -> None:
    model = tiny_model()
    types = torch.zeros_like(batch["input_ids"])
    types[:, 3:] = 1
    typed = {**batch, "token_type_ids": types}
    expected = plain(model, batch, input_ids=batch["input_ids"], token_type_ids=types)
    zero = torch.zeros_like(perturbation_inputs(model, batch).values)
    torch.testing.assert_close(model(typed).logits, expected)
    torch.testing.assert_close(model(typed, delta=zero).logits, expected)
    assert not torch.allclose(expected, plain(model, batch))


# outputs


@every
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_more_padding_changes_nothing(tiny_model: Make, batch: Any, architecture: str, pooling: str) -> None:
    """T3."""
    model = tiny_model(architecture, pooling=pooling, heads=Z)
    padded = {**batch, **{k: F.pad(batch[k], (0, 4)) for k in ("input_ids", "attention_mask")}}
    delta = noise(model, batch)
    for d, long in ((None, None), (delta, F.pad(delta, (0, 0, 0, 4)))):
        short, padded_out = (model(b, delta=x, want=FIELDS[1:]) for b, x in ((batch, d), (padded, long)))
        for field in ("logits", "z", "h"):
            torch.testing.assert_close(getattr(padded_out, field), getattr(short, field), rtol=1e-4, atol=1e-5)
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(padded_out.tokens[:, :9][real], short.tokens[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "want",
    [
        ("inputs",),
        ("tokens",),
        ("h",),
        ("z",),
        ("logits",),
        ("logits", "z"),
        ("inputs", "h"),
        ("tokens", "logits"),
        FIELDS,
    ],
)
@pytest.mark.parametrize("perturbed", [False, True])
@every
def test_want_gives_exactly_that_in_one_pass(
    tiny_model: Make, batch: Any, architecture: str, want: tuple[str, ...], perturbed: bool
) -> None:
    model = tiny_model(architecture, heads=Z)
    passes: list[int] = []
    delta = noise(model, batch) if perturbed else None
    model.encoder.base_model.register_forward_hook(lambda *a: passes.append(1))
    out = model(batch, delta=delta, want=want)
    assert set(out.requested) == set(want)
    for field in set(FIELDS) - set(want):
        with pytest.raises(UserError, match=f'"{field}" was not requested\npass want='):
            getattr(out, field)
    assert len(passes) == (0 if want == ("inputs",) else 1)
    assert len(model.encoder.base_model._forward_hooks) == 1


@every
@torch.no_grad()
def test_fields_agree_with_each_other_and_with_plain_transformers(
    tiny_model: Make, batch: Any, architecture: str
) -> None:
    model = tiny_model(architecture, heads=Z)
    alone = {field: getattr(model(batch, want=(field,)), field) for field in ("tokens", "h", "z", "logits")}
    together = model(batch, want=FIELDS)
    # RoBERTa numbers the positions of padding otherwise where it is given embeddings; no real token sees those.
    real = batch["attention_mask"].bool()
    for field, value in alone.items():
        chosen = real if field == "tokens" else ...
        torch.testing.assert_close(getattr(together, field)[chosen], value[chosen], rtol=1e-5, atol=1e-6)
    last = model.encoder.base_model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    torch.testing.assert_close(alone["tokens"], last, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone["h"], last[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone["z"], torch.tanh(F.linear(last[:, 0], *model.heads["z"].dense.parameters())))


@torch.no_grad()
def test_mean_pooling_counts_real_tokens(tiny_model: Make, batch: Any) -> None:
    model = tiny_model(pooling="mean")
    out = model(batch, want=("tokens", "h"))
    for i, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        torch.testing.assert_close(out.h[i], out.tokens[i, :length].mean(0), rtol=1e-5, atol=1e-6)


def test_a_row_without_tokens_pools_to_something_finite(tiny_model: Make, batch: Any) -> None:
    model = tiny_model(pooling="mean")
    batch["attention_mask"][1] = 0
    assert model(batch, want=("h",)).h[1].isfinite().all()


def test_asking_for_what_is_not_there_says_what_to_do(tiny_model: Make, batch: Any) -> None:
    message = r"the model has no head 'z'\ndeclare it on the method: heads = \{\"z\": HeadSpec\(\)\}"
    with pytest.raises(UserError, match=message):
        tiny_model()(batch, want=("z",))
    with pytest.raises(ValueError, match="labels"):
        tiny_model(labels=None)(batch)


def test_one_name_may_be_wanted_as_a_string(tiny_model: Make, batch: Any) -> None:
    model = tiny_model(heads=Z)
    assert torch.equal(model(batch, want="z").z, model(batch, want=("z",)).z)


def test_the_route_makes_no_difference(tiny_model: Make, batch: Any) -> None:
    model = tiny_model()
    assert torch.equal(model(batch, bn_branch="adversarial").logits, model(batch, bn_branch="clean").logits)


# heads


def test_heads_are_added_once(tiny_model: Make) -> None:
    model = tiny_model(heads=Z)
    weight = model.heads["z"].dense.weight
    model.add_heads({"z": HeadSpec(dim=3), "other": HeadSpec(dim=7, activation="none")})
    assert model.heads["z"].dense.weight is weight
    assert model.heads["other"].dense.weight.shape == (7, 32)


def test_a_head_is_linear_and_its_activation(tiny_model: Make, batch: Any) -> None:
    model = tiny_model(heads={"z": HeadSpec(dim=7, activation="none")})
    out = model(batch, want=("h", "z"))
    torch.testing.assert_close(out.z, F.linear(out.h, *model.heads["z"].dense.parameters()))
    assert out.z.shape == (4, 7)


def test_heads_are_trained_with_the_model(tiny_model: Make) -> None:
    names = [name for name, _ in tiny_model(heads=Z).named_parameters()]
    assert "heads.z.dense.weight" in names


# encode


SENTENCES = ["the state of the world", "two men work here", "so", "in there before the long way back down", "so"]


@pytest.mark.parametrize("embedding", ["h", "z"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_encode_equals_one_sentence_at_a_time_in_order(tiny_model: Make, embedding: Any, pooling: Any) -> None:
    model = tiny_model(labels=None, pooling=pooling, embedding=embedding, heads=Z).train()
    rows = model.encode(SENTENCES, batch_size=2)
    assert rows.shape == (5, 32)
    assert rows.dtype == np.float32
    assert model.training
    model.eval()
    for sentence, row in zip(SENTENCES, rows, strict=True):
        one = model(model.tokenizer([sentence], return_tensors="pt"), want=(embedding,))
        np.testing.assert_allclose(row, getattr(one, embedding)[0].detach(), atol=1e-5)
    np.testing.assert_array_equal(rows[2], rows[4])
    assert not np.allclose(rows[0], rows[1], atol=1e-3)


def test_encode_does_not_depend_on_the_batch_size(tiny_model: Make) -> None:
    model = tiny_model(labels=None)
    np.testing.assert_allclose(model.encode(SENTENCES, batch_size=1), model.encode(SENTENCES), atol=1e-5)


def test_encode_cuts_at_what_the_encoder_holds(tiny_model: Make) -> None:
    model = tiny_model(labels=None, max_length=6)
    longest = "the " * (model.max_seq_length - 2)
    assert np.abs(model.encode([longest]) - model.encode(["the the the the"])).max() > 1e-4
    np.testing.assert_allclose(model.encode([longest + "state"]), model.encode([longest]), atol=1e-6)


def test_encode_of_nothing_and_of_a_string(tiny_model: Make) -> None:
    model = tiny_model(labels=None)
    assert len(model.encode([])) == 0
    with pytest.raises(UserError, match="expected a list of texts, not one string"):
        model.encode("a sentence")


def test_encode_works_for_a_classifier(tiny_model: Make) -> None:
    assert tiny_model().encode(SENTENCES).shape == (5, 32)


# loading


def test_a_classifier_is_hugging_faces_own(tiny_model: Make) -> None:
    model = tiny_model()
    assert type(model.encoder).__name__ == "BertForSequenceClassification"
    assert model.encoder.config.id2label == dict(enumerate(LABELS))
    assert model.labels == list(LABELS)
    assert tiny_model(labels=("score",)).encoder.config.problem_type == "regression"
    assert model.tokenizer.padding_side == "right"


def test_half_precision_checkpoints_are_loaded_in_fp32(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = TextModel.from_pretrained(tiny_folder("bert"), labels=LABELS)
    model.encoder.half().save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert {p.dtype for p in TextModel.from_pretrained(tmp_path, labels=LABELS).parameters()} == {torch.float32}


def test_a_model_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    for name in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match="cannot load") as caught:
            TextModel.from_pretrained(name)
        assert caught.value.hint


def test_the_bundled_encoder_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = TextModel.from_pretrained("minilm", pooling="mean")
    rows = model.encode(["A girl is styling her hair.", "A girl is brushing her hair.", "Stocks fell on Monday."])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows[0] @ rows[1] > 0.7 > 0.3 > rows[0] @ rows[2]


# fewer layers, or fresh ones


def stack(model: TextModel) -> Any:
    base = model.encoder.base_model
    return (
        base.layers if hasattr(base, "layers") else getattr(base, "encoder", getattr(base, "transformer", None)).layer
    )


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "albert"])
def test_the_lower_layers_are_kept(tiny_folder: Callable[..., Path], batch: Any, architecture: str) -> None:
    """T19: counted from the embedding up; the hidden state of layer 1 becomes the output."""
    folder = tiny_folder(architecture)
    whole = TextModel.from_pretrained(folder).eval()
    half = TextModel.from_pretrained(folder, keep_layers=1).eval()
    assert (len(stack(whole)), len(stack(half))) == (2, 1)
    assert half.encoder.config.num_hidden_layers == 1
    states = whole.encoder(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
    ).hidden_states
    got = half(batch, want=("tokens",)).tokens
    if architecture == "modernbert":  # a final norm follows the last layer
        return
    torch.testing.assert_close(got, states[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_last_layers_are_drawn_anew(tiny_folder: Callable[..., Path], count: int) -> None:
    """T19: layers[-0:] would be all of them."""
    old = stack(TextModel.from_pretrained(tiny_folder("bert")))
    new = stack(TextModel.from_pretrained(tiny_folder("bert"), reinit_layers=count))
    changed = [
        not torch.equal(a.attention.self.query.weight, b.attention.self.query.weight)
        for a, b in zip(old, new, strict=True)
    ]
    assert changed == [i >= 2 - count for i in range(2)]
    if count:
        assert new[1].output.dense.weight.std().item() == pytest.approx(0.2, rel=0.1)


def test_none_of_the_layers_drawn_anew_is_none_of_them(tiny_model: Make) -> None:
    """T19, asked for directly."""
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reinit_layers(model.encoder, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "albert"])
@pytest.mark.parametrize("labels", [None, LABELS])
@torch.no_grad()
def test_a_model_of_fewer_layers_saves_and_loads(
    tiny_folder: Callable[..., Path], tmp_path: Path, batch: Any, architecture: str, labels: Any
) -> None:
    model = TextModel.from_pretrained(tiny_folder(architecture), labels=labels, keep_layers=1).eval()
    model.save(tmp_path / "model")
    loaded = TextModel.load(tmp_path / "model")
    torch.testing.assert_close(loaded(batch, want=("h",)).h, model(batch, want=("h",)).h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"keep_layers": 0}, {"keep_layers": 3}, {"reinit_layers": 3}, {"reinit_layers": -1}])
def test_layers_that_are_not_there_are_refused(tiny_folder: Callable[..., Path], wrong: Any) -> None:
    with pytest.raises(UserError, match=r"layers"):
        TextModel.from_pretrained(tiny_folder("bert"), **wrong)


def test_the_vocabulary_of_these_tests_has_no_repeats() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
