"""Each method's loss and gradient against the printed equations, from features taken by plain forward passes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import equations
from reference.driving import Watched, flat, gradients, losses_of
from torch import Tensor, nn

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.models import TextModel
from contraverse.types import Method, TrainingInfo

Make = Callable[..., TextModel]


def head(model: TextModel, h: Tensor) -> Tensor:
    dense = model.heads["z"].dense
    return torch.tanh(h @ dense.weight.T + dense.bias)


def run(model: TextModel, batch: Any, delta: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (a leaf where ``delta`` is None), logits and z, by Hugging Face's own modules."""
    embeddings = model.encoder.get_input_embeddings()(batch["input_ids"])
    given = embeddings if delta is None else embeddings + delta
    mask = batch["attention_mask"]
    states = model.encoder.base_model(inputs_embeds=given, attention_mask=mask).last_hidden_state
    logits = model.encoder(inputs_embeds=given, attention_mask=mask).logits
    return given, logits, head(model, states[:, 0])


def attack(
    model: TextModel, batch: Any, loss_of: Any, epsilon: float, kind: str = "fgm", scope: str = "sequence"
) -> Tensor:
    """Eqs. (2), (3), (6) and (9) from the gradient of ``loss_of(logits, z)`` at the embeddings."""
    given, logits, z = run(model, batch)
    (grad,) = torch.autograd.grad(loss_of(logits, z), given)
    grad = grad * batch["attention_mask"].unsqueeze(-1)
    rule = {"fgm": equations.fgm, "fgsm": equations.fgsm}[kind]
    return torch.tensor(rule(grad.double().numpy(), epsilon, scope), dtype=torch.float32)


def ready(tiny_model: Make, name: str, **settings: Any) -> tuple[Method, TextModel]:
    method = METHODS[name](**settings)
    return method, tiny_model(dropout=0.0, heads=method.heads).train()


def total(method: Method, model: nn.Module, batch: Any) -> tuple[float, dict[str, float]]:
    (loss,) = losses_of(method, model, batch)
    return loss.total.item(), {name: float(part) for name, part in loss.parts.items()}


def numbers(*tensors: Tensor) -> list[np.ndarray]:
    return [t.detach().double().numpy() for t in tensors]


def same_gradient(method: Method, model: TextModel, batch: Any, expected: Callable[[], Tensor]) -> None:
    """The gradient of ``expected()``, with the attack inside it held constant, is the method's."""
    got = gradients(method, model, batch)
    model.zero_grad()
    expected().backward()
    want = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert {n for n, g in got.items() if g.norm() > 0} == {n for n, g in want.items() if g.norm() > 0}
    want = {name: want.get(name, torch.zeros_like(g)) for name, g in got.items()}
    torch.testing.assert_close(flat(got), flat(want), rtol=1e-3, atol=1e-4 * flat(want).abs().max().item())


def nce(a: Tensor, b: Tensor, t: float) -> Tensor:
    """InfoNCE with gradients, for `same_gradient`; its value is checked against the loop."""
    logits = F.cosine_similarity(a.unsqueeze(1), b.unsqueeze(0), dim=-1) / t
    return (logits.logsumexp(1) - logits.diag()).mean()


def test_cross_entropy_is_equation_5(tiny_model: Make, batch: Any) -> None:
    method, model = ready(tiny_model, "ce")
    _, logits, _ = run(ready(tiny_model, "cl")[1], batch)
    value, _ = total(method, model, batch)
    assert value == pytest.approx(equations.cross_entropy(logits.detach().numpy(), batch["labels"].tolist()), rel=1e-5)


