"""What a run starts from: another run's encoder, its classifier where it fits, its heads where they do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.pipeline import model_dir
from contraverse.pipeline.text import init_text_model
from contraverse.recipes import ModelConfig
from contraverse.types import HeadSpec

Make = Callable[..., TextModel]
Z = {"z": HeadSpec()}


def saved(model: TextModel, folder: Path) -> ModelConfig:
    return ModelConfig(name=str(model.save(folder)), max_length=16)


def weights(model: TextModel, part: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if part in name}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_same_classes_keep_their_classifier(tiny_model: Make, tmp_path: Path) -> None:
    trained = tiny_model(labels=("no", "yes"))
    model, notes = init_text_model(saved(trained, tmp_path / "m"), ["no", "yes"], {})
    assert notes == []
    assert same(weights(model, "classifier"), weights(trained, "classifier"))
    assert model.max_length == 16


@pytest.mark.parametrize("labels", [["a", "b"], ["no", "yes", "maybe"], ["score"]])
@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "albert", "distilbert", "electra", "deberta-v2", "mpnet", "modernbert"]
)
def test_other_classes_get_a_new_one_on_the_same_encoder(
    architecture: str, labels: list[str], tiny_model: Make, tmp_path: Path, batch: dict[str, Any]
) -> None:
    """Two classes for two others have weights of the right shape, and would pass for trained."""
    trained = tiny_model(architecture, labels=("no", "yes"))
    model, notes = init_text_model(saved(trained, tmp_path / "m"), labels, {})
    assert "the classifier is drawn anew" in notes[0]
    assert "no, yes" in notes[0]
    assert model.labels == labels
    out = model.eval()(batch, want=("tokens", "logits"))
    assert out.logits is not None
    assert out.logits.shape == (4, len(labels))
    expected = trained(batch, want=("tokens",)).tokens
    assert torch.allclose(out.tokens, expected, atol=1e-6)
    if len(labels) == 2:
        assert not torch.allclose(out.logits, trained(batch).logits, atol=1e-3)
    again = TextModel.load(model.save(tmp_path / "again"))
    assert again.labels == labels
    torch.testing.assert_close(again(batch).logits, out.logits)


def test_a_new_classifier_is_the_seeds(tiny_model: Make, tmp_path: Path) -> None:
    settings = saved(tiny_model(labels=("no", "yes")), tmp_path / "m")
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(weights(init_text_model(settings, ["a", "b"], {})[0], "classifier.weight"))
    assert same(drawn[0], drawn[1])
    assert not same(drawn[0], drawn[2])


def test_layers_are_dropped_under_a_new_classifier_too(tiny_model: Make, tmp_path: Path) -> None:
    settings = saved(tiny_model(labels=("no", "yes")), tmp_path / "m").model_copy(update={"keep_layers": 1})
    model, _ = init_text_model(settings, ["a", "b"], {})
    assert model.encoder.config.num_hidden_layers == 1
    assert len(model.encoder.base_model.encoder.layer) == 1


def test_heads_that_fit_are_taken_and_no_others(tiny_model: Make, tmp_path: Path) -> None:
    trained = tiny_model(labels=None, heads={**Z, "reconstruction": HeadSpec(kind="mlm"), "other": HeadSpec(dim=8)})
    settings = saved(trained, tmp_path / "m")
    wanted = {"reconstruction": HeadSpec(kind="mlm"), "other": HeadSpec(dim=4)}
    model, _ = init_text_model(settings, ["a", "b"], wanted)
    assert set(model.heads) == {"reconstruction"}  # the trainer adds the one of another size
    assert same(weights(model, "heads.reconstruction"), weights(trained, "heads.reconstruction"))
    assert not init_text_model(settings, ["a", "b"], {})[0].heads


def test_a_plain_encoder_is_as_ever(tiny_folder: Callable[..., Path]) -> None:
    model, notes = init_text_model(ModelConfig(name=str(tiny_folder()), max_length=32), ["a", "b"], Z)
    assert (set(model.heads), notes, model.labels) == (set(), [], ["a", "b"])


def test_another_pooling_is_said(tiny_model: Make, tmp_path: Path) -> None:
    settings = saved(tiny_model(labels=None, pooling="mean"), tmp_path / "m")
    assert "pooling mean" in init_text_model(settings, None, {})[1][0]


def test_the_model_of_a_run_is_found_where_it_is_finished(tiny_model: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_model().save(run / "model")
    assert model_dir(run / "model") == run / "model"
    with pytest.raises(UserError, match="no run and no model"):
        model_dir(run)
    (run / "config.yaml").write_text("recipe: ce\n")
    with pytest.raises(UserError, match="not finished"):
        model_dir(run)
    (run / "evaluation.json").write_text("{}")
    assert model_dir(run) == run / "model"
    (run / "model").rename(run / "gone")
    with pytest.raises(UserError, match="no model any more"):
        model_dir(run)
