"""The examples run as they stand, on a tiny encoder in place of the default one."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from contraverse.models import ImageModel, TextModel
from contraverse.training import read_metrics

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


def run(name: str) -> dict[str, Any]:
    """What an example's names stand for at its end."""
    return runpy.run_path(str(next(path for path in EXAMPLES if path.stem == name)))


@pytest.fixture
def tiny_default(monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """The default encoder is tiny, and what an example writes goes to a folder that is returned."""
    load = TextModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def load_tiny(cls: type[TextModel], name: str, **settings: object) -> TextModel:
        model: TextModel = load(cls, tiny_folder("bert") if name == "minilm" else name, **settings)
        return model

    monkeypatch.setattr(TextModel, "from_pretrained", classmethod(load_tiny))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example: Path, tiny_default: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_own_dataset_measures_and_saves(tiny_default: Path) -> None:
    done = run("own_dataset")
    found = done["evaluate"](done["model"], done["test"], epsilons=[0.1])
    assert set(found) == {"accuracy", "accuracy@pgd-0.1"}
    assert TextModel.load(tiny_default / "runs" / "own" / "model").labels == ["delivery", "refund"]


def test_a_plain_loop_is_the_trainers_arithmetic(tiny_default: Path) -> None:
    """Every weight moves but those of heads that the loss does not reach."""
    done = run("plain_loop")
    still = {name for name, weight in done["model"].named_parameters() if not done["optimizer"].state[weight]}
    assert not any("layer" in name or "classifier" in name or "heads" in name for name in still)


def test_image_scal_learns_and_measures_on_the_pixels(tiny_default: Path) -> None:
    done = run("image_scal")
    found = done["evaluate"](done["model"], done["test"], norm="linf", epsilons=[1 / 255, 8 / 255, 1.0])
    clean, *attacked = found.values()
    assert clean >= 90
    assert clean >= attacked[0] > attacked[1] > attacked[2] == 0
    saved = ImageModel.load(tiny_default / "runs" / "images" / "model")
    assert saved.labels == ["plain", "lit"]
    assert done["evaluate"](saved, done["test"])["accuracy"] == clean


def test_text_acl_trains_both_streams_of_a_sentence_encoder(tiny_default: Path) -> None:
    done = run("text_acl")
    rows = [row for row in read_metrics(tiny_default / "runs" / "acl" / "metrics.jsonl") if "loss" in row]
    assert rows
    assert all(row["contrast_adv"] > row["contrast"] > 0 for row in rows)
    start = TextModel.from_pretrained("minilm", pooling="mean").state_dict()
    layers = {name: value for name, value in done["model"].state_dict().items() if "layer" in name}
    assert layers
    assert any(not torch.equal(value, start[name]) for name, value in layers.items())
    saved = SentenceTransformer(str(tiny_default / "runs" / "acl" / "model"), device="cpu")
    vectors = saved.encode(["My parcel never came.", "Give me my money back."])
    np.testing.assert_allclose(vectors, done["vectors"], atol=1e-5)


@pytest.mark.slow
def test_own_dataset_learns_with_the_default_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("own_dataset")
    assert done["evaluate"](done["model"], done["test"])["accuracy"] == 100


def test_the_first_lines_of_the_readme_train_evaluate_and_predict(tiny_default: Path) -> None:
    from contraverse import SCAL, TextData, TextModel, Trainer, evaluate

    rows = ["my parcel,delivery", "my money,refund"] * 8
    Path("tickets.csv").write_text("\n".join(["text,label", *rows]))

    train, test = TextData.from_csv("tickets.csv").split(0.25, seed=0)
    model = TextModel.from_pretrained("minilm", labels=train.label_names)
    Trainer(model, SCAL(epsilon=0.3), train, output_dir="runs/scal", num_train_epochs=1).train()
    metrics = evaluate(model, test, epsilons=[0.3])
    assert set(metrics) == {"accuracy", "accuracy@pgd-0.3"}
    predicted = model.predict([text for (text,) in test.texts])
    right = [test.label_names[label] == name for label, name in zip(test.labels, predicted, strict=True)]
    assert 100 * sum(right) / len(right) == metrics["accuracy"]
    model.save("runs/scal/model")
    assert TextModel.load("runs/scal/model").predict(["my money"]) == model.predict(["my money"])