@pytest.mark.parametrize("kind", ["fgm", "fgsm"])
@pytest.mark.parametrize("scope", ["sequence", "token", "batch"])
@pytest.mark.parametrize(("name", "contrast"), [("at", None), ("scal", "infonce"), ("scal", "literal")])
def test_scal_is_equation_8(
    tiny_model: Make, batch: Any, kind: Any, scope: Any, name: str, contrast: str | None
) -> None:
    """With alpha = 0 and no contrast: adversarial training."""
    epsilon, alpha, t = (0.4 if kind == "fgm" else 0.02), 0.7, 0.5
    extra = {"alpha": alpha, "temperature": t, "contrast": contrast} if contrast else {}
    method, model = ready(tiny_model, name, epsilon=epsilon, attack=kind, scope=scope, **extra)
    reference = ready(tiny_model, "scal")[1]
    labels = batch["labels"]
    delta = attack(reference, batch, lambda logits, _: F.cross_entropy(logits, labels), epsilon, kind, scope)
    _, logits, z = run(reference, batch)
    _, logits_adv, z_adv = run(reference, batch, delta)
    expected = equations.scal_total(
        *numbers(logits, logits_adv), labels.tolist(), *numbers(z, z_adv), alpha=alpha if contrast else 0.0, t=t,
        contrast=equations.scal_contrast_as_printed if contrast == "literal" else equations.info_nce,
    )  # fmt: skip
    value, parts = total(method, model, batch)
    assert value == pytest.approx(expected, rel=1e-4)
    assert parts["ce"] == pytest.approx(equations.cross_entropy(logits.detach().numpy(), labels.tolist()), rel=1e-4)
    assert parts["ce_adv"] > parts["ce"]


def test_scal_holds_the_attack_constant_in_its_gradient(tiny_model: Make, batch: Any) -> None:
    method, model = ready(tiny_model, "scal", epsilon=0.4, alpha=0.7, temperature=0.5)
    labels = batch["labels"]

    def expected() -> Tensor:
        delta = attack(model, batch, lambda logits, _: F.cross_entropy(logits, labels), 0.4)
        _, logits, z = run(model, batch)
        _, logits_adv, z_adv = run(model, batch, delta)
        ce = (F.cross_entropy(logits, labels) + F.cross_entropy(logits_adv, labels)) / 2
        return ce + 0.7 * nce(z, z_adv, 0.5)

    same_gradient(method, model, batch, expected)


@pytest.mark.parametrize("kind", ["fgm", "fgsm"])
def test_uscal_is_equation_10(tiny_model: Make, batch: Any, kind: Any) -> None:
    epsilon, alpha, t = (0.4 if kind == "fgm" else 0.02), 0.7, 0.5
    method, model = ready(tiny_model, "uscal", epsilon=epsilon, alpha=alpha, temperature=t, attack=kind)
    _, _, z_2 = run(model, batch)
    # Eq. (9) differentiates at x^emb1 alone: the second view is a constant there, though equal without dropout.
    delta = attack(model, batch, lambda _, z: nce(z, z_2.detach(), t), epsilon, kind)
    _, _, z_adv = run(model, batch, delta)
    value, parts = total(method, model, batch)
    assert value == pytest.approx(equations.uscal_total(*numbers(z_2, z_2, z_adv), alpha=alpha, t=t), rel=1e-4)
    assert parts["contrast_adv"] > parts["contrast"]


def test_uscal_holds_the_attack_constant_in_its_gradient(tiny_model: Make, batch: Any) -> None:
    method, model = ready(tiny_model, "uscal", epsilon=0.4, alpha=0.7, temperature=0.5)

    def expected() -> Tensor:
        _, _, z_2 = run(model, batch)
        delta = attack(model, batch, lambda _, z: nce(z, z_2.detach(), 0.5), 0.4)
        _, _, z_1 = run(model, batch)
        _, _, z_adv = run(model, batch, delta)
        return nce(z_1, z_2, 0.5) + 0.7 * nce(z_1, z_adv, 0.5)

    same_gradient(method, model, batch, expected)


def test_simcse_is_equation_4(tiny_model: Make, batch: Any) -> None:
    method, model = ready(tiny_model, "simcse", temperature=0.5)
    (z,) = numbers(run(model, batch)[2])
    assert total(method, model, batch)[0] == pytest.approx(equations.info_nce(z, z, 0.5), rel=1e-4)


