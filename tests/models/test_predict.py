"""Labels and probabilities of raw inputs: texts, pairs, files, PIL images and arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from PIL import Image
from reference.tiny import LABELS

from contraverse import evaluation
from contraverse.data import ImageData, TextData
from contraverse.errors import UserError
from contraverse.models import ImageModel, TextModel

Make = Callable[..., TextModel]

TEXTS = ["the cat sat on the mat", "a dog", "the dog and the cat ran to the park and sat", "hello"]


def spread(model: Any) -> Any:
    """``model`` with a classifier whose answers differ."""
    classifier = getattr(model, "classifier", None) or model.encoder.classifier
    with torch.no_grad():
        classifier.weight.normal_(std=5.0)
    return model


@pytest.fixture
def model(tiny_model: Make) -> TextModel:
    model = spread(tiny_model())
    with torch.no_grad():  # no class wins everywhere
        logits = evaluation.predict(model, TextData.from_rows(TEXTS))
        model.encoder.classifier.bias -= torch.tensor(logits.mean(0))  # type: ignore[union-attr]
    return model


@pytest.fixture
def image_model() -> ImageModel:
    torch.manual_seed(0)
    return spread(ImageModel.from_pretrained("resnet8", labels=["cat", "dog", "emu"])).train()


def pictures(n: int = 5, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# texts


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_predict_names_the_most_probable_class(model: TextModel, batch_size: int) -> None:
    logits = evaluation.predict(model, TextData.from_rows(TEXTS), batch_size)
    assert len(set(logits.argmax(1))) > 1
    assert model.predict(TEXTS, batch_size=batch_size) == [LABELS[i] for i in logits.argmax(1)]


def test_the_columns_of_predict_proba_are_label_names(model: TextModel) -> None:
    probabilities = model.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), len(model.label_names))
    assert probabilities.dtype == np.float32
    assert model.label_names == tuple(LABELS)
    logits = torch.tensor(evaluation.predict(model, TextData.from_rows(TEXTS)))
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-6)
    assert model.predict(TEXTS) == [model.label_names[i] for i in probabilities.argmax(1)]


def test_texts_come_in_any_sequence(model: TextModel) -> None:
    expected = model.predict(TEXTS)
    frame = pd.DataFrame({"text": TEXTS})
    rows: list[Any] = [tuple(TEXTS), np.array(TEXTS), iter(TEXTS), frame["text"], Dataset.from_pandas(frame)["text"]]
    rows += [TextData.from_rows(TEXTS), [(text,) for text in TEXTS]]
    for texts in rows:
        assert model.predict(texts) == expected


def test_a_pair_is_read_as_training_reads_it(model: TextModel) -> None:
    pairs = [("the cat", "a dog sat"), ("hello", "the park"), ("a dog", "a cat and a dog ran")]
    logits = evaluation.predict(model, TextData.from_rows(pairs))
    assert model.predict(pairs) == [LABELS[i] for i in logits.argmax(1)]
    assert model.predict_proba(pairs).shape == (3, len(LABELS))


def test_prediction_leaves_the_model_as_it_was(model: TextModel) -> None:
    model.train()
    model.encoder.base_model.eval()
    modes = [module.training for module in model.modules()]
    model.predict(TEXTS)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_regression_predicts_its_scores(tiny_model: Make) -> None:
    model = tiny_model(labels=("score",))
    scores = model.predict(TEXTS)
    np.testing.assert_allclose(scores, evaluation.predict(model, TextData.from_rows(TEXTS))[:, 0], rtol=1e-6)
    assert all(isinstance(score, float) for score in scores)
    with pytest.raises(UserError, match="a regression has no probabilities\npredict gives its scores"):
        model.predict_proba(TEXTS)


def test_no_texts_are_no_labels(model: TextModel) -> None:
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, len(LABELS))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("hello", r"expected a list of texts, not one string\nput it into a list: \[text\]"),
        ({"text": ["a"]}, "expected a list of texts, not a dict\ngive one column of it"),
        (pd.DataFrame({"text": ["a"]}), r'not a DataFrame\ngive one column of it, such as table\["text"\]'),
        (Dataset.from_dict({"text": ["a"]}), r'not a Dataset\ngive one column of it, such as table\["text"\]'),
    ],
)
def test_a_table_is_not_a_list_of_texts(model: TextModel, texts: Any, message: str) -> None:
    """A frame's iteration gives the names of its columns: those would be predicted, or encoded, without a word."""
    for method in (model.predict, model.predict_proba, model.encode):
        with pytest.raises(UserError, match=message):
            method(texts)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "row 1: expected a text, got None"),
        (["a", 3.5], "row 1: expected a text, got 3.5"),
        ([("a", "b"), "c"], "row 1: expected a pair of texts, got 'c'"),
        ([("a", "b", "c")], r"row 0: expected a text, got \('a', 'b', 'c'\)"),
    ],
)
def test_a_row_that_is_no_text_is_named(model: TextModel, texts: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.predict(texts)


def test_an_encoder_predicts_nothing(tiny_model: Make) -> None:
    encoder = tiny_model(labels=None)
    assert encoder.label_names == ()
    with pytest.raises(UserError, match=r"an encoder predicts no labels\nload the model with labels"):
        encoder.predict(TEXTS)
    with pytest.raises(UserError, match="an encoder predicts no labels"):
        ImageModel.from_pretrained("resnet8").predict_proba(pictures())


# images


def test_images_are_predicted_as_evaluation_does(image_model: ImageModel) -> None:
    images = pictures()
    logits = evaluation.predict(image_model, ImageData.from_arrays(images))
    names = [image_model.label_names[i] for i in logits.argmax(1)]
    probabilities = torch.tensor(logits).softmax(1).numpy()
    channels_first = images.transpose(0, 3, 1, 2)
    same: list[Any] = [images, channels_first, torch.tensor(channels_first), images / 255, list(images)]
    same += [ImageData.from_arrays(images), [Image.fromarray(image) for image in images]]
    for form in same:
        assert image_model.predict(form) == names
        np.testing.assert_allclose(image_model.predict_proba(form, batch_size=2), probabilities, atol=1e-5)
    assert image_model.training


def test_floats_are_not_rounded_to_bytes(image_model: ImageModel) -> None:
    """A perturbation of a tenth of a byte is seen."""
    images = torch.rand(2, 3, 16, 16)
    logits = image_model.eval()({"pixel_values": images}).logits.detach()
    np.testing.assert_allclose(image_model.predict_proba(images), logits.softmax(1).numpy(), rtol=1e-5)


def test_image_files_are_scaled_to_the_size_of_training(image_model: ImageModel, tmp_path: Path) -> None:
    big, small = Image.fromarray(pictures(1, 32)[0]), Image.fromarray(pictures(1, 16)[0])
    big.save(tmp_path / "big.png")
    small.save(tmp_path / "small.png")
    files = [tmp_path / "big.png", str(tmp_path / "small.png")]
    each = [image_model.predict_proba([file]) for file in files]
    np.testing.assert_allclose(image_model.predict_proba(files), np.concatenate(each), atol=1e-6)  # of two sizes
    image_model.image_size = (16, 16)
    scaled = np.asarray(big.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(image_model.predict_proba(files[:1]), image_model.predict_proba([scaled]), atol=1e-6)


def test_a_dual_model_predicts_with_the_batch_norms_that_are_named() -> None:
    model = spread(ImageModel.from_pretrained("resnet8", labels=["a", "b"], dual=True))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "adversarial" in name:
                weight.mul_(3)
    clean, adversarial = (
        model.predict_proba(pictures(), bn_branch=bn_branch) for bn_branch in ("clean", "adversarial")
    )
    assert not np.allclose(clean, adversarial)
    np.testing.assert_array_equal(model.predict_proba(pictures()), adversarial)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("cat.png", r"expected a list of images, not one image\nput it into a list: \[image\]"),
        (["no.png"], r"image 0 \(no.png\): "),
        ([pictures()[0], "no.png"], r"image 1 \(no.png\): "),
        ([3], "image 0: expected a path, a PIL image or an array, not a int"),
        ([pictures()[0] * 2.0], "image 0: the pixels are float64 from 0.0 to 510.0"),
        (np.zeros((4, 4)), r"an array of shape \(4, 4\) holds no images"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(image_model: ImageModel, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        image_model.predict(images)
