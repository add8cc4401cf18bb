"""Adapters of peft: trained in place of the encoder, seen by attacks, saved merged and by themselves."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from reference.driving import gradients, make, needed
from reference.foreign import foreign_folder
from reference.tiny import LABELS, random_batch, sentences, with_pairs
from sentence_transformers import SentenceTransformer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForSequenceClassification

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.models.adapters import TYPES, describe, find_targets, merged_state, trained_part

DECODERS = ("qwen3", "gemma", "llama")
SENTENCES = sentences(6)
SIZES = {"oft": {"oft_block_size": 8}}


def adapted(folder: Path, labels: Any = None, **settings: Any) -> TextModel:
    """A model whose adapters and heads have been moved, as training would."""
    model = TextModel.from_pretrained(folder, labels=labels, max_length=32, peft={"type": "lora", **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make_folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = foreign_folder(tmp_path_factory.mktemp(architecture) / "start", architecture)
        return made[architecture]

    return make_folder


@pytest.mark.parametrize("architecture", [*DECODERS, "bert"])
def test_a_sentence_encoder_gives_equal_vectors_in_sentence_transformers_transformers_and_peft(
    folder: Callable[[str], Path], tmp_path: Path, architecture: str
) -> None:
    start = folder(architecture)
    model = adapted(start, r=4)
    vectors = model.encode(SENTENCES)
    assert np.abs(vectors - TextModel.from_pretrained(start, max_length=32).encode(SENTENCES)).max() > 1e-2
    model.save(tmp_path / "model")
    for other in (SentenceTransformer(str(tmp_path / "model"), device="cpu"), TextModel.load(tmp_path / "model")):
        np.testing.assert_allclose(other.encode(SENTENCES), vectors, rtol=1e-4, atol=1e-5)
    # transformers and peft, on the network that training started from
    batch = random_batch()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    base = AutoModel.from_pretrained(start)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, on names that transformers has changed
        expected = model(batch, want=("tokens",)).tokens
        whole = AutoModel.from_pretrained(tmp_path / "model").eval()(**inputs).last_hidden_state
        torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)
        read = peft.PeftModel.from_pretrained(base, str(tmp_path / "model" / "adapter")).eval()
        torch.testing.assert_close(read(**inputs).last_hidden_state, expected)
    again = TextModel.load(tmp_path / "model" / "adapter")  # the adapters alone name the network below them
    np.testing.assert_allclose(again.encode(SENTENCES), vectors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [*DECODERS, "bert", "roberta"])
@torch.no_grad()
def test_a_classifier_gives_its_logits_in_transformers_and_peft(
    folder: Callable[[str], Path], tmp_path: Path, architecture: str
) -> None:
    """The classifier, and a pooler that the checkpoint did not have, are trained whole and saved with the adapters."""
    start = folder(architecture)
    model = adapted(start, LABELS, r=4, target_modules="all-linear")
    batch = random_batch()
    expected = model(batch).logits
    model.save(tmp_path / "model")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(plain(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(TextModel.load(tmp_path / "model")(batch).logits, expected, rtol=1e-4, atol=1e-5)
    base = AutoModelForSequenceClassification.from_pretrained(start, num_labels=len(LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = peft.PeftModel.from_pretrained(base, str(tmp_path / "model" / "adapter")).eval()
        torch.testing.assert_close(read(**inputs).logits, expected)


@pytest.mark.parametrize("kind", TYPES)
@torch.no_grad()
def test_every_type_can_be_merged_and_leaves_the_encoder_to_the_last_bit(
    folder: Callable[[str], Path], kind: str
) -> None:
    start = folder("qwen3")
    before = TextModel.from_pretrained(start, max_length=32)
    model = adapted(start, type=kind, **SIZES.get(kind, {}))
    own = dict(before.encoder.state_dict())
    state = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    merged = merged_state(model.encoder)
    assert all(torch.equal(value, state[name]) for name, value in model.encoder.state_dict().items())
    assert merged.keys() == own.keys()
    changed = {name for name in own if not torch.equal(merged[name], own[name])}
    targets = tuple(model.adapter.config.target_modules)
    assert changed
    assert all(name.removesuffix(".weight").endswith(targets) for name in changed)
    before.encoder.load_state_dict(merged)
    np.testing.assert_allclose(before.encode(SENTENCES), model.encode(SENTENCES), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def trained(folder: Callable[[str], Path]) -> dict[Any, TextModel]:
    return {labels: adapted(folder("bert"), labels).train() for labels in (None, LABELS)}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.modality != "images"])
def test_adapters_and_heads_alone_are_trained_by_every_method(trained: dict[Any, TextModel], name: str) -> None:
    method = make(name)
    model = trained[LABELS if method.requires == "labels" else None]
    model.add_heads(method.heads)
    wanted = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    grads = gradients(method, model, needed(method, with_pairs(random_batch(8))))
    assert not {f"encoder.{name}" for name in model.adapter.frozen} & grads.keys()
    if method.trainable == "all":
        assert any("lora_A" in key and grads[key].abs().max() > 0 for key in grads)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(wanted[key])


def test_an_attack_sees_the_adapters(folder: Callable[[str], Path]) -> None:
    """Its gradient is the one of the merged network, and not the one of the network without adapters."""
    model, batch = adapted(folder("qwen3"), LABELS), random_batch()

    def gradient() -> torch.Tensor:
        delta = torch.zeros(*batch["input_ids"].shape, 32).requires_grad_()
        loss = torch.nn.functional.cross_entropy(network.eval()(batch, delta=delta).logits, batch["labels"])
        return torch.autograd.grad(loss, delta)[0]

    network, merged = model, merged_state(model.encoder)
    expected = gradient()
    network = TextModel.from_pretrained(folder("qwen3"), labels=LABELS, max_length=32)
    network.encoder.score.weight.data = merged["score.weight"]
    assert (gradient() - expected).abs().max() > 1e-3
    network.encoder.load_state_dict(merged)
    torch.testing.assert_close(gradient(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("case", "full"), [("ce", 3), ("scal", 7), ("uscal", 10)])
def test_a_training_pass_costs_one_forward_unit_less_than_it_states(
    tiny_folder: Callable[..., Path], case: str, full: int
) -> None:
    """The gradients of the encoder's own weights are not computed: 2F a training pass, and an attack costs the same."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 256}
    start = tiny_folder("bert", 0.0, **sizes)
    method, batch = make(case, hidden_size=64), random_batch(8, 16)
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    model = adapted(start, LABELS if method.requires == "labels" else None, r=1, target_modules=["query", "value"])
    model.add_heads(method.heads)
    plain = TextModel.from_pretrained(start, max_length=32)

    def flops(work: Callable[[], Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    forward = flops(lambda: plain(batch, want=("tokens",)))
    passes = {"ce": 1, "scal": 2, "uscal": 3}[case]
    counted = flops(lambda: gradients(method, model.train(), batch)) / forward
    assert method.cost == f"{full}F"
    assert counted == pytest.approx(full - passes, rel=0.08)


def test_a_checkpoint_holds_what_is_trained(folder: Callable[[str], Path]) -> None:
    model = adapted(folder("qwen3"), LABELS, r=4)
    part = trained_part(model, model.state_dict())
    assert set(part) == {name for name, value in model.named_parameters() if value.requires_grad}
    count = sum(value.numel() for value in part.values())
    assert describe(model)[0].startswith(f"lora on q_proj, v_proj: {count:,} of ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "lorra"}, 'model.peft.type: no type of adapter is called "lorra"\ndid you mean "lora"?'),
        ({"type": "prefix_tuning"}, "known: lora, loha, lokr, ia3, oft, hra"),
        ({"rank": 8}, "lora has no setting 'rank'"),
        ({"lora_alfa": 8}, 'did you mean "lora_alpha"?'),
        ({"target_modules": ["q_prj"]}, "no linear layer of the encoder is called 'q_prj'\ndid you mean \"q_proj\"?"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "no linear layer of the encoder is called 'embed_tokens'"),
        ({"target_modules": "layers.[0"}, "target_modules is no regular expression"),
        ({"r": 0}, "lora cannot be set up"),
        ({"r": "eight"}, "lora cannot be set up"),
        ({"init_lora_weights": "pissa"}, "changes the encoder's own weights"),
        ({"bias": "all"}, "lora has no setting 'bias'"),
    ],
)
def test_a_mistake_is_one_clear_error(folder: Callable[[str], Path], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        TextModel.from_pretrained(folder("qwen3"), peft=settings)
    assert words in str(error.value)
    assert str(error.value).startswith("model.peft")


def test_without_the_package_its_extra_is_named(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"contraverse\[peft\]"):
        TextModel.from_pretrained(folder("qwen3"), peft={"type": "lora"})


@pytest.mark.parametrize("settings", [{"keep_layers": 1}, {"reinit_layers": 1}])
def test_adapters_belong_to_a_network_that_can_be_loaded(folder: Callable[[str], Path], settings: Any) -> None:
    with pytest.raises(UserError, match="keep_layers and reinit_layers"):
        TextModel.from_pretrained(folder("qwen3"), peft={"type": "lora"}, **settings)


def test_targets_are_the_shortest_endings_that_tell_them_apart(folder: Callable[[str], Path]) -> None:
    """A classifier's layers and a pooler's have the names of an encoder's: they are none of the targets."""
    encoder = TextModel.from_pretrained(folder("roberta"), labels=LABELS).encoder
    assert find_targets(encoder, "all-linear") == ["intermediate.dense", "key", "output.dense", "query", "value"]
    assert find_targets(encoder, r".*\.0\.attention\.self\.query") == ["0.attention.self.query"]
    assert find_targets(encoder, "query") == ["query"]


def test_adapters_start_a_classifier_whose_head_is_drawn(folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = adapted(folder("qwen3"))
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="the classifier is drawn anew"):
        again = TextModel.from_pretrained(tmp_path / "model" / "adapter", labels=LABELS, max_length=32).eval()
    batch = random_batch()
    torch.testing.assert_close(again(batch, want=("tokens",)).tokens, model(batch, want=("tokens",)).tokens)


def test_half_precision_keeps_adapters_that_learn(folder: Callable[[str], Path], tmp_path: Path) -> None:
    model = TextModel.from_pretrained(folder("qwen3"), max_length=32, dtype="bfloat16", peft={"type": "lora"})
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    assert model.encoder.dtype == torch.bfloat16
    assert kinds == {torch.float32}
    vectors = model.encode(SENTENCES)
    model.save(tmp_path / "model")
    np.testing.assert_allclose(TextModel.load(tmp_path / "model").encode(SENTENCES), vectors, atol=0.1)
