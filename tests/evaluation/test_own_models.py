"""`attack` and `robust_accuracy` on anybody's networks: plain torch, transformers, and ours."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.tiny import LABELS, tiny_config, tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, ViTConfig, ViTForImageClassification

from contraverse.attacks import NormBall, Objective, perturbation_inputs, pgd
from contraverse.data import ImageData, TextData
from contraverse.errors import UserError
from contraverse.evaluation import attack, robust_accuracy
from contraverse.models import ImageModel, TextModel

EPSILON = 4 / 255
TEXTS = ["the cat sat on the mat", "a dog", "the dog and the cat ran to the park and sat", "hello you"]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Plain(nn.Module):
    """A small network with batch norm and dropout; ``view`` refuses another layout than torch's default."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.out = nn.Linear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.drop(F.relu(self.norm(self.conv(x))).view(len(x), -1)))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = Plain()
    network(torch.rand(16, 3, 8, 8))  # statistics of its batch norm
    return network.eval()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(10, 3, 8, 8), torch.randint(0, 4, (10,))


@pytest.fixture
def bert() -> Any:
    torch.manual_seed(0)
    config = tiny_config("bert", 0.1)
    config.num_labels = 3
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model.classifier.weight.normal_(std=1.0)
    return model


def reference_pgd(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int) -> Tensor:
    """PGD of Madry et al. in plain loops: the image of largest loss among those misclassified, or among all."""
    step, adversarial = 2.5 * EPSILON / steps, x.clone()
    iterates = []
    for i in range(steps + 1):
        adversarial = adversarial.detach().requires_grad_()
        logits = f(adversarial)
        losses = F.cross_entropy(logits, y, reduction="none")
        iterates.append((adversarial.detach(), losses.detach(), logits.detach().argmax(1) != y))
        if i < steps:
            (grad,) = torch.autograd.grad(losses.sum(), adversarial)
            moved = adversarial.detach() + step * grad.sign()
            adversarial = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    worst = []
    for row in range(len(x)):
        keys = [(bool(wrong[row]), float(losses[row])) for _, losses, wrong in iterates]
        worst.append(iterates[keys.index(max(keys))][0][row])
    return torch.stack(worst)


# images


