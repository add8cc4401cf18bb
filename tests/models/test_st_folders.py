"""Folders of sentence-transformers: its own vectors, read and written back; what cannot be had is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.foreign import edit_json
from reference.tiny import sentences
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling, WordWeights
from torch import nn

from contraverse.errors import UserError
from contraverse.models import TextModel, fit_whitening
from contraverse.pipeline.text import init_text_model
from contraverse.recipes import ModelConfig

Folder = Callable[..., Path]
SENTENCES = [*sentences(7), "so", "the long way back " * 9]
MODES = ("cls", "lasttoken", "mean", "max", "mean_sqrt_len_tokens", "weightedmean")


def dense(inputs: int, outputs: int, activation: nn.Module | None = None, **settings: Any) -> Dense:
    weight, bias = torch.randn(outputs, inputs) / 4, torch.randn(outputs)
    return Dense(inputs, outputs, activation_function=activation or nn.Tanh(), init_weight=weight, init_bias=bias,
                 **settings)  # fmt: skip


def normed() -> LayerNorm:
    module = LayerNorm(32)
    nn.init.normal_(module.norm.weight)
    nn.init.normal_(module.norm.bias)
    return module


TAILS: dict[str, Callable[[], list[nn.Module]]] = {
    "dense": lambda: [dense(32, 16)],
    "normalize": lambda: [Normalize()],
    "dense and normalize": lambda: [dense(32, 16, nn.Identity()), Normalize()],
    "normalize and dense": lambda: [Normalize(), dense(32, 8, nn.ReLU())],
    "two dense": lambda: [dense(32, 24, nn.GELU()), dense(24, 8, nn.Identity(), bias=False)],
    "residual": lambda: [dense(32, 32, use_residual=True), dense(32, 8, use_residual=True)],
    "layer norm": lambda: [normed(), Normalize()],
    "dropout": lambda: [Dropout(0.5), dense(32, 16)],
}


@pytest.fixture
def theirs(tiny_folder: Folder, tmp_path: Path) -> Callable[..., SentenceTransformer]:
    """``theirs("mean", [Normalize()])``: saved in ``tmp_path / "theirs"``."""

    def make(
        mode: Any = "mean", tail: list[nn.Module] | None = None, longest: int | None = None, **settings: Any
    ) -> SentenceTransformer:
        torch.manual_seed(3)
        transformer = Transformer(str(tiny_folder()), max_seq_length=longest)
        model = SentenceTransformer(
            modules=[transformer, Pooling(32, pooling_mode=mode), *(tail or [])], device="cpu", **settings
        )
        model.save(str(tmp_path / "theirs"), create_model_card=False)
        return model.eval()

    return make


def check(tmp_path: Path, expected: np.ndarray) -> TextModel:
    """Ours, ours saved and loaded again, and theirs of what we saved give the same vectors."""
    model = TextModel.load(tmp_path / "theirs")
    np.testing.assert_allclose(model.encode(SENTENCES), expected, atol=1e-5)
    model.save(tmp_path / "ours")
    np.testing.assert_allclose(TextModel.load(tmp_path / "ours").encode(SENTENCES), expected, atol=1e-5)
    back = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(back.encode(SENTENCES), expected, atol=1e-5)
    return model


@pytest.mark.parametrize("mode", MODES)
def test_every_pooling_gives_their_vectors(theirs: Any, tmp_path: Path, mode: str) -> None:
    check(tmp_path, theirs(mode).encode(SENTENCES))


@pytest.mark.parametrize("flag", ["cls_token", "lasttoken", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"])
def test_the_older_form_of_pooling_is_read(theirs: Any, tmp_path: Path, flag: str) -> None:
    theirs("weightedmean")
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    older = {"word_embedding_dimension": 32} | {f"pooling_mode_{name}": name == flag for name in names}
    (tmp_path / "theirs" / "1_Pooling" / "config.json").write_text(json.dumps(older))
    check(tmp_path, SentenceTransformer(str(tmp_path / "theirs"), device="cpu").encode(SENTENCES))


@pytest.mark.parametrize("name", list(TAILS))
def test_modules_after_the_pooling_are_applied(theirs: Any, tmp_path: Path, name: str) -> None:
    expected = theirs("max", TAILS[name]()).encode(SENTENCES)
    model = check(tmp_path, expected)
    assert model.encode(SENTENCES[:2]).shape == (2, expected.shape[1])


def test_a_whitening_comes_after_them(theirs: Any, tmp_path: Path) -> None:
    theirs("mean", [dense(32, 16), Normalize()])
    model = TextModel.load(tmp_path / "theirs")
    model.postprocess = fit_whitening(model, sentences(60), dim=6)
    expected = model.encode(SENTENCES)
    model.save(tmp_path / "ours")
    for other in (TextModel.load(tmp_path / "ours"), SentenceTransformer(str(tmp_path / "ours"), device="cpu")):
        np.testing.assert_allclose(other.encode(SENTENCES), expected, atol=1e-4)


def test_prompts_are_set_before_and_kept(theirs: Any, tmp_path: Path) -> None:
    prompts = {"query": "what state is ", "document": "they say "}
    other = theirs("mean", prompts=prompts, default_prompt_name="query")
    model = check(tmp_path, other.encode(SENTENCES))
    expected = other.encode(SENTENCES, prompt_name="document")
    np.testing.assert_allclose(model.encode(SENTENCES, prompt="document"), expected, atol=1e-5)
    assert np.abs(expected - model.encode(SENTENCES)).max() > 1e-2
    again = TextModel.load(tmp_path / "ours")
    assert (again.prompts, again.default_prompt) == (prompts, "query")
    with pytest.raises(UserError, match="no prompt"):
        model.encode(SENTENCES, prompt="summary")


def test_the_length_at_which_a_text_is_cut_is_theirs(theirs: Any, tmp_path: Path) -> None:
    expected = theirs("mean", longest=7).encode(SENTENCES)
    model = check(tmp_path, expected)
    assert model.max_seq_length == 7
    (tmp_path / "theirs" / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": false}')
    older = SentenceTransformer(str(tmp_path / "theirs"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(TextModel.load(tmp_path / "theirs").encode(SENTENCES), older, atol=1e-5)


def test_what_cannot_be_reproduced_is_named(theirs: Any, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    theirs(("mean", "max"))
    with pytest.raises(UserError, match="mean and max"):
        TextModel.load(folder)
    theirs("mean")
    listed = json.loads((folder / "modules.json").read_text())
    foreign = [
        ("WordWeights", "sentence_transformers.sentence_transformer.modules.word_weights.WordWeights"),
        ("evil.Module", "evil.Module"),
        ("os.system", "os.system"),
    ]
    for said, kind in foreign:
        more = {"idx": 2, "name": "2", "path": "2_More", "type": kind}
        (folder / "modules.json").write_text(json.dumps([*listed, more]))
        with pytest.raises(UserError, match=said):
            TextModel.load(folder)
    (folder / "modules.json").write_text(json.dumps([{**listed[0], "type": foreign[0][1]}, listed[1]]))
    with pytest.raises(UserError, match="begins with WordWeights"):
        TextModel.load(folder)
    assert WordWeights is not None


@pytest.mark.parametrize(
    ("file", "content"),
    [("modules.json", "{}"), ("modules.json", "[1]"), ("modules.json", ""), ("1_Pooling/config.json", "[]"),
     ("1_Pooling/config.json", '{"pooling_mode": "best"}'), ("2_Dense/config.json", "{}"),
     ("2_Dense/config.json", '{"in_features": 32, "out_features": 16, "activation_function": "os.system"}'),
     ("2_Dense/config.json", '{"in_features": 32, "out_features": 9, "activation_function": "torch.nn.modules.Tanh"}'),
     ("2_Dense/model.safetensors", "cut"), ("config_sentence_transformers.json", '{"prompts": [1]}'),
     ("config_sentence_transformers.json", '{"default_prompt_name": "query"}'),
     ("sentence_bert_config.json", '{"max_seq_length": "long"}')],
)  # fmt: skip
def test_a_damaged_file_is_named(theirs: Any, tmp_path: Path, file: str, content: str) -> None:
    theirs("mean", [dense(32, 16)])
    (tmp_path / "theirs" / file).write_text(content)
    with pytest.raises(UserError) as caught:
        TextModel.load(tmp_path / "theirs")
    assert file.split("/")[0] in str(caught.value)


def test_a_module_outside_of_the_folder_is_not_read(theirs: Any, tmp_path: Path) -> None:
    theirs("mean", [dense(32, 16)])
    (tmp_path / "theirs" / "2_Dense").rename(tmp_path / "2_Dense")
    listed = json.loads((tmp_path / "theirs" / "modules.json").read_text())
    (tmp_path / "theirs" / "modules.json").write_text(json.dumps([*listed[:2], {**listed[2], "path": "../2_Dense"}]))
    with pytest.raises(UserError, match="outside"):
        TextModel.load(tmp_path / "theirs")


def test_the_encoder_may_lie_in_a_folder_of_its_own(theirs: Any, tmp_path: Path) -> None:
    expected, folder = theirs("max").encode(SENTENCES), tmp_path / "theirs"
    (folder / "0_Transformer").mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(folder / "0_Transformer" / path.name)
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([{**listed[0], "path": "0_Transformer"}, listed[1]]))
    check(tmp_path, expected)


def test_training_says_what_it_does_not_go_on_with(theirs: Any, tmp_path: Path) -> None:
    theirs("max", [dense(32, 16), Normalize()], prompts={"query": "what "}, default_prompt_name="query")
    _, notes = init_text_model(ModelConfig(name=str(tmp_path / "theirs"), pooling="mean", max_length=16), None, {})
    assert any("pooling max" in note and "mean" in note for note in notes)
    assert any("dense" in note and "query" in note for note in notes)


def test_lower_case_beside_a_tokenizer_that_does_it_anyway(theirs: Any, tmp_path: Path) -> None:
    expected = theirs("mean").encode(SENTENCES)
    edit_json(tmp_path / "theirs" / "sentence_bert_config.json", do_lower_case=True)
    np.testing.assert_allclose(TextModel.load(tmp_path / "theirs").encode(SENTENCES), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["best", "lasttoken", "average", "CLS"])
def test_a_pooling_that_is_none_is_refused_in_python_too(tiny_folder: Folder, name: Any) -> None:
    with pytest.raises(UserError, match="no pooling"):
        TextModel.from_pretrained(tiny_folder(), pooling=name)