def test_contrastive_is_equation_8_on_dropout_views(tiny_model: Make, batch: Any) -> None:
    method, model = ready(tiny_model, "cl", alpha=0.7, temperature=0.5)
    _, logits, z = run(model, batch)
    expected = equations.scal_total(
        *numbers(logits, logits), batch["labels"].tolist(), *numbers(z, z), alpha=0.7, t=0.5
    )
    assert total(method, model, batch)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("hard", [True, False])
def test_supervised_simcse_scores_hard_negatives_too(tiny_model: Make, full_batch: Any, hard: bool) -> None:
    method, model = ready(tiny_model, "simcse-sup", temperature=0.5)
    if not hard:
        del full_batch["negative"]
    anchor = run(model, full_batch)[2]
    positive = run(model, full_batch["positive"])[2]
    negative = run(model, full_batch["negative"])[2] if hard else torch.zeros(0, 32)
    expected = equations.simcse_supervised(*numbers(anchor, positive, negative), 0.5)
    assert total(method, model, full_batch)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["scal", "uscal"])
def test_alpha_zero_leaves_the_contrast_out(tiny_model: Make, batch: Any, name: str) -> None:
    value, parts = total(*ready(tiny_model, name, alpha=0.0), batch)
    rest = (parts["ce"] + parts["ce_adv"]) / 2 if name == "scal" else parts["contrast"]
    assert value == pytest.approx(rest, rel=1e-5)


def test_the_defaults_are_the_papers() -> None:
    """SCAL 4.1: temperature .05, epsilon among .1 to .5, alpha below one; FGM per sequence."""
    for name in ("scal", "uscal"):
        method = METHODS[name]()
        assert method.temperature == 0.05
        assert method.ball.epsilon in (0.1, 0.2, 0.3, 0.4, 0.5)
        assert method.ball.step_size == method.ball.epsilon
        assert (method.ball.norm, method.ball.scope) == ("l2", "sequence")
        assert 0 < method.alpha < 1
    assert METHODS["simcse"]().temperature == 0.05


def test_a_regression_is_attacked_by_its_squared_error(tiny_model: Make, batch: Any) -> None:
    """STS-B: one output, floating labels."""
    method = METHODS["at"](epsilon=0.4)
    model = tiny_model(labels=("score",), dropout=0.0).train()
    batch["labels"] = torch.tensor([0.0, 1.0, 2.5, 5.0])
    given, logits, _ = run_regression(model, batch)
    (grad,) = torch.autograd.grad((logits[:, 0] - batch["labels"]).square().mean(), given)
    grad = grad * batch["attention_mask"].unsqueeze(-1)
    watched = Watched(model)
    losses_of(method, watched, batch)
    np.testing.assert_allclose(watched.watch.passes()[-1].delta, equations.fgm(grad.numpy(), 0.4), atol=1e-5)


def run_regression(model: TextModel, batch: Any) -> tuple[Tensor, Tensor, None]:
    embeddings = model.encoder.get_input_embeddings()(batch["input_ids"])
    return embeddings, model.encoder(inputs_embeds=embeddings, attention_mask=batch["attention_mask"]).logits, None


# views


def views(tiny_model: Make, name: str, batch: Any, dropout: float, training: bool = True) -> list[Tensor]:
    """The z of every pass of one step."""
    method = METHODS[name]()
    model = Watched(tiny_model(dropout=dropout, heads=method.heads).train(training))
    losses_of(method, model, batch)
    return [call.out.z for call in model.watch.passes()]