def test_a_plain_network_is_attacked_as_by_pgd_in_plain_loops(
    network: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    found = attack(network, x, y, epsilon=EPSILON, steps=5, batch_size=4)
    torch.testing.assert_close(found.inputs, reference_pgd(network, x, y, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.inputs, x + found.delta)
    torch.testing.assert_close(found.logits, network(found.inputs), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.clean_logits, network(x), atol=1e-4, rtol=1e-4)
    assert torch.equal(found.success, found.logits.argmax(1) != y)
    assert found.delta.abs().max() <= EPSILON * (1 + 1e-6)
    assert 0 <= found.inputs.min() <= found.inputs.max() <= 1
    assert int(found.success.sum()) > 0
    assert int(found.zero_grad_rows) == 0


def test_an_image_model_is_attacked_as_in_training(images: tuple[Tensor, Tensor]) -> None:
    """Against the PGD that methods train with, on the worst iterate by cross-entropy."""
    torch.manual_seed(0)
    model, (x, y) = ImageModel.from_pretrained("resnet8", labels=list("abcd")).eval(), images
    batch = {"pixel_values": x, "labels": y}

    def loss_of(delta: Tensor) -> Objective:
        logits = model(batch, delta=delta).logits
        return Objective(F.cross_entropy(logits, y, reduction="none"), logits)

    ball = NormBall(EPSILON, 2.5 * EPSILON / 3, "linf")
    expected = pgd(loss_of, ball, perturbation_inputs(model, batch), steps=3)
    found = attack(model, x, y, epsilon=EPSILON, steps=3)
    with torch.no_grad():
        same_class = model({"pixel_values": x + expected.delta}).logits.argmax(1) == found.logits.argmax(1)
    assert same_class.any()
    torch.testing.assert_close(found.delta[same_class], expected.delta[same_class], atol=1e-6, rtol=0)


def test_a_normalisation_beside_the_network_is_that_inside_it(
    network: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
            return network((x - mean) / std)

    beside = attack(network, x, y, epsilon=EPSILON, steps=3, mean=MEAN, std=STD)
    inside = attack(Inside().eval(), x, y, epsilon=EPSILON, steps=3)
    torch.testing.assert_close(beside.delta, inside.delta, atol=1e-6, rtol=0)
    torch.testing.assert_close(beside.logits, inside.logits)


@pytest.mark.parametrize("settings", [{}, {"attack": "apgd"}, {"norm": "l2"}, {"random_start": True, "restarts": 2}])
def test_success_is_what_robust_accuracy_counts(
    network: nn.Module, images: tuple[Tensor, Tensor], settings: dict[str, Any]
) -> None:
    x, y = images
    data = ImageData.from_arrays(x.numpy(), y.numpy(), list("abcd"))
    x = data.pixels / 255  # as bytes hold them
    epsilon = 0.2 if "norm" in settings else EPSILON
    found = attack(network, x, y, epsilon=epsilon, steps=4, **settings)
    report = robust_accuracy(network, data, [epsilon], steps=4, **{"norm": "linf", **settings})
    np.testing.assert_array_equal(report.at[epsilon].correct, ~found.success.numpy())
    assert report.clean_accuracy == 100 * (network(x).argmax(1) == y).float().mean()
    assert 0 < report.at[epsilon].accuracy < 100 or settings


def test_a_network_of_transformers_gives_its_logits_as_a_field(images: tuple[Tensor, Tensor]) -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=4,
    )  # fmt: skip
    x, y = images
    model = ViTForImageClassification(config).eval()
    found = attack(model, x, y, epsilon=EPSILON, steps=2)
    torch.testing.assert_close(found.logits, model(found.inputs).logits, atol=1e-5, rtol=1e-5)


def test_grey_images_and_arrays_are_taken(images: tuple[Tensor, Tensor]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    x, y = images
    found = attack(network, x[:, :1].numpy(), y.tolist(), epsilon=0.1, steps=2)
    assert found.inputs.shape == (10, 1, 8, 8)
    assert attack(network, x[:, :1], y, epsilon=0.1, steps=2).delta.equal(found.delta)


def state_of(model: nn.Module) -> Any:
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(module.training, len(module._forward_hooks)) for module in model.modules()]
    wanted = [(p.requires_grad, p.stride(), p.data_ptr(), p.grad) for p in model.parameters()]
    return tensors, flags, wanted, torch.get_rng_state()


def assert_unchanged(model: nn.Module, before: Any) -> None:
    after = state_of(model)
    for old, new in ((before[0], after[0]), ({"rng": before[3]}, {"rng": after[3]})):
        assert all(torch.equal(value, new[name]) for name, value in old.items())
    assert (before[1], before[2]) == (after[1], after[2])


def test_a_network_is_left_as_it_was(network: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Modes, gradients, frozen weights, the layout in memory, buffers and random state; under no_grad, too."""
    x, y = images
    weight = network.train().get_parameter("out.weight")
    weight.data = weight.data.T.contiguous().T
    network.get_submodule("drop").eval()
    network.get_parameter("conv.bias").requires_grad_(False)
    network.get_parameter("out.weight").grad = torch.ones(4, 512)
    before = state_of(network)
    with torch.no_grad():
        attack(network, x, y, epsilon=EPSILON, steps=2, random_start=True)
        assert not torch.is_grad_enabled()
    robust_accuracy(network, ImageData.from_arrays(x.numpy(), y.numpy()), [EPSILON], steps=2)
    assert_unchanged(network, before)


# texts


@pytest.mark.parametrize("texts", [TEXTS, list(zip(TEXTS, TEXTS[::-1], strict=True))], ids=["texts", "pairs"])
def test_a_classifier_of_transformers_reads_the_perturbed_embeddings(bert: Any, texts: Any) -> None:
    y = [0, 1, 2, 0]
    found = attack(bert, texts, y, epsilon=0.5, steps=3, tokenizer=tiny_tokenizer(type_ids=True), batch_size=3)
    masks = {name: value for name, value in found.batch.items() if name != "input_ids"}
    with torch.no_grad():
        perturbed = bert(inputs_embeds=found.inputs, **masks).logits
        clean = bert(**found.batch).logits
    torch.testing.assert_close(found.logits, perturbed, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.clean_logits, clean, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.success, perturbed.argmax(1) != torch.tensor(y))
    real = masks["attention_mask"].bool()
    assert not found.delta[~real].any()
    norms = found.delta.flatten(1).norm(dim=1)
    assert (norms <= 0.5 * (1 + 1e-5)).all()
    assert (norms > 0.4).all()
    ce = [F.cross_entropy(logits, torch.tensor(y), reduction="none") for logits in (clean, perturbed)]
    assert (ce[1] > ce[0]).all()


def test_a_text_model_is_attacked_as_robust_accuracy_does(tiny_model: Any) -> None:
    model, labels = tiny_model(), [0, 1, 2, 0]
    with torch.no_grad():
        model.encoder.classifier.weight.normal_(std=1.0)
    names = [LABELS[i] for i in labels]
    for epsilon in (0.01, 0.1, 0.5):
        found = attack(model, TEXTS, names, epsilon=epsilon, steps=3)
        report = robust_accuracy(model, TextData.from_rows(TEXTS, labels, LABELS), [epsilon], steps=3)
        np.testing.assert_array_equal(report.at[epsilon].correct, ~found.success.numpy())


def test_robust_accuracy_takes_a_classifier_of_transformers(bert: Any) -> None:
    data = TextData.from_rows(TEXTS, [0, 1, 2, 0])
    found = attack(bert, TEXTS, [0, 1, 2, 0], epsilon=0.05, steps=3, tokenizer=tiny_tokenizer(type_ids=True))
    report = robust_accuracy(bert, data, [0.05], steps=3, tokenizer=tiny_tokenizer(type_ids=True))
    np.testing.assert_array_equal(report.at[0.05].correct, ~found.success.numpy())


def test_a_classifier_of_transformers_is_left_as_it_was(bert: Any) -> None:
    tokenizer = tiny_tokenizer(type_ids=True)
    tokenizer.padding_side = "left"
    bert.train().bert.eval()
    bert.config.use_cache = True
    config, before = bert.config.to_dict(), state_of(bert)
    attack(bert, TEXTS, [0, 1, 2, 0], epsilon=0.1, steps=2, tokenizer=tokenizer)
    robust_accuracy(bert, TextData.from_rows(TEXTS, [0, 1, 2, 0]), [0.1], steps=2, tokenizer=tokenizer)
    assert_unchanged(bert, before)
    assert bert.config.to_dict() == config
    assert tokenizer.padding_side == "left"


def test_from_transformers_shares_the_weights_and_predicts(bert: Any) -> None:
    bert.config.id2label = {0: "no", 1: "maybe", 2: "yes"}
    model = TextModel.from_transformers(bert, tiny_tokenizer(type_ids=True))
    assert model.encoder is bert
    assert model.label_names == ("no", "maybe", "yes")
    tokens = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert model.predict(TEXTS) == [model.label_names[i] for i in bert(**tokens).logits.argmax(1)]


# mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0}, "epsilon must be a finite number above 0, not 0"),
        ({"x": torch.full((2, 3, 8, 8), 1.5)}, r"x must be in \[0, 1\], and is from 1.5 to 1.5\ngive images before"),
        ({"x": torch.ones(2, 3, 8, 8, dtype=torch.uint8)}, r"got uint8 \(2, 3, 8, 8\)\nbytes are divided by 255 first"),
        ({"x": torch.rand(3, 8, 8)}, r"floats \(N, C, H, W\) in \[0, 1\], got float32 \(3, 8, 8\)"),
        ({"y": [0]}, "2 rows in x, and 1 labels in y"),
        ({"y": [0, 4]}, r"y\[1\]: label 4 is none of the model's 4 classes"),
        ({"y": [0, 0.5]}, r"y\[1\]: label 0.5 is none of the model's 4 classes"),
        ({"attack": "fab"}, 'no attack is called "fab"'),
        ({"model": nn.Linear(8, 4)}, r"the network gives no logits"),
        ({"tokenizer": tiny_tokenizer(type_ids=True)}, "expected a classifier of transformers, not a Plain"),
    ],
)
def test_a_mistake_is_explained(network: nn.Module, change: dict[str, Any], message: str) -> None:
    call = {"model": network, "x": torch.rand(2, 3, 8, 8), "y": [0, 1], "epsilon": 0.1, "steps": 1, **change}
    with pytest.raises(UserError, match=message):
        attack(**call)


def test_a_classifier_of_transformers_needs_its_tokenizer(bert: Any) -> None:
    with pytest.raises(UserError, match=r"a model of texts needs its tokenizer\ngive tokenizer="):
        attack(bert, TEXTS, [0, 1, 2, 0], epsilon=0.1)


def test_a_regression_is_not_attacked(tiny_model: Any) -> None:
    with pytest.raises(UserError, match="an attack needs a classifier of two classes or more"):
        attack(tiny_model(labels=("score",)), TEXTS, [0, 0, 0, 0], epsilon=0.1)