@pytest.mark.parametrize("name", ["cl", "simcse", "uscal"])
def test_dropout_makes_the_views(tiny_model: Make, batch: Any, name: str) -> None:
    """T10: with dropout the two views of a sentence differ; without, or in eval mode, they are equal."""
    first, second = views(tiny_model, name, batch, 0.1)[:2]
    assert ((first - second).abs().amax(1) > 1e-3).all()
    for settings in ((0.0, True), (0.1, False)):
        first, second = views(tiny_model, name, batch, *settings)[:2]
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cl", "scal", "simcse", "uscal"])
def test_with_dropout_the_equation_holds_for_the_views_drawn(tiny_model: Make, batch: Any, name: str) -> None:
    """Which view is whose anchor shows only where they differ: in eqs. (7) and (10), the first is always the anchor."""
    method = METHODS[name]()
    model = Watched(tiny_model(dropout=0.1, heads=method.heads).train())
    value, _ = total(method, model, batch)
    calls = model.watch.passes()
    z = numbers(*(call.out.z for call in calls))
    if name == "uscal":
        expected = equations.uscal_total(*z, alpha=0.1, t=0.05)
    elif name == "simcse":
        expected = equations.info_nce(*z, 0.05)
    else:
        logits = numbers(*(call.out.logits for call in calls))
        expected = equations.scal_total(*logits, batch["labels"].tolist(), *z, alpha=0.1, t=0.05)
    assert value == pytest.approx(expected, rel=1e-4)


def test_the_third_view_of_uscal_is_perturbed_and_has_a_mask_of_its_own(tiny_model: Make, batch: Any) -> None:
    first, second, third = views(tiny_model, "uscal", batch, 0.0)
    torch.testing.assert_close(first, second)
    assert ((first - third).abs().amax(1) > 1e-4).all()
    method = METHODS["uscal"](epsilon=1e-12)
    model = Watched(tiny_model(dropout=0.1, heads=method.heads).train())
    losses_of(method, model, batch)
    z = [call.out.z for call in model.watch.passes()]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert ((z[a] - z[b]).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize(
    ("name", "passes"), [("ce", 1), ("at", 2), ("cl", 2), ("scal", 2), ("simcse", 2), ("uscal", 3)]
)
def test_the_attack_uses_the_pass_that_is_trained_on(tiny_model: Make, batch: Any, name: str, passes: int) -> None:
    """No forward is spent on the attack alone."""
    method = METHODS[name]()
    model = Watched(tiny_model(heads=method.heads).train())
    losses_of(method, model, batch)
    assert len(model.watch.passes()) == passes
    perturbed = [c.delta for c in model.watch.passes() if c.delta is not None]
    if name in ("at", "scal", "uscal"):
        assert (perturbed[0] == 0).all()
        np.testing.assert_allclose(perturbed[-1].flatten(1).norm(dim=1), 0.3, rtol=1e-5)
        assert (perturbed[-1][batch["attention_mask"] == 0] == 0).all()


@pytest.mark.parametrize("name", ["scal", "cl"])
@pytest.mark.parametrize("same_class", ["masked", "positives"])
def test_rows_of_the_same_class_may_be_masked_or_positives(
    name: str, same_class: Any, tiny_model: Make, batch: Any
) -> None:
    """The contrast of a step, from what its passes gave; what is read is the labels of the batch."""
    batch = {**batch, "labels": torch.tensor([1, 0, 1, 1])}
    method = METHODS[name](same_class=same_class, temperature=0.5)
    watched = Watched(tiny_model(heads=method.heads, dropout=0.1).train())
    loss = losses_of(method, watched, batch)[-1]
    first, second = (call.out.z.detach().double().numpy() for call in watched.watch.passes())
    expected = equations.same_class_contrast(first, second, [1, 0, 1, 1], 0.5, same_class)
    assert loss.parts["contrast"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["scal", "cl"])
@pytest.mark.parametrize("labels", [None, torch.tensor([0.1, 2.0])])
def test_scores_are_no_classes(name: str, labels: Any) -> None:
    training_info = TrainingInfo(num_examples=2, hidden_size=4, labels=labels)
    METHODS[name]().prepare(training_info)
    with pytest.raises(UserError, match="same_class=masked needs classes"):
        METHODS[name](same_class="masked").prepare(training_info)
